//! wRPC over NATS: decodes calls of components and encodes their results; calls components.
//!
//! `call_subscription` → `server` → `handler` is the way of a call; `client` calls components.

pub(crate) mod budget;
pub(crate) mod call_subscription;
pub(crate) mod client;
pub(crate) mod codec;
pub(crate) mod functions;
pub(crate) mod handler;
pub(crate) mod inbox;
pub(crate) mod params;
pub(crate) mod protocol;
pub(crate) mod server;
