//! wRPC over NATS: calls in, results out.

pub(crate) mod budget;
pub(crate) mod client;
pub(crate) mod codec;
pub(crate) mod dispatch;
pub(crate) mod drain;
pub mod functions;
pub(crate) mod params;
pub(crate) mod server;
