//! Traces and metrics of changes that are delivered to watching components, and of those that are lost.

use std::sync::LazyLock;

use opentelemetry::KeyValue;
use opentelemetry::metrics::Counter;
use tracing::{Span, info_span};

use crate::telemetry::scope::{exports_metrics, exports_traces, meter};

static DELIVERIES: LazyLock<Counter<u64>> = LazyLock::new(|| {
    meter()
        .u64_counter("kvredis.watch.deliveries")
        .with_description("Key changes delivered to a component.")
        .with_unit("{change}")
        .build()
});

static LOSSES: LazyLock<Counter<u64>> = LazyLock::new(|| {
    meter()
        .u64_counter("kvredis.watch.losses")
        .with_description(
            "Key changes not delivered to a component, and interruptions in which some may have \
             been missed.",
        )
        .with_unit("{change}")
        .build()
});

/// The reason why a change is not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// The queue of the component was full.
    Dropped,
    /// The component's host did not accept or complete the call, or the value could not be read.
    Failed,
    /// The key is not UTF-8.
    InvalidUtf8,
    /// The connection to Redis was lost for a while, or a cluster has a new primary; counted once per
    /// interruption.
    Interrupted,
    /// The change was queued when the lease of `WATCH_ONCE` was lost.
    LeaseLost,
    /// The link was replaced by one that does not watch the key any more.
    Replaced,
    /// The link was deleted.
    Deleted,
    /// The process stopped.
    Stopped,
}

impl Loss {
    const ALL: [Self; 8] = [
        Self::Dropped,
        Self::Failed,
        Self::InvalidUtf8,
        Self::Interrupted,
        Self::LeaseLost,
        Self::Replaced,
        Self::Deleted,
        Self::Stopped,
    ];

    fn attribute(self) -> KeyValue {
        let reason = match self {
            Self::Dropped => "dropped",
            Self::Failed => "failed",
            Self::InvalidUtf8 => "invalid_utf8",
            Self::Interrupted => "interrupted",
            Self::LeaseLost => "lease_lost",
            Self::Replaced => "replaced",
            Self::Deleted => "deleted",
            Self::Stopped => "stopped",
        };
        KeyValue::new("kvredis.watch.loss.reason", reason)
    }
}

/// The span of one attempt to deliver a change: reading the value, and the call.
pub(crate) fn delivery_span() -> Span {
    if !exports_traces() {
        return Span::none();
    }
    info_span!(
        "watch delivery",
        otel.name = "watch delivery",
        otel.kind = "internal",
    )
}

/// Exports the counters at 0 when a link starts to watch, so that the first event is an increase.
pub(crate) fn register() {
    if exports_metrics() {
        DELIVERIES.add(0, &[]);
        for loss in Loss::ALL {
            LOSSES.add(0, &[loss.attribute()]);
        }
    }
}

/// Counts a delivered change.
pub(crate) fn record_delivery() {
    if exports_metrics() {
        DELIVERIES.add(1, &[]);
    }
}

/// Counts lost changes.
pub(crate) fn record_loss(changes: usize, loss: Loss) {
    if exports_metrics() {
        LOSSES.add(changes as u64, &[loss.attribute()]);
    }
}
