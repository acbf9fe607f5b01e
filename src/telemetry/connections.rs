//! Metrics of the connections to Redis: how many are up, and how often they came back.

use std::sync::LazyLock;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, UpDownCounter};

use super::{commands, meter, metrics};
use crate::settings::Address;

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

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Calls, and what watching reads.
    Commands,
    /// Hearing of changes of keys.
    Notifications,
}

impl Use {
    fn attributes(self, address: &Address) -> Vec<KeyValue> {
        let of_use = match self {
            Self::Commands => "commands",
            Self::Notifications => "notifications",
        };
        let mut attributes = commands::server(address);
        attributes.push(KeyValue::new("kvredis.connection.use", of_use));
        attributes
    }
}

/// A connection to the server of this address will be tried: from now on it can be seen that there
/// is none.
pub fn wanted(address: &Address, of_use: Use) {
    if metrics() {
        UP.add(0, &of_use.attributes(address));
    }
}

/// A connection that is up, until it is dropped.
#[derive(Debug)]
pub struct Up(Option<Vec<KeyValue>>);

impl Up {
    /// A connection has been established to the server of this address; `again` where there was
    /// one before.
    pub fn new(address: &Address, of_use: Use, again: bool) -> Self {
        if !metrics() {
            return Self(None);
        }
        let attributes = of_use.attributes(address);
        UP.add(1, &attributes);
        // Without an event, so that the first one is an increase.
        RECONNECTS.add(u64::from(again), &attributes);
        Self(Some(attributes))
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        if let Some(attributes) = &self.0 {
            UP.add(-1, attributes);
        }
    }
}
