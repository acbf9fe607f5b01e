//! kvredis under faults, malformed messages, load and shutdown: real processes, real faults, and results
//! checked from outside.
//!
//! Every scenario has two lengths (`scenario`): a short one in `make test`, and a long one in `make soak`,
//! which writes its results to docs/reliability.md.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod history;
mod latency;
mod linearizable;
mod possible_values;
mod progress;
mod provider_pair;
mod resources;
mod scenario;

mod crashes; // Redis killed and restarted under load
mod endings; // shutdown with calls in flight
mod growth; // a million calls, ten thousand links, a thousand reconnects
mod hangs; // suspended, unresponsive, resetting and faulty Redis; dropped packets
mod health; // the health report, and HEALTH=process
mod histories; // linearizability of counters and registers
mod hostile; // 100,000 malformed messages
mod leaks; // no secret in any output
mod nats_gone; // NATS restarted and unreachable
mod overload; // the limits under ten times the load
mod refusals; // LOADING, READONLY, CLUSTERDOWN, ...
