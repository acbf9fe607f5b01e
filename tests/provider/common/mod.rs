//! What the tests stand on: real servers, the real binary, and the two parties that talk to it.
//!
//! - [`world::World`] starts everything in one line and is what nearly every test begins with;
//! - [`nats`], [`redis`] and [`proxy`] are the servers, which a test may stop, start and hold up;
//! - [`provider`] runs the binary as a wasmCloud host does, [`host`] is that host's side of the
//!   lattice (links, configuration, health, shutdown), [`client`] the component's side of it, and
//!   [`component`] that of a component which is called;
//! - [`codec`] has the bytes of the interface's values, [`wait`] the only way to wait.
//!
//! Nothing here uses code of kvredis: the tests know the contract and the wire, not the crate.

pub mod call;
pub mod client;
pub mod codec;
pub mod component;
pub mod host;
pub mod keyvalue;
pub mod nats;
pub mod ports;
pub mod process;
pub mod provider;
pub mod proxy;
pub mod redis;
pub mod values;
pub mod wait;
pub mod world;
