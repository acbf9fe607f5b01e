//! The log: as text or JSON, at the host's level, on standard error and optionally exported.

// Guarantees: G55

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::Value;
use test_support::collector;
use test_support::host::Link;
use test_support::redis::Redis;
use test_support::test_env::TestEnv;
use test_support::wait::eventually;
use wasmcloud_provider_sdk::core::logging::Level;

use crate::observed::{SHORT_INTERVALS, Trace, observed};

#[tokio::test]
async fn structured_logs_are_one_json_object_per_line() {
    let mut env = TestEnv::builder()
        .data(|data| data.structured_logging = true)
        .start()
        .await;
    let wrong = Link::new("c", "wrong").config(&[("SCAN_COUNT", "many")]);
    env.add_link(&wrong).await;
    assert!(env.host.shutdown().await.is_some());
    env.provider.wait().await;
    let log = env.provider.log();
    let lines: Vec<Value> = log
        .iter()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}")))
        .collect();
    let error = lines.iter().find(|line| line["level"] == "ERROR").unwrap();
    assert_eq!(error["fields"]["component"], "c");
    assert_eq!(error["fields"]["link"], "wrong");
    assert_eq!(error["fields"]["message"], "the link cannot work");
    let reason = error["fields"]["reason"].as_str().unwrap();
    assert!(reason.contains("SCAN_COUNT"), "{reason}");
    let stopped = |line: &Value| line["fields"]["message"] == "kvredis has stopped";
    assert!(lines.iter().any(stopped));
}

#[tokio::test]
async fn text_logs_have_no_colors_in_a_pipe_and_respect_the_level() {
    let mut env = TestEnv::builder()
        .data(|data| data.log_level = Some(Level::Error))
        .start()
        .await;
    let down = Redis::stopped();
    env.link("c", "down", &[("URL", &down.url())]).await;
    let wrong = Link::new("c", "wrong").config(&[("SCAN_COUNT", "many")]);
    env.add_link(&wrong).await;
    assert!(env.host.shutdown().await.is_some());
    env.provider.wait().await;
    let log = env.provider.log();
    assert_eq!(log.len(), 1, "{log:#?}");
    assert!(log[0].contains("ERROR") && !log[0].contains('\u{1b}'));
}

#[tokio::test]
async fn exported_logs_have_the_fields_of_the_log_lines() {
    let collector = collector::start();
    let mut env = observed(&collector).start().await;
    let wrong = Link::new("c", "wrong").config(&[("SCAN_COUNT", "many")]);
    env.add_link(&wrong).await;
    assert!(env.host.shutdown().await.is_some());
    env.provider.wait().await;
    let texts = collector.log_texts();
    assert!(texts.iter().any(|text| text == "the link cannot work"));
    // Fields are exported as attributes.
    for part in ["component", "link", "reason", "SCAN_COUNT"] {
        assert!(collector.contains(part), "{part}");
    }
}

#[tokio::test]
async fn log_lines_of_a_call_carry_its_trace_id() {
    let collector = collector::start();
    let mut env = observed(&collector).start().await;
    let trace = Trace::new();
    trace.of(&env).set("named", "k", "v").await.unwrap();
    assert!(env.host.shutdown().await.is_some());
    env.provider.wait().await;
    let logs = collector.logs();
    let about_bucket = logs.iter().find(|(text, _)| text.contains("BUCKET_LAYOUT"));
    assert_eq!(about_bucket.expect("the line is exported").1, trace.id);
}

#[tokio::test]
async fn export_failures_are_logged_at_a_limited_rate() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let attempts = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&attempts);
    thread::spawn(move || {
        // Each connection is closed at once.
        while listener.accept().is_ok() {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    });
    let mut env = TestEnv::builder()
        .provider_config(&SHORT_INTERVALS)
        .data(move |data| {
            data.otel_config.enable_metrics = Some(true);
            data.otel_config.observability_endpoint = Some(url);
        })
        .start()
        .await;
    eventually("many exports fail", async || {
        attempts.load(Ordering::Relaxed) >= 10
    })
    .await;
    env.provider
        .wait_for_log(&["Failed to export metrics"])
        .await;
    assert_eq!(
        env.provider
            .stop_and_count_log(&["Failed to export metrics"])
            .await,
        1
    );
}
