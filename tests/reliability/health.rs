//! The health report on links, and `HEALTH=process`.

// Guarantees: G54

use std::time::Duration;

use test_support::client::other_error;
use test_support::host::Link;
use test_support::redis::Redis;
use test_support::test_env::{COMPONENT, TestEnv};
use test_support::wait::eventually;
use tokio::time::{Instant, sleep, sleep_until};

use crate::latency::{ms, s};
use crate::scenario::{Row, pick, record};

/// The time for which an outage is tolerated.
const TOLERATED_OUTAGE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn health_names_links_with_a_prolonged_outage() {
    let mut env = TestEnv::start().await;
    let mut flickering = Redis::stopped();
    let (down, frozen) = (Redis::stopped(), Redis::start().await);
    let url = frozen.url();
    let on_frozen = env.link("frozen", "default", &[("URL", &url)]).await;
    on_frozen.set("", "k", b"v").await.unwrap();

    let started = Instant::now();
    frozen.pause();
    // A call detects the failure at once, the probe of an idle connection within seconds.
    other_error(on_frozen.get("", "k").await);
    env.link("down", "orders", &[("URL", &down.url())]).await;
    let exempt = [("URL", &*down.url()), ("HEALTH", "process")];
    env.link("exempt", "default", &exempt).await;
    env.link("flickering", "default", &[("URL", &flickering.url())])
        .await;
    env.link("wrong", "default", &[("BUCKET_LAYOUT", "oops")])
        .await;
    let refused = Link::new("refused", "default")
        .config(&[("URL", &env.redis.url())])
        .secrets(&[("USERNAME", "nobody"), ("PASSWORD", "hunter2")]);
    env.add_link(&refused).await;

    // Down for half of the time, up, and down again: never 10 s in a row.
    sleep_until(started + TOLERATED_OUTAGE / 2).await;
    flickering.restart().await;
    let client = env.client.component("flickering", "default");
    client.set("", "k", b"v").await.unwrap();
    flickering.stop();

    let mut results = 0;
    let mut longest = Duration::ZERO;
    let (unhealthy_after, message) = loop {
        let request_started = Instant::now();
        let health = env.host.health().await.unwrap();
        results += 1;
        longest = longest.max(request_started.elapsed());
        let since = started.elapsed();
        let message = health.message.unwrap_or_default();
        assert_eq!(health.healthy, message.is_empty(), "{message}");
        if ["down", "frozen", "refused"]
            .iter()
            .all(|name| message.contains(&format!("{name:?}")))
        {
            break (since, message);
        }
        assert!(
            health.healthy || since >= TOLERATED_OUTAGE,
            "unhealthy after {since:?}"
        );
        assert!(
            since < TOLERATED_OUTAGE + Duration::from_secs(pick(4, 3)),
            "{message:?} after {since:?}"
        );
        sleep(Duration::from_millis(20)).await;
    };
    for part in [
        "\"orders\"",
        &format!("cannot reach {}: connection refused", down.url()),
        &format!("cannot reach {}", frozen.url()),
        &format!("{} refuses the connection: WRONGPASS", env.redis.url()),
    ] {
        assert!(message.contains(part), "{part:?} in {message}");
    }
    for part in [COMPONENT, "flickering", "exempt", "wrong", "hunter2", "\n"] {
        assert!(!message.contains(part), "{part:?} in {message}");
    }
    env.provider
        .wait_for_log(&["ERROR", "unhealthy", "orders"])
        .await;

    // Links that have recovered or were deleted are not reported.
    frozen.resume();
    flickering.restart().await;
    env.unlink("refused", "default").await;
    env.unlink("down", "orders").await;
    healthy(&env).await;
    let lines = env
        .provider
        .stop_and_count_log(&["ERROR", "unhealthy"])
        .await;
    assert_eq!(
        lines, 1,
        "the outage is logged once a minute, not at every health check"
    );
    record(&Row {
        fault: "links with an unavailable Redis: refused, frozen, WRONGPASS",
        load: "health check every 20 ms",
        promised: "unhealthy after 10 s, with link and reason; response within 100 ms",
        counted: format!(
            "all 3 reported after {}, 0 other links; {results} responses, maximum {}",
            s(unhealthy_after),
            ms(longest)
        ),
    });
    let promptly = Duration::from_millis(pick(1_000, 100));
    assert!(longest <= promptly, "health took {longest:?}");
}

#[tokio::test]
async fn health_process_ignores_links() {
    let start_env = async |config: &'static [(&str, &str)]| {
        let down = Redis::stopped();
        TestEnv::builder()
            .redis(down)
            .provider_config(config)
            .start()
            .await
    };
    let (links, process) = tokio::join!(start_env(&[]), start_env(&[("HEALTH", "process")]));
    // The setting of a link overrides that of the provider.
    let strict = process.link("strict", "default", &[("HEALTH", "links")]);
    strict.await;
    eventually("the provider that reports links is unhealthy", async || {
        !links.host.health().await.unwrap().healthy
    })
    .await;
    eventually(
        "the other provider is unhealthy because of one link",
        async || {
            let health = process.host.health().await.unwrap();
            let message = health.message.unwrap_or_default();
            assert!(!message.contains(COMPONENT), "{message}");
            message.contains("strict")
        },
    )
    .await;
    process.unlink("strict", "default").await;
    healthy(&process).await;

    // Links apply updated configuration of the provider.
    links.host.update_config(&[("HEALTH", "process")]).await;
    healthy(&links).await;
}

async fn healthy(env: &TestEnv) {
    eventually("the provider is healthy", async || {
        let health = env.host.health().await.unwrap();
        assert_eq!(health.healthy, health.message.is_none());
        health.healthy
    })
    .await;
}
