//! Metrics of the connections to Redis: how many are established, and the number of reconnects.

use std::sync::LazyLock;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, UpDownCounter};

use crate::settings::address::Address;
use crate::telemetry::commands;
use crate::telemetry::scope::{exports_metrics, meter};

static UP: LazyLock<UpDownCounter<i64>> = LazyLock::new(|| {
    meter()
        .i64_up_down_counter("kvredis.connections.up")
        .with_description("Connections to Redis that are established.")
        .with_unit("{connection}")
        .build()
});

static RECONNECTS: LazyLock<Counter<u64>> = LazyLock::new(|| {
    meter()
        .u64_counter("kvredis.connections.reconnects")
        .with_description("Connections to Redis that were established again after they were lost.")
        .with_unit("{connection}")
        .build()
});

/// The purpose of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Calls, and the reads of watching links.
    Commands,
    /// A subscription to key changes.
    Notifications,
}

impl Purpose {
    fn attributes(self, address: &Address) -> Vec<KeyValue> {
        let purpose = match self {
            Self::Commands => "commands",
            Self::Notifications => "notifications",
        };
        let mut attributes = commands::server(address);
        attributes.push(KeyValue::new("kvredis.connection.use", purpose));
        attributes
    }
}

/// Exports the connection as down until the first one is established.
pub(crate) fn register(address: &Address, purpose: Purpose) {
    if exports_metrics() {
        UP.add(0, &purpose.attributes(address));
    }
}

/// Exports a connection as up until it is dropped.
#[derive(Debug)]
pub(crate) struct ConnectedGuard(Option<Vec<KeyValue>>);

impl ConnectedGuard {
    pub(crate) fn new(address: &Address, purpose: Purpose, is_reconnect: bool) -> Self {
        if !exports_metrics() {
            return Self(None);
        }
        let attributes = purpose.attributes(address);
        UP.add(1, &attributes);
        // Adds zero without a reconnect, so that the first reconnect is an increase.
        RECONNECTS.add(u64::from(is_reconnect), &attributes);
        Self(Some(attributes))
    }
}

impl Drop for ConnectedGuard {
    fn drop(&mut self) {
        if let Some(attributes) = &self.0 {
            UP.add(-1, attributes);
        }
    }
}
