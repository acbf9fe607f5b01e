//! Traces: the spans of a call and of its commands continue the component's trace.

// Guarantees: G56

use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use test_support::collector;
use test_support::collector::signals::Attributes;
use test_support::test_env::COMPONENT;
use test_support::wait::{eventually, eventually_some};

use crate::observed::{Trace, observed};

fn attributes(pairs: &[(&str, &str)]) -> Attributes {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

#[tokio::test]
async fn call_and_command_spans_continue_the_components_trace() {
    let collector = collector::start();
    let env = observed(&collector).start().await;
    let port = env.redis.port().to_string();
    let trace = Trace::new();
    trace.of(&env).set("", "k", "v").await.unwrap();
    let spans = trace.spans(&collector, 2).await;
    let [call, command] = spans.as_slice() else {
        panic!("{spans:#?}")
    };

    assert_eq!(call.parent, trace.span);
    assert_eq!(call.kind, SpanKind::Server);
    assert_eq!(call.name, "wrpc:keyvalue/store/set");
    let expected = [
        ("rpc.method", "wrpc:keyvalue/store/set"),
        ("rpc.system.name", "wrpc"),
    ];
    assert_eq!(call.attributes, attributes(&expected));

    assert_eq!(command.parent, call.id);
    assert_eq!(command.kind, SpanKind::Client);
    assert_eq!(command.name, format!("SET 127.0.0.1:{port}"));
    let expected = [
        ("db.namespace", "0"),
        ("db.operation.name", "SET"),
        ("db.system.name", "redis"),
        ("server.address", "127.0.0.1"),
        ("server.port", &port),
    ];
    assert_eq!(command.attributes, attributes(&expected));
    for span in &spans {
        assert!(!span.failed && span.events == 0, "{span:#?}");
    }
}

#[tokio::test]
async fn every_function_has_a_span_with_spans_of_its_commands() {
    let collector = collector::start();
    let env = observed(&collector).start().await;
    env.client.set("", "n", "1").await.unwrap();
    // The script is in Redis's cache from here on.
    env.client.increment("", "n", 1).await.unwrap();
    let mut expected = Vec::new();
    let mut call = |method: &'static str, command: &'static str| {
        let trace = Trace::new();
        let client = trace.of(&env);
        expected.push((trace, method, command));
        client
    };
    let client = call("store/get", "GET");
    client.get("", "n").await.unwrap();
    let client = call("store/exists", "EXISTS");
    client.exists("", "n").await.unwrap();
    let client = call("store/list-keys", "SCAN");
    client.list_keys("", None).await.unwrap();
    let client = call("atomics/increment", "EVALSHA");
    client.increment("", "n", 1).await.unwrap();
    let client = call("batch/set-many", "MSET");
    client
        .set_many("", &[("a", "1"), ("b", "2")])
        .await
        .unwrap();
    let client = call("batch/get-many", "MGET");
    client.get_many("", &["a", "b"]).await.unwrap();
    let client = call("batch/delete-many", "DEL");
    client.delete_many("", &["a", "b"]).await.unwrap();
    let client = call("store/delete", "DEL");
    client.delete("", "n").await.unwrap();
    for (trace, method, command) in expected {
        let spans = trace.spans(&collector, 2).await;
        assert_eq!(spans[0].name, format!("wrpc:keyvalue/{method}"));
        assert_eq!(spans[1].attribute("db.operation.name"), command);
        // One command with several keys is not a batch.
        assert_eq!(spans[1].attribute("db.operation.batch.size"), "");
    }
}

#[tokio::test]
async fn a_transaction_span_has_the_batch_size() {
    let collector = collector::start();
    let config = [("TTL_MS", "60000")];
    let env = observed(&collector).config(&config).start().await;
    let trace = Trace::new();
    let pairs = [("a", "1"), ("b", "2"), ("c", "3")];
    trace.of(&env).set_many("", &pairs).await.unwrap();
    let spans = trace.spans(&collector, 2).await;
    assert_eq!(spans[1].attribute("db.operation.name"), "MULTI SET");
    assert_eq!(spans[1].attribute("db.operation.batch.size"), "3");
}

#[tokio::test]
async fn command_spans_name_the_database_and_unix_socket() {
    let collector = collector::start();
    let env = observed(&collector).unlinked().start().await;
    let socket = env.redis.socket();
    let url = format!("redis+unix://{}?db=3", socket.display());
    env.link("c", "socket", &[("URL", &url)]).await;
    let trace = Trace::new();
    let client = trace.client(&env.client, "c", "socket");
    client.get("", "k").await.unwrap();
    let spans = trace.spans(&collector, 2).await;
    assert_eq!(spans[1].name, "GET");
    assert_eq!(spans[1].attribute("db.namespace"), "3");
    assert_eq!(
        spans[1].attribute("server.address"),
        socket.display().to_string()
    );
    assert_eq!(spans[1].attribute("server.port"), "");
}

#[tokio::test]
async fn a_call_without_a_trace_context_starts_a_trace() {
    let collector = collector::start();
    let env = observed(&collector).start().await;
    env.client.get("", "k").await.unwrap();
    let command = eventually_some("the command is exported", async || {
        let mut spans = collector.spans().into_iter();
        spans.find(|span| span.attribute("db.operation.name") == "GET")
    })
    .await;
    let spans = Trace {
        id: command.trace,
        span: String::new(),
    }
    .spans(&collector, 2)
    .await;
    assert_eq!(spans[0].parent, "");
    assert_eq!(spans[1].parent, spans[0].id);
}

#[tokio::test]
async fn unsampled_traces_are_not_exported() {
    let collector = collector::start();
    let env = observed(&collector).start().await;
    let [not, sampled] = [Trace::new(), Trace::new()];
    let header = format!("00-{}-{}-00", not.id, not.span);
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("source-id", COMPONENT);
    headers.insert("traceparent", header);
    env.client.headers(headers).get("", "k").await.unwrap();
    sampled.of(&env).get("", "k").await.unwrap();
    sampled.spans(&collector, 2).await;
    assert!(collector.trace(&not.id).is_empty());
}

#[tokio::test]
async fn calls_to_watching_components_carry_a_trace_context() {
    let collector = collector::start();
    let env = observed(&collector).start().await;
    let arguments = ["CONFIG", "SET", "notify-keyspace-events", "KEA"];
    let () = env.redis.command(&arguments).await;
    let component = env.component("watcher").await;
    env.watch("watcher", "default", &[("WATCH", "SET@k")]).await;
    env.client.set("", "k", "v").await.unwrap();
    let received = component.wait_for_call("k").await;
    let header = received
        .headers
        .get("traceparent")
        .expect("a trace context");
    let fields: Vec<&str> = header.as_str().split('-').collect();
    let trace = Trace {
        id: fields[1].to_owned(),
        span: fields[2].to_owned(),
    };
    let spans = trace.spans(&collector, 3).await;
    let [delivery, call, value] = spans.as_slice() else {
        panic!("{spans:#?}")
    };
    assert_eq!(delivery.name, "watch delivery");
    assert_eq!(delivery.kind, SpanKind::Internal);
    assert_eq!(value.attribute("db.operation.name"), "GET");
    assert_eq!(value.parent, delivery.id);
    assert_eq!(call.parent, delivery.id);
    assert_eq!(call.id, trace.span);
    assert_eq!(call.kind, SpanKind::Client);
    assert_eq!(call.name, "wrpc:keyvalue/watcher/on-set");
}

#[tokio::test]
async fn traces_are_independent_of_the_log_level() {
    use wasmcloud_provider_sdk::core::logging::Level;

    let collector = collector::start();
    let env = observed(&collector)
        .data(|data| data.log_level = Some(Level::Error))
        .start()
        .await;
    let trace = Trace::new();
    trace.of(&env).get("", "k").await.unwrap();
    trace.spans(&collector, 2).await;
    eventually("metrics are exported, too", async || {
        !collector.points().is_empty()
    })
    .await;
}
