//! Subscriptions to what Redis publishes, on connections of their own that reconnect when they break.
//!
//! In a cluster each node publishes the changes of its own keys only, so that a subscription is a set
//! of connections, which follows the topology. `subscription` reconciles that set, `node_subscription`
//! keeps one node subscribed, `connection` is one established connection (RESP3, so that it also
//! executes commands). Messages reach a `listener` in the order in which a node sends them; the meaning
//! of a message is decided by `watcher`.

pub(crate) mod connection;
pub(crate) mod flush;
pub(crate) mod keyspace_events;
pub(crate) mod listener;
pub(crate) mod node_subscription;
pub(crate) mod server_set;
pub(crate) mod state;
pub(crate) mod subscription;
