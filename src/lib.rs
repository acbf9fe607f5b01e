//! kvredis: `wasi:keyvalue` on Redis and Valkey, as a wasmCloud 1.x capability provider.
//!
//! A call walks straight through, one room after another, and nobody calls back up:
//!
//! ```text
//! NATS -> serve (wRPC in, results out) -> store | atomics | batch (one file per WIT interface)
//!      -> links, link (whose call is this?) -> keyspace (bucket and key to Redis key)
//!      -> cache (has it been read already?)
//!      -> connection (one request in, one answer out) -> Redis
//! ```
//!
//! The other way, components are called when a key changes:
//!
//! ```text
//! Redis -> connection::subscription -> watcher (whose change is this? in which order?)
//!       -> serve::caller (wRPC out) -> NATS
//! ```
//!
//! Beside these ways: [`provider`] (the host's lifecycle), [`host_data`] (what the host says on
//! standard input), [`settings`] (text to typed settings), [`check`] (tries a connection for who runs
//! it), [`telemetry`] and [`error`].

pub(crate) mod cache;
pub(crate) mod check;
pub mod cli;
pub(crate) mod error;
pub(crate) mod keyvalue;
pub(crate) mod link;
pub(crate) mod provider;
pub(crate) mod redis;
pub(crate) mod settings;
pub(crate) mod telemetry;
#[doc(hidden)]
pub mod testing;
pub(crate) mod watcher;
pub(crate) mod wrpc;
