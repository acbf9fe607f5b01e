//! Exported telemetry: the real binary exports to an OTLP collector, which decodes everything.
//!
//! `test_support::collector` receives the exports, `observed` starts a provider that exports to it. Each
//! other module tests one promise.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod observed;

mod ending; // exports at shutdown, and no unrequested exports
mod errors; // failures in traces and metrics, without the text of the error
mod grpc; // OTLP over gRPC
mod logs; // formats and levels of the log, and its export
mod metrics; // metrics count what happened
mod pages; // documentation and dashboard match the exported telemetry
mod secrecy; // no key, bucket, value or password in any export
mod traces; // parentage, names and attributes of spans
