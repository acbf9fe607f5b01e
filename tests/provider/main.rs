//! Black-box tests of the provider: the real binary, started as a wasmCloud host starts it, between a
//! real NATS server and a real Redis server, called over wRPC.
//!
//! Each module covers one part of the provider's behavior. They are one test program, because linking
//! takes longer than running.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod addresses;
mod atomics;
mod availability;
mod batch;
mod buckets;
mod connections;
mod documented;
mod errors;
mod expiry;
mod junk;
mod limits;
mod links;
mod listing;
mod nats_credentials;
mod outcomes;
mod panics;
mod secrecy;
mod settings;
mod starting;
mod stopping;
mod store;
mod time_limits;
mod watching;
mod watching_failures;
mod watching_flags;
mod watching_links;
mod watching_losses;
mod watching_once;
mod wire;
mod wrong_settings;
