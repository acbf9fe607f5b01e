//! Traces and metrics of what components that watch are told, and of what they are not.

use std::sync::LazyLock;

use opentelemetry::KeyValue;
use opentelemetry::metrics::Counter;
use tracing::{Span, info_span};

use crate::telemetry::scope::{exports_metrics, exports_traces, meter};

static DELIVERIES: LazyLock<Counter<u64>> = LazyLock::new(|| {
    meter()
        .u64_counter("kvredis.watch.deliveries")
        .with_description("Changes of keys that a component was called with.")
        .with_unit("{change}")
        .build()
});

static LOSSES: LazyLock<Counter<u64>> = LazyLock::new(|| {
    meter()
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
pub(crate) enum Loss {
    /// More changes were waiting for the component than are kept.
    Dropped,
    /// The component's host did not take or end the call, or the value could not be read.
    Failed,
    /// The key is no UTF-8.
    Unnameable,
    /// The connection to Redis was lost for a while, or a cluster got another primary; counted once,
    /// whatever was missed.
    Interrupted,
    /// The lease of `WATCH_ONCE` was lost while they waited.
    Lapsed,
}

/// The span of one attempt to tell a component of a change: reading the value, and the call.
pub(crate) fn span() -> Span {
    if !exports_traces() {
        return Span::none();
    }
    info_span!(
        "watch delivery",
        otel.name = "watch delivery",
        otel.kind = "internal",
    )
}

impl Loss {
    const ALL: [Self; 5] = [
        Self::Dropped,
        Self::Failed,
        Self::Unnameable,
        Self::Interrupted,
        Self::Lapsed,
    ];

    fn reason(self) -> KeyValue {
        let reason = match self {
            Self::Dropped => "dropped",
            Self::Failed => "failed",
            Self::Unnameable => "unnameable",
            Self::Interrupted => "interrupted",
            Self::Lapsed => "lapsed",
        };
        KeyValue::new("kvredis.watch.loss.reason", reason)
    }
}

/// A link watches from now on.
pub(crate) fn begins() {
    if exports_metrics() {
        // Without an event, so that the first one is an increase.
        DELIVERIES.add(0, &[]);
        for loss in Loss::ALL {
            LOSSES.add(0, &[loss.reason()]);
        }
    }
}

/// A component was called.
pub(crate) fn delivered() {
    if exports_metrics() {
        DELIVERIES.add(1, &[]);
    }
}

/// Components were not called.
pub(crate) fn lost(changes: usize, why: Loss) {
    if exports_metrics() {
        LOSSES.add(changes as u64, &[why.reason()]);
    }
}
