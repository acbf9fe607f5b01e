//! Redis: one typed command in, one reply out.
//!
//! The only layer that knows the redis crate. It knows neither NATS nor links.

pub(crate) mod backoff;
pub(crate) mod client_tracking;
pub(crate) mod cluster;
pub(crate) mod command;
pub(crate) mod connect_error;
pub(crate) mod connection;
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
pub(crate) mod server_error;
pub(crate) mod session;
pub(crate) mod supervisor;
pub(crate) mod transport;
