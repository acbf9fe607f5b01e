//! Exports at shutdown, and no exports that the host does not request.

// Guarantees: G53

use std::net::TcpListener;
use std::time::Duration;

use test_support::collector;
use test_support::test_env::TestEnv;
use tokio::time::Instant;
use wasmcloud_provider_sdk::core::otel::OtelConfig;

use crate::observed::{Trace, observed, to};

/// The SDK exports every 5 s and 60 s, so these exports happen at shutdown.
#[tokio::test]
async fn telemetry_is_flushed_on_shutdown() {
    let collector = collector::start();
    let config = to(&collector);
    let mut env = TestEnv::builder()
        .data(move |data| data.otel_config = config)
        .start()
        .await;
    let trace = Trace::new();
    trace.of(&env).set("", "k", "v").await.unwrap();
    assert!(env.host.shutdown().await.is_some());
    assert!(env.provider.wait().await.success());
    assert_eq!(collector.trace(&trace.id).len(), 2);
    let sets = [("db.operation.name", "SET")];
    assert_eq!(collector.sum("db.client.operation.duration", &sets), 1.0);
    assert_eq!(collector.sum("kvredis.connections.up", &[]), 0.0);
    let logs = collector.log_texts();
    assert!(
        logs.iter().any(|text| text == "kvredis has stopped"),
        "{logs:?}"
    );
}

#[tokio::test]
async fn an_unresponsive_collector_does_not_delay_the_shutdown() {
    // It accepts connections and never replies.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let mut env = TestEnv::builder()
        .data(move |data| {
            data.otel_config.enable_observability = true;
            data.otel_config.observability_endpoint = Some(url);
        })
        .start()
        .await;
    env.client.set("", "k", "v").await.unwrap();
    assert!(env.host.shutdown().await.is_some());
    let answered = Instant::now();
    assert!(env.provider.wait().await.success());
    // An export has a timeout of 10 s.
    assert!(answered.elapsed() < Duration::from_secs(8));
}

#[tokio::test]
async fn nothing_is_exported_unless_the_host_requests_it() {
    let collector = collector::start();
    for wanted in [None, Some(false)] {
        let endpoint = collector.url.clone();
        let mut env = TestEnv::builder()
            .data(move |data| {
                data.otel_config = OtelConfig {
                    enable_traces: wanted,
                    enable_metrics: wanted,
                    enable_logs: wanted,
                    // The endpoint is set and the export is not enabled.
                    observability_endpoint: Some(endpoint),
                    ..OtelConfig::default()
                };
            })
            .start()
            .await;
        Trace::new().of(&env).set("", "k", "v").await.unwrap();
        assert!(env.host.shutdown().await.is_some());
        env.provider.wait().await;
    }
    assert!(collector.received_bytes().is_empty());
}

#[tokio::test]
async fn signals_can_be_enabled_separately() {
    let collector = collector::start();
    for signal in ["traces", "metrics", "logs"] {
        let mut env = observed(&collector)
            .data(move |data| {
                data.otel_config.enable_observability = false;
                data.otel_config.enable_traces = Some(signal == "traces");
                data.otel_config.enable_metrics = Some(signal == "metrics");
                data.otel_config.enable_logs = Some(signal == "logs");
            })
            .start()
            .await;
        Trace::new().of(&env).set("", "k", "v").await.unwrap();
        assert!(env.host.shutdown().await.is_some());
        env.provider.wait().await;
        let taken = std::mem::take(&mut *collector.received());
        assert_eq!(!taken.traces.is_empty(), signal == "traces", "{signal}");
        assert_eq!(!taken.metrics.is_empty(), signal == "metrics", "{signal}");
        assert_eq!(!taken.logs.is_empty(), signal == "logs", "{signal}");
    }
}
