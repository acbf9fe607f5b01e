//! Traces and metrics of commands to Redis, by OpenTelemetry's conventions for Redis clients.
//!
//! One span and one measurement for each command, retries and waiting included.

use std::sync::LazyLock;
use std::time::Instant;

use opentelemetry::KeyValue;
use opentelemetry::metrics::Histogram;
use tracing::field::Empty;
use tracing::{Span, info_span};

use crate::error::Error;
use crate::settings::address::Address;
use crate::settings::address::ServerSpec;
use crate::telemetry::error_type::error_type;
use crate::telemetry::scope::{exports_metrics, exports_traces, meter};

/// Boundaries in seconds, as the conventions give them.
const SECONDS: [f64; 9] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0];

static DURATION: LazyLock<Histogram<f64>> = LazyLock::new(|| {
    meter()
        .f64_histogram("db.client.operation.duration")
        .with_description("Duration of database client operations.")
        .with_unit("s")
        .with_boundaries(SECONDS.to_vec())
        .build()
});

/// The span and the measurement of one command, until [`CommandSpan::ended`].
#[derive(Debug)]
pub(crate) struct CommandSpan {
    span: Span,
    measured: Option<CommandMeasurement>,
}

#[derive(Debug)]
struct CommandMeasurement {
    started: Instant,
    operation: &'static str,
    server: Vec<KeyValue>,
}

impl CommandSpan {
    /// A command to the server of this address.
    pub(crate) fn started(
        operation: &'static str,
        batch_size: Option<usize>,
        address: &Address,
    ) -> Self {
        let (traces, metrics) = (exports_traces(), exports_metrics());
        if !traces && !metrics {
            return Self {
                span: Span::none(),
                measured: None,
            };
        }
        let span = if traces {
            span(operation, batch_size, address)
        } else {
            Span::none()
        };
        let measured = metrics.then(|| CommandMeasurement {
            started: Instant::now(),
            operation,
            server: server(address),
        });
        Self { span, measured }
    }

    pub(crate) fn span(&self) -> Span {
        self.span.clone()
    }

    /// Records the outcome.
    pub(crate) fn ended<T>(self, outcome: &Result<T, Error>) {
        let error = outcome.as_ref().err();
        if let Some(error) = error.filter(|_| !self.span.is_none()) {
            self.span.record("otel.status_code", "ERROR");
            self.span.record("error.type", kind(error));
            if let Some(code) = error.server_code() {
                self.span.record("db.response.status_code", code);
            }
        }
        let Some(measured) = self.measured else {
            return;
        };
        let mut attributes = measured.server;
        attributes.push(KeyValue::new("db.system.name", "redis"));
        attributes.push(KeyValue::new("db.operation.name", measured.operation));
        if let Some(error) = error {
            attributes.push(KeyValue::new("error.type", kind(error).to_owned()));
            if let Some(code) = error.server_code() {
                attributes.push(KeyValue::new("db.response.status_code", code.to_owned()));
            }
        }
        DURATION.record(measured.started.elapsed().as_secs_f64(), &attributes);
    }
}

fn span(operation: &str, batch_size: Option<usize>, address: &Address) -> Span {
    let endpoint = address.first_endpoint();
    let name = match endpoint {
        Some(endpoint) => format!("{operation} {endpoint}"),
        None => operation.to_owned(),
    };
    let span = info_span!(
        "command",
        otel.name = name,
        otel.kind = "client",
        otel.status_code = Empty,
        db.system.name = "redis",
        db.operation.name = operation,
        db.operation.batch.size = batch_size,
        db.namespace = address.database.to_string(),
        db.response.status_code = Empty,
        server.address = endpoint.map(|endpoint| &endpoint.host),
        server.port = endpoint.map(|endpoint| endpoint.port),
        error.type = Empty,
    );
    if let ServerSpec::Unix { path } = &address.server {
        span.record("server.address", tracing::field::display(path.display()));
    }
    span
}

/// The attributes of a server.
pub(crate) fn server(address: &Address) -> Vec<KeyValue> {
    // Capacity for the attributes that the measurement adds.
    let mut attributes = Vec::with_capacity(6);
    match (&address.server, address.first_endpoint()) {
        (ServerSpec::Unix { path }, _) => {
            attributes.push(KeyValue::new("server.address", path.display().to_string()));
        }
        (_, Some(endpoint)) => {
            attributes.push(KeyValue::new("server.address", endpoint.host.clone()));
            attributes.push(KeyValue::new("server.port", i64::from(endpoint.port)));
        }
        (_, None) => {}
    }
    attributes
}

/// The value of `error.type`: Redis's code, if Redis replied with the error.
fn kind(error: &Error) -> &str {
    error.server_code().unwrap_or_else(|| error_type(error))
}
