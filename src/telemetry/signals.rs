//! Traces and metrics of calls and commands, named by OpenTelemetry's semantic conventions.
//!
//! Nothing of it is computed unless the host has traces or metrics exported. No key, no bucket and
//! no value is ever part of a signal.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use async_nats::HeaderMap;
use opentelemetry::metrics::Histogram;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::{KeyValue, global};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::field::Empty;
use tracing::{Span, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use wasmcloud_provider_sdk::core::OtelConfig;

use crate::error::Error;
use crate::settings::Address;
use crate::settings::address::Server;

static TRACES: AtomicBool = AtomicBool::new(false);
static METRICS: AtomicBool = AtomicBool::new(false);

static DURATION: LazyLock<Histogram<f64>> = LazyLock::new(|| {
    global::meter("kvredis")
        .f64_histogram("db.client.operation.duration")
        .with_description("Duration of database client operations.")
        .with_unit("s")
        .with_boundaries(vec![0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0])
        .build()
});

/// Switches on what the host has exported.
pub(super) fn enable(config: &OtelConfig) {
    TRACES.store(config.traces_enabled(), Ordering::Relaxed);
    METRICS.store(config.metrics_enabled(), Ordering::Relaxed);
    if config.metrics_enabled() {
        super::cache::enable();
    }
}

/// Whether the host has traces exported.
pub(super) fn traces() -> bool {
    TRACES.load(Ordering::Relaxed)
}

/// The span of a call: the child of the component's, if the call's headers say which that is.
pub fn call_span(interface: &str, function: &str, headers: Option<&HeaderMap>) -> Span {
    if !TRACES.load(Ordering::Relaxed) {
        return Span::none();
    }
    let span = info_span!(
        "call",
        otel.name = format!("{interface}/{function}"),
        otel.kind = "server",
        otel.status_code = Empty,
        rpc.system = "wrpc",
        rpc.service = interface,
        rpc.method = function,
        error.type = Empty,
    );
    if let Some(headers) = headers {
        let parent = TraceContextPropagator::new().extract(&Headers(headers));
        // It fails only where no layer exports spans.
        let _ = span.set_parent(parent);
    }
    span
}

/// What is noted of one command, from its start to [`Command::ended`].
#[derive(Debug)]
pub struct Command {
    span: Span,
    started: Option<(Instant, &'static str)>,
}

impl Command {
    /// A command that goes to the server of this address.
    pub fn started(name: &'static str, address: &Address) -> Self {
        let started = METRICS
            .load(Ordering::Relaxed)
            .then(|| (Instant::now(), name));
        if !TRACES.load(Ordering::Relaxed) {
            let span = Span::none();
            return Self { span, started };
        }
        let span = info_span!(
            "command",
            otel.name = name,
            otel.kind = "client",
            otel.status_code = Empty,
            db.system.name = "redis",
            db.operation.name = name,
            db.namespace = address.database,
            server.address = Empty,
            server.port = Empty,
            error.type = Empty,
        );
        match &address.server {
            Server::Unix { path } => {
                span.record("server.address", tracing::field::display(path.display()));
            }
            Server::Tcp(_) | Server::Cluster { .. } | Server::Sentinel(_) => {
                if let Some(endpoint) = address.first_endpoint() {
                    span.record("server.address", &endpoint.host);
                    span.record("server.port", endpoint.port);
                }
            }
        }
        Self { span, started }
    }

    /// Its span.
    pub fn span(&self) -> Span {
        self.span.clone()
    }

    /// Notes what came of it.
    pub fn ended<T>(self, outcome: &Result<T, Error>) {
        if let Err(error) = outcome {
            failed(&self.span, error);
        }
        let Some((started, name)) = self.started else {
            return;
        };
        let attributes = [
            KeyValue::new("db.system.name", "redis"),
            KeyValue::new("db.operation.name", name),
            KeyValue::new("error.type", outcome.as_ref().err().map_or("", kind)),
        ];
        let relevant = if outcome.is_ok() { 2 } else { 3 };
        DURATION.record(started.elapsed().as_secs_f64(), &attributes[..relevant]);
    }
}

/// Notes an error in a span.
pub fn failed(span: &Span, error: &Error) {
    span.record("otel.status_code", "ERROR");
    span.record("error.type", kind(error));
}

/// The interface's name of an error, of which there are few.
fn kind(error: &Error) -> &'static str {
    match error {
        Error::NoSuchStore => "no-such-store",
        Error::AccessDenied => "access-denied",
        Error::Other(_) => "other",
    }
}

/// The headers of a call as the propagator reads them.
struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(|value| value.as_str())
    }

    fn keys(&self) -> Vec<&str> {
        self.0
            .iter()
            .filter_map(|(name, _)| std::str::from_utf8(name.as_ref()).ok())
            .collect()
    }
}
