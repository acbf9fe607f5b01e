//! Failures: both spans are marked with the type of the error, the metrics count by it, and none
//! contains the text of the error.

// Guarantees: G56

use test_support::collector;
use test_support::host::Link;
use test_support::redis::Redis;
use test_support::wait::eventually_eq;

use crate::observed::{Trace, observed};

#[tokio::test]
async fn a_redis_error_code_is_on_both_spans() {
    let collector = collector::start();
    let env = observed(&collector).start().await;
    let () = env.redis.command(&["RPUSH", "list", "v"]).await;
    let trace = Trace::new();
    trace.of(&env).get("", "list").await.unwrap_err();
    let spans = trace.spans(&collector, 2).await;
    for span in &spans {
        assert!(span.failed, "{span:#?}");
        assert_eq!(span.attribute("error.type"), "WRONGTYPE");
    }
    assert_eq!(spans[0].attribute("db.response.status_code"), "");
    assert_eq!(spans[1].attribute("db.response.status_code"), "WRONGTYPE");
    eventually_eq(
        "both metrics have counted the error",
        (1.0, 1.0),
        async || {
            let failed = ("error.type", "WRONGTYPE");
            let method = ("rpc.method", "wrpc:keyvalue/store/get");
            (
                collector.sum(
                    "db.client.operation.duration",
                    &[failed, ("db.response.status_code", "WRONGTYPE")],
                ),
                collector.sum("rpc.server.call.duration", &[failed, method]),
            )
        },
    )
    .await;
}

#[tokio::test]
async fn commands_denied_by_the_acl_have_error_type_noperm() {
    let collector = collector::start();
    let env = observed(&collector).start().await;
    let rules = ["ACL", "SETUSER", "default", "-del"];
    let () = env.redis.command(&rules).await;
    let trace = Trace::new();
    trace.of(&env).delete("", "k").await.unwrap_err();
    let spans = trace.spans(&collector, 2).await;
    assert_eq!(spans[0].attribute("error.type"), "access-denied");
    assert_eq!(spans[1].attribute("error.type"), "NOPERM");
    assert_eq!(spans[1].attribute("db.response.status_code"), "NOPERM");
}

#[tokio::test]
async fn connection_errors_and_timeouts_have_different_error_types() {
    let collector = collector::start();
    let down = Redis::stopped();
    let env = observed(&collector)
        .config(&[
            ("BACKEND_RESPONSE_TIMEOUT_MS", "100"),
            ("BACKEND_RECONNECT_NUM_RETRIES", "0"),
        ])
        .rpc_timeout_ms(Some(1_000))
        .start()
        .await;
    env.link("c", "down", &[("URL", &down.url())]).await;
    let [away, hung] = [Trace::new(), Trace::new()];
    let client = away.client(&env.client, "c", "down");
    client.get("", "k").await.unwrap_err();
    env.redis.pause();
    hung.of(&env).get("", "k").await.unwrap_err();
    env.redis.resume();
    for (trace, kind) in [(away, "unreachable"), (hung, "timeout")] {
        for span in trace.spans(&collector, 2).await {
            assert!(span.failed, "{span:#?}");
            assert_eq!(span.attribute("error.type"), kind);
            assert_eq!(span.attribute("db.response.status_code"), "");
        }
    }
}

#[tokio::test]
async fn calls_rejected_without_a_command_have_one_failed_span() {
    let collector = collector::start();
    let env = observed(&collector).start().await;
    let read_only = Link::new("c", "reads").config(&[
        ("URL", &env.redis.url()),
        ("READ_ONLY", "true"),
        ("BUCKET_LAYOUT", "prefix-all"),
    ]);
    env.add_link(&read_only).await;
    let [nobody, denied, no_bucket, junk] = std::array::from_fn(|_| Trace::new());
    let client = nobody.client(&env.client, "nobody", "none");
    client.get("", "k").await.unwrap_err();
    let client = denied.client(&env.client, "c", "reads");
    client.set("", "k", "v").await.unwrap_err();
    let client = no_bucket.client(&env.client, "c", "reads");
    client.get("a:b", "k").await.unwrap_err();
    let client = junk.of(&env);
    let result: Result<(), _> = client.invoke("store", "get", vec![0, 1, b'k', b'k']).await;
    result.unwrap_err();
    for (trace, kind) in [
        (nobody, "no_link"),
        (denied, "access-denied"),
        (no_bucket, "no-such-store"),
        (junk, "bad_parameters"),
    ] {
        let spans = trace.spans(&collector, 1).await;
        assert!(spans[0].failed, "{spans:#?}");
        assert_eq!(spans[0].attribute("error.type"), kind);
    }
}
