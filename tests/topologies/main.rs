//! kvredis on every kind of Redis: TLS, clusters, sentinels, credentials that change. All servers
//! are real processes, with certificates made in the test.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod cluster;
mod credentials;
mod listing;
mod load;
mod sentinel;
mod tls;
mod watching;
mod whole_suite;
