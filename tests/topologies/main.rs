//! kvredis on every kind of Redis deployment: TLS, clusters, Sentinel, changing credentials. All servers
//! are real processes, with certificates generated in the test.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod all_functions;
mod cluster;
mod credentials;
mod endpoints;
mod large_cursors;
mod listing;
mod load;
mod sentinel;
mod slot_map;
mod tls;
mod watching;
