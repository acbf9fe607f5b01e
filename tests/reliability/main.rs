//! kvredis under faults, malformed messages, load and shutdown: real processes, real faults, and results
//! checked from outside.
//!
//! Every scenario has two lengths (`scale`): a short one in `make test`, and a long one in `make soak`,
//! which writes its results to docs/reliability.md.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod gauge;
mod history;
mod ledger;
mod linearizable;
mod pair;
mod progress;
mod scale;

mod stopwatch;

mod crashes; // Redis killed and restarted under load
mod endings; // shutdown with calls in flight
mod growth; // a million calls, ten thousand links, a thousand reconnects
mod hangs; // suspended, unresponsive, resetting and faulty Redis; dropped packets
mod health; // the health report, and HEALTH=process
mod histories; // linearizability of counters and registers
mod hostile; // 100,000 malformed messages
mod leaks; // no secret in any output
mod nats_gone; // NATS restarted and away
mod overload; // the limits under ten times the load
mod refusals; // LOADING, READONLY, CLUSTERDOWN, ...
