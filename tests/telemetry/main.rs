//! What kvredis exports: the real binary and a real receiver of OTLP, which decodes all that comes.
//!
//! `collector` receives, `signals` is what the tests look at, `observed` starts a provider that
//! exports there. Each other module holds the tests of one promise.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod observed;

mod ending; // what is exported at the end, and when nothing is to be
mod errors; // failures are in traces and metrics, and say no more than their kind
mod grpc; // the other protocol
mod logs; // the log's forms and levels, and its export
mod metrics; // metrics match what happened
mod pages; // the pages and the dashboard name what there is
mod secrecy; // no key, bucket, value or password in anything exported
mod traces; // parentage, names and attributes of spans
