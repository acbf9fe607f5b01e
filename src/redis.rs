//! The engine on Redis: one typed command in, one reply out.
//!
//! The path of a command, from the top: `connection` (a single server, or a `cluster`) sends it
//! through `retry` to a `node`, the reconnecting connection to one server. A node's `supervisor` has
//! a `connector` open each `session`: `resolve` (with `sentinel`) finds the server, `transport` dials
//! it, `handshake` authenticates, `client_tracking` feeds the cache. `pubsub` subscribes on
//! connections of its own. `diagnostics` runs single steps for `kvredis check`.
//!
//! The only layer that uses the redis crate. It imports neither NATS nor links.

pub(crate) mod backoff;
pub(crate) mod client_tracking;
pub(crate) mod cluster;
pub(crate) mod command;
pub(crate) mod command_error;
pub(crate) mod connect_error;
pub(crate) mod connection;
pub(crate) mod connector;
pub(crate) mod diagnostics;
pub(crate) mod handshake;
pub(crate) mod limiter;
pub(crate) mod listing;
pub(crate) mod node;
pub(crate) mod options;
pub(crate) mod pubsub;
pub(crate) mod reply;
pub(crate) mod resolve;
pub(crate) mod retry;
pub(crate) mod selector;
pub(crate) mod sentinel;
pub(crate) mod server_error;
pub(crate) mod session;
pub(crate) mod supervisor;
pub(crate) mod transport;
