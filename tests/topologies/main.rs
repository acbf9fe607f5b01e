//! kvredis on every kind of Redis: TLS, clusters, sentinels, credentials that change. All servers
//! are real processes, with certificates made in the test.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[allow(dead_code, reason = "tests/provider uses more of it")]
#[path = "../provider/common/mod.rs"]
mod common;

mod certificates;
mod cluster;
mod cluster_servers;
mod credentials;
mod load;
mod sentinel;
mod sentinel_servers;
mod server;
mod tls;
mod watching;
mod whole_suite;
