//! kvredis: `wasi:keyvalue` on Redis and Valkey, as a wasmCloud 1.x capability provider.
//!
//! The path of a call of a component, from NATS to Redis:
//!
//! ```text
//! wrpc       server, handler: receives the call, decodes it, publishes the result
//! keyvalue   dispatch: one file for each interface (store, atomics, batch)
//! link       table, keyspace: finds the link of the call, maps bucket and key to a key in Redis
//! cache      read_through: returns cached reads
//! redis      connection: sends one typed command, returns one reply
//! ```
//!
//! The path of a changed key, from Redis to a watching component:
//!
//! ```text
//! redis      pubsub: subscribes to keyspace notifications
//! watcher    listener, queue, delivery: selects the changes, orders them, calls the component
//! wrpc       client
//! ```
//!
//! The other modules: `provider` is the lifecycle that the host controls, `settings` turns texts into
//! typed settings, `error` is the error of a call, `telemetry` exports logs, traces and metrics,
//! `check` is `kvredis check`, and [`cli`] the command line. `redis`, `cache`, `keyvalue` and `link`
//! import neither NATS nor wRPC nor the provider SDK. docs/architecture.md describes the design.

pub(crate) mod cache;
pub(crate) mod check;
pub mod cli;
pub(crate) mod error;
pub(crate) mod fault_injection;
pub(crate) mod keyvalue;
pub(crate) mod link;
pub(crate) mod provider;
pub(crate) mod redis;
pub(crate) mod settings;
pub(crate) mod tasks;
pub(crate) mod telemetry;
#[doc(hidden)]
pub mod testing;
pub(crate) mod watcher;
pub(crate) mod wrpc;
