//! A real wasmCloud lattice on one machine, for the demo and the end-to-end tests of kvredis.
//!
//! [`Lattice`] starts NATS, Redis, a wasmCloud host, wadm and a secrets backend on free ports and in a
//! temporary folder, and stops them when it is dropped. Each of them is a separate process with its
//! own log: NATS and Redis are the installed programs, the others are subcommands of this package's
//! program `lattice` ([`serve`]).

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
