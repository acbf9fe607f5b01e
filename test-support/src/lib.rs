//! The test bench of kvredis: real servers, the real binary, and the clients that talk to it.
//!
//! - [`test_env::TestEnv`] starts everything in one line; nearly every test begins with it.
//! - [`nats`], [`redis`], [`redis_node`], [`cluster`] and [`sentinel`] start servers, which
//!   a test may stop, pause and restart; [`proxy`] delays and breaks connections to them.
//! - [`provider`] runs the binary as a wasmCloud host does, [`host`] is the host's side of the
//!   lattice (links, configuration, health, shutdown), [`client`] is a component that calls the
//!   provider, and [`component`] one that the provider calls.
//! - [`collector`] receives the exported telemetry.
//! - [`codec`] encodes the values of the interfaces, and [`wait`] is the only way to wait.
//!
//! Nothing here uses code of kvredis: the tests know its interfaces and the wire protocol only.

pub mod certificates;
pub mod client;
pub mod cluster;
pub mod codec;
pub mod collector;
pub mod component;
pub mod host;
pub mod keyvalue;
pub mod malformed_urls;
pub mod nats;
pub mod nats_jwt;
pub mod ports;
pub mod process;
pub mod provider;
pub mod proxy;
pub mod redis;
pub mod redis_node;
mod reply_inbox;
pub mod sentinel;
pub mod test_env;
pub mod values;
pub mod wait;
