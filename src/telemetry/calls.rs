//! Traces and metrics of calls: those that components make, and those to components that watch.
//!
//! Named by OpenTelemetry's conventions for RPC, of which kvredis is the server in one direction
//! and the client in the other.

use std::borrow::Cow;
use std::sync::{LazyLock, OnceLock};
use std::time::Instant;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Histogram, UpDownCounter};
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::field::Empty;
use tracing::{Span, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::error::Error;
use crate::telemetry::error_type::error_type;
use crate::telemetry::scope::{exports_metrics, exports_traces, meter};

const SYSTEM: &str = "wrpc";

/// The boundaries that the conventions give for durations, in seconds.
pub(crate) const SECONDS: [f64; 14] = [
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
];

static SERVER_DURATION: LazyLock<Histogram<f64>> = LazyLock::new(|| {
    meter()
        .f64_histogram("rpc.server.call.duration")
        .with_description("Duration of calls of components, from arrival to result.")
        .with_unit("s")
        .with_boundaries([0.001].into_iter().chain(SECONDS).collect())
        .build()
});

static CLIENT_DURATION: LazyLock<Histogram<f64>> = LazyLock::new(|| {
    meter()
        .f64_histogram("rpc.client.call.duration")
        .with_description("Duration of calls to components that watch, one attempt each.")
        .with_unit("s")
        .with_boundaries(SECONDS.to_vec())
        .build()
});

static IN_FLIGHT: LazyLock<UpDownCounter<i64>> = LazyLock::new(|| {
    meter()
        .i64_up_down_counter("kvredis.calls.in_flight")
        .with_description("Calls of components that have arrived and have no result yet.")
        .with_unit("{call}")
        .build()
});

/// The span and the metrics of a call; the call ends when this is dropped.
#[derive(Debug)]
pub(crate) struct CallSpan {
    span: Span,
    measurement: Option<CallMeasurement>,
}

#[derive(Debug)]
struct CallMeasurement {
    started: Instant,
    interface: &'static str,
    function: &'static str,
    kind: CallKind,
    error_type: OnceLock<Cow<'static, str>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CallKind {
    /// A component calls the provider.
    Server,
    /// The provider calls a component.
    Client,
}

impl CallSpan {
    /// A call of a component; `headers` may hold the context of the component's own span.
    pub(crate) fn server(
        interface: &'static str,
        function: &'static str,
        headers: Option<&impl Extractor>,
    ) -> Self {
        let call_span = Self::start(interface, function, CallKind::Server);
        if let Some(headers) = headers.filter(|_| exports_traces()) {
            let parent = TraceContextPropagator::new().extract(headers);
            // It fails only where no layer exports spans.
            let _ = call_span.span.set_parent(parent);
        }
        if call_span.measurement.is_some() {
            IN_FLIGHT.add(1, &[]);
        }
        call_span
    }

    /// A call to a component.
    pub(crate) fn client(interface: &'static str, function: &'static str) -> Self {
        Self::start(interface, function, CallKind::Client)
    }

    fn start(interface: &'static str, function: &'static str, kind: CallKind) -> Self {
        let span = if exports_traces() {
            let method = format!("{interface}/{function}");
            let span_kind = match kind {
                CallKind::Server => "server",
                CallKind::Client => "client",
            };
            info_span!(
                "call",
                otel.name = method,
                otel.kind = span_kind,
                otel.status_code = Empty,
                rpc.system.name = SYSTEM,
                rpc.method = method,
                error.type = Empty,
            )
        } else {
            Span::none()
        };
        let measurement = exports_metrics().then(|| CallMeasurement {
            started: Instant::now(),
            interface,
            function,
            kind,
            error_type: OnceLock::new(),
        });
        Self { span, measurement }
    }

    pub(crate) fn span(&self) -> Span {
        self.span.clone()
    }

    pub(crate) fn record_error(&self, error: &Error) {
        if !self.span.is_none() || self.measurement.is_some() {
            self.record_error_type(Cow::Owned(error_type(error).to_owned()));
        }
    }

    pub(crate) fn record_error_type(&self, error_type: Cow<'static, str>) {
        self.span.record("otel.status_code", "ERROR");
        self.span.record("error.type", &*error_type);
        if let Some(measurement) = &self.measurement {
            // The first error is the cause of later ones.
            let _ = measurement.error_type.set(error_type);
        }
    }

    /// Adds the context of the call to its headers, so that the component's spans become children.
    pub(crate) fn inject_context(&self, headers: &mut impl Injector) {
        if !self.span.is_none() {
            let context = self.span.context();
            TraceContextPropagator::new().inject_context(&context, headers);
        }
    }
}

impl Drop for CallSpan {
    fn drop(&mut self) {
        let Some(mut measurement) = self.measurement.take() else {
            return;
        };
        let method = format!("{}/{}", measurement.interface, measurement.function);
        let mut attributes = vec![
            KeyValue::new("rpc.system.name", SYSTEM),
            KeyValue::new("rpc.method", method),
        ];
        if let Some(error_type) = measurement.error_type.take() {
            attributes.push(KeyValue::new("error.type", error_type));
        }
        let duration = measurement.started.elapsed().as_secs_f64();
        match measurement.kind {
            CallKind::Server => {
                SERVER_DURATION.record(duration, &attributes);
                IN_FLIGHT.add(-1, &[]);
            }
            CallKind::Client => CLIENT_DURATION.record(duration, &attributes),
        }
    }
}
