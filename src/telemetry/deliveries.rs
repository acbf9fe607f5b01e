//! Traces and metrics of calls to watching components.
//!
//! As in `signals`, no key, no bucket and no value is part of it.

use std::sync::LazyLock;

use async_nats::HeaderMap;
use opentelemetry::metrics::Counter;
use opentelemetry::propagation::{Injector, TextMapPropagator};
use opentelemetry::{KeyValue, global};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::field::Empty;
use tracing::{Span, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::signals;

static DELIVERIES: LazyLock<Counter<u64>> = LazyLock::new(|| {
    global::meter("kvredis")
        .u64_counter("kvredis.watch.deliveries")
        .with_description("Changes of keys that a component was called with.")
        .with_unit("{change}")
        .build()
});

static LOSSES: LazyLock<Counter<u64>> = LazyLock::new(|| {
    global::meter("kvredis")
        .u64_counter("kvredis.watch.losses")
        .with_description(
            "Changes of keys that a component was not called with, and interruptions in which \
             some may have been missed.",
        )
        .with_unit("{change}")
        .build()
});

/// Why a component was not called with a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// More changes were waiting for the component than are kept.
    Dropped,
    /// The component's host did not take or end the call, or the value could not be read.
    Failed,
    /// The key is no UTF-8.
    Unnameable,
    /// The connection to Redis was lost for a while; counted once, whatever was missed.
    Interrupted,
}

/// The span of a call to a component.
pub fn span(interface: &str, function: &str) -> Span {
    if !signals::traces() {
        return Span::none();
    }
    info_span!(
        "call",
        otel.name = format!("{interface}/{function}"),
        otel.kind = "client",
        otel.status_code = Empty,
        rpc.system = "wrpc",
        rpc.service = interface,
        rpc.method = function,
        error.type = Empty,
    )
}

/// Notes in the current span that the call failed.
pub fn failed(kind: &str) {
    let span = Span::current();
    span.record("otel.status_code", "ERROR");
    span.record("error.type", kind);
}

/// Adds the context of the current span, so that the component's spans are its children.
pub fn add_context(headers: &mut HeaderMap) {
    if signals::traces() {
        let context = Span::current().context();
        TraceContextPropagator::new().inject_context(&context, &mut Headers(headers));
    }
}

/// A component was called.
pub fn delivered() {
    DELIVERIES.add(1, &[]);
}

/// Components were not called.
pub fn lost(changes: usize, why: Loss) {
    let reason = match why {
        Loss::Dropped => "dropped",
        Loss::Failed => "failed",
        Loss::Unnameable => "unnameable",
        Loss::Interrupted => "interrupted",
    };
    LOSSES.add(changes as u64, &[KeyValue::new("reason", reason)]);
}

struct Headers<'a>(&'a mut HeaderMap);

impl Injector for Headers<'_> {
    fn set(&mut self, key: &str, value: String) {
        self.0.insert(key, value);
    }
}
