//! The commands for people, against real servers: `kvredis check`, `kvredis settings`, `--help`,
//! `--version`. What starting without host data says is in `tests/provider/starting.rs`.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[allow(dead_code, reason = "tests/provider uses more of it")]
#[path = "../provider/common/mod.rs"]
mod common;

#[allow(dead_code, reason = "tests/topologies uses more of it")]
#[path = "../topologies/certificates.rs"]
mod certificates;
#[allow(dead_code, reason = "tests/topologies uses more of it")]
#[path = "../topologies/cluster_servers.rs"]
mod cluster_servers;
#[allow(dead_code, reason = "tests/topologies uses more of it")]
#[path = "../topologies/sentinel_servers.rs"]
mod sentinel_servers;
#[allow(dead_code, reason = "tests/topologies uses more of it")]
#[path = "../topologies/server.rs"]
mod server;

mod check;
mod check_rights;
mod check_topologies;
mod help;
mod run;
mod settings;
