//! A real wasmCloud lattice on one machine, for the demo of kvredis and for its end-to-end test.
//!
//! [`Lattice`] starts NATS, Redis, wasmCloud hosts, wadm and a secrets backend on free ports, in a
//! temporary folder, and takes all of it down when it is dropped. Each of them is a process of its
//! own: NATS and Redis are the installed programs, the others are this package's binary `lattice`
//! with another subcommand ([`serve`]). So each has its own log, and nothing outlives the lattice.

pub mod archive;
pub mod control;
pub mod http;
pub mod interrupt;
mod lattice;
pub mod manifest;
pub mod nats;
pub mod process;
pub mod progress;
pub mod redis;
pub mod secrets;
pub mod serve;
pub mod wait;

pub use control::{Control, LinkSpec};
pub use lattice::{Lattice, Options};
pub use progress::Progress;
