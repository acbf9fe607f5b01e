//! The commands of the binary on real servers: `kvredis check`, `kvredis settings`, `--help`,
//! `--version`. `tests/provider/starting.rs` has the errors of a start without host data.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod check;
mod check_acl;
mod check_topologies;
mod documented;
mod help;
mod run;
mod settings;
