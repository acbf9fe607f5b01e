//! kvredis in a real lattice: a wasmCloud host starts it from its archive, and components call it.
//!
//! `make test` builds what these tests need: the archives in `build/` (or the one that
//! `KVREDIS_ARCHIVE` names), and nats-server 2.10 or newer on the `PATH`.

mod demo;
mod interfaces;
mod links;
mod manifests;
mod packing;
mod secrets;
mod setup;
mod stop;
mod watching;
