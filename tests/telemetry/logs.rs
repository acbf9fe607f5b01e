//! The log: lines or JSON, at the host's level, on standard error and, if wanted, to the collector.

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

use crate::observed::{SOON, Trace, observed};

#[tokio::test]
async fn structured_logs_are_one_json_object_a_line() {
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
async fn lines_have_no_colours_where_nobody_watches_and_the_level_holds() {
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
async fn exported_logs_have_the_fields_of_the_lines() {
    let collector = collector::start();
    let mut env = observed(&collector).start().await;
    let wrong = Link::new("c", "wrong").config(&[("SCAN_COUNT", "many")]);
    env.add_link(&wrong).await;
    assert!(env.host.shutdown().await.is_some());
    env.provider.wait().await;
    let texts = collector.log_texts();
    assert!(texts.iter().any(|text| text == "the link cannot work"));
    // The fields are attributes.
    for part in ["component", "link", "reason", "SCAN_COUNT"] {
        assert!(collector.contains(part), "{part}");
    }
}

#[tokio::test]
async fn a_line_about_a_call_belongs_to_its_trace() {
    let collector = collector::start();
    let mut env = observed(&collector).start().await;
    let trace = Trace::new();
    trace.of(&env).set("named", "k", "v").await.unwrap();
    assert!(env.host.shutdown().await.is_some());
    env.provider.wait().await;
    let logs = collector.logs();
    let about_bucket = logs.iter().find(|(text, _)| text.contains("BUCKET_LAYOUT"));
    assert_eq!(about_bucket.expect("it is exported").1, trace.id);
}

#[tokio::test]
async fn a_collector_that_fails_is_told_of_and_not_again_and_again() {
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
        .provider_config(&SOON)
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
