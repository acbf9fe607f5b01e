//! Traces and metrics of calls: those that components make, and those to components that watch.
//!
//! Named by OpenTelemetry's conventions for RPC, of which kvredis is the server in one direction
//! and the client in the other.

use std::borrow::Cow;
use std::sync::{LazyLock, OnceLock};
use std::time::Instant;

use async_nats::HeaderMap;
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Histogram, UpDownCounter};
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::field::Empty;
use tracing::{Span, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::error::Error;
use crate::telemetry::error_type;
use crate::telemetry::scope::{exports_metrics, exports_traces, meter};

const SYSTEM: &str = "wrpc";

/// The boundaries that the conventions give for durations, in seconds.
pub(crate) const SECONDS: [f64; 14] = [
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
];

static SERVED: LazyLock<Histogram<f64>> = LazyLock::new(|| {
    meter()
        .f64_histogram("rpc.server.call.duration")
        .with_description("Duration of calls of components, from arrival to answer.")
        .with_unit("s")
        .with_boundaries([0.001].into_iter().chain(SECONDS).collect())
        .build()
});

static MADE: LazyLock<Histogram<f64>> = LazyLock::new(|| {
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
        .with_description("Calls of components that have arrived and are not answered yet.")
        .with_unit("{call}")
        .build()
});

/// What is noted of a call, from its start until it is dropped.
#[derive(Debug)]
pub(crate) struct CallSpan {
    span: Span,
    measured: Option<CallMeasurement>,
}

#[derive(Debug)]
struct CallMeasurement {
    started: Instant,
    interface: &'static str,
    function: &'static str,
    is_served: bool,
    failure: OnceLock<Cow<'static, str>>,
}

impl CallSpan {
    /// A component's call that has arrived: a child of the component's own span, if the headers
    /// say which that is.
    pub(crate) fn arrived(
        interface: &'static str,
        function: &'static str,
        headers: Option<&HeaderMap>,
    ) -> Self {
        let noted = Self::start(interface, function, true);
        if let Some(headers) = headers.filter(|_| exports_traces()) {
            let parent = TraceContextPropagator::new().extract(&Received(headers));
            // It fails only where no layer exports spans.
            let _ = noted.span.set_parent(parent);
        }
        if noted.measured.is_some() {
            IN_FLIGHT.add(1, &[]);
        }
        noted
    }

    /// A call to a component.
    pub(crate) fn made(interface: &'static str, function: &'static str) -> Self {
        Self::start(interface, function, false)
    }

    fn start(interface: &'static str, function: &'static str, is_served: bool) -> Self {
        let span = if exports_traces() {
            let method = format!("{interface}/{function}");
            info_span!(
                "call",
                otel.name = method,
                otel.kind = if is_served { "server" } else { "client" },
                otel.status_code = Empty,
                rpc.system.name = SYSTEM,
                rpc.method = method,
                error.type = Empty,
            )
        } else {
            Span::none()
        };
        let measured = exports_metrics().then(|| CallMeasurement {
            started: Instant::now(),
            interface,
            function,
            is_served,
            failure: OnceLock::new(),
        });
        Self { span, measured }
    }

    /// Its span.
    pub(crate) fn span(&self) -> Span {
        self.span.clone()
    }

    /// Notes that it failed.
    pub(crate) fn failed(&self, error: &Error) {
        if !self.span.is_none() || self.measured.is_some() {
            self.failed_as(Cow::Owned(error_type::kind(error).to_owned()));
        }
    }

    /// Notes that it failed in this way.
    pub(crate) fn failed_as(&self, kind: Cow<'static, str>) {
        self.span.record("otel.status_code", "ERROR");
        self.span.record("error.type", &*kind);
        if let Some(measured) = &self.measured {
            // The first failure is the one that the others come from.
            let _ = measured.failure.set(kind);
        }
    }

    /// Adds the context of the call, so that the component's spans are its children.
    pub(crate) fn add_context(&self, headers: &mut HeaderMap) {
        if !self.span.is_none() {
            let context = self.span.context();
            TraceContextPropagator::new().inject_context(&context, &mut Sent(headers));
        }
    }
}

impl Drop for CallSpan {
    fn drop(&mut self) {
        let Some(mut measured) = self.measured.take() else {
            return;
        };
        let method = format!("{}/{}", measured.interface, measured.function);
        let mut attributes = vec![
            KeyValue::new("rpc.system.name", SYSTEM),
            KeyValue::new("rpc.method", method),
        ];
        if let Some(kind) = measured.failure.take() {
            attributes.push(KeyValue::new("error.type", kind));
        }
        let duration = measured.started.elapsed().as_secs_f64();
        if measured.is_served {
            SERVED.record(duration, &attributes);
            IN_FLIGHT.add(-1, &[]);
        } else {
            MADE.record(duration, &attributes);
        }
    }
}

/// The headers of a call as the propagator reads them.
struct Received<'a>(&'a HeaderMap);

impl Extractor for Received<'_> {
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

/// The headers of a call as the propagator writes them.
struct Sent<'a>(&'a mut HeaderMap);

impl Injector for Sent<'_> {
    fn set(&mut self, key: &str, value: String) {
        self.0.insert(key, value);
    }
}
