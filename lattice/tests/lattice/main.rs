//! End-to-end tests: a wasmCloud host starts kvredis from its archive, and components call it.
//!
//! The tests need the archives in `build/`, which `make build` builds (`KVREDIS_ARCHIVE` selects another
//! one), and nats-server 2.10 or newer on the `PATH`.

mod demo;
mod interfaces;
mod links;
mod manifests;
mod packing;
mod secrets;
mod setup;
mod stop;
mod watching;
