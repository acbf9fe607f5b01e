//! An environment whose provider exports all signals to a collector at short intervals.

use std::sync::atomic::{AtomicU64, Ordering};

use async_nats::HeaderMap;
use test_support::client::Client;
use test_support::collector::Collector;
use test_support::collector::signals::Span;
use test_support::test_env::{COMPONENT, TestEnv, TestEnvBuilder};
use test_support::wait::eventually_some;
use wasmcloud_provider_sdk::core::otel::{OtelConfig, OtelProtocol};

/// Short export intervals.
pub const SHORT_INTERVALS: [(&str, &str); 2] = [
    ("OTEL_BSP_SCHEDULE_DELAY", "100"),
    ("OTEL_METRIC_EXPORT_INTERVAL", "100"),
];

/// The host's configuration for a collector that takes all signals.
pub fn to(collector: &Collector) -> OtelConfig {
    OtelConfig {
        enable_observability: true,
        observability_endpoint: Some(collector.url.clone()),
        protocol: OtelProtocol::Http,
        ..OtelConfig::default()
    }
}

/// An environment whose provider exports to this collector.
pub fn observed(collector: &Collector) -> TestEnvBuilder {
    let config = to(collector);
    TestEnv::builder()
        .provider_config(&SHORT_INTERVALS)
        .data(move |data| data.otel_config = config)
}

/// The trace context of a component's call.
pub struct Trace {
    /// The trace id.
    pub id: String,
    /// The id of the component's span.
    pub span: String,
}

impl Trace {
    /// A new, unique trace.
    pub fn new() -> Self {
        static TRACES: AtomicU64 = AtomicU64::new(1);
        let number = TRACES.fetch_add(1, Ordering::Relaxed);
        Self {
            id: format!("4bf92f3577b34da6{number:016x}"),
            span: format!("00f067aa{number:08x}"),
        }
    }

    /// The client of a component that calls within this trace.
    pub fn client(&self, client: &Client, component: &str, link: &str) -> Client {
        let mut headers = HeaderMap::new();
        headers.insert("source-id", component);
        headers.insert("link-name", link);
        headers.insert("traceparent", format!("00-{}-{}-01", self.id, self.span));
        client.headers(headers)
    }

    /// The client of an environment's first component within this trace.
    pub fn of(&self, env: &TestEnv) -> Client {
        self.client(&env.client, COMPONENT, "default")
    }

    /// Waits until this many spans are exported, and returns them, parents first.
    pub async fn spans(&self, collector: &Collector, count: usize) -> Vec<Span> {
        let what = format!("{count} spans of a trace are exported");
        let mut spans = eventually_some(&what, async || {
            let spans = collector.trace(&self.id);
            (spans.len() >= count).then_some(spans)
        })
        .await;
        assert_eq!(spans.len(), count, "{spans:#?}");
        // Spans are exported in the order in which they end.
        spans.reverse();
        spans
    }
}
