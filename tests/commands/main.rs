//! The commands for people, against real servers: `kvredis check`, `kvredis settings`, `--help`,
//! `--version`. What starting without host data says is in `tests/provider/starting.rs`.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod check;
mod check_acl;
mod check_topologies;
mod documented;
mod help;
mod run;
mod settings;
