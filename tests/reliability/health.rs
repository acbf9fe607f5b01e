//! Contract §2 and §3: what the provider's health says of its links, and `HEALTH=process`.

use std::time::Duration;

use test_support::client::other_error;
use test_support::host::Link;
use test_support::redis::Redis;
use test_support::test_env::{COMPONENT, TestEnv};
use test_support::wait::eventually;
use tokio::time::{Instant, sleep, sleep_until};

use crate::scale::{Row, pick, record};
use crate::stopwatch::{ms, s};

/// How long an outage is tolerated.
const TOLERATED: Duration = Duration::from_secs(10);

#[tokio::test]
async fn health_names_the_links_that_are_long_without_their_redis() {
    let mut env = TestEnv::start().await;
    let mut flickering = Redis::stopped();
    let (down, frozen) = (Redis::stopped(), Redis::start().await);
    let url = frozen.url();
    let on_frozen = env.link("frozen", "default", &[("URL", &url)]).await;
    on_frozen.set("", "k", b"v").await.unwrap();

    let begun = Instant::now();
    frozen.pause();
    // A call finds it out at once, the question to an idle connection within seconds.
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

    // Half of the time down, and then down again: never 10 s at a stretch.
    sleep_until(begun + TOLERATED / 2).await;
    flickering.restart().await;
    let client = env.client.component("flickering", "default");
    client.set("", "k", b"v").await.unwrap();
    flickering.stop();

    let mut answers = 0;
    let mut longest = Duration::ZERO;
    let (unhealthy_after, message) = loop {
        let asked = Instant::now();
        let health = env.host.health().await.unwrap();
        answers += 1;
        longest = longest.max(asked.elapsed());
        let since = begun.elapsed();
        let message = health.message.unwrap_or_default();
        assert_eq!(health.healthy, message.is_empty(), "{message}");
        if ["down", "frozen", "refused"]
            .iter()
            .all(|name| message.contains(&format!("{name:?}")))
        {
            break (since, message);
        }
        assert!(
            health.healthy || since >= TOLERATED,
            "unhealthy after {since:?}"
        );
        assert!(
            since < TOLERATED + Duration::from_secs(pick(4, 3)),
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

    // What is over, or no longer there, is no longer said.
    frozen.resume();
    flickering.restart().await;
    env.unlink("refused", "default").await;
    env.unlink("down", "orders").await;
    healthy(&env).await;
    let lines = env
        .provider
        .stop_and_count_log(&["ERROR", "unhealthy"])
        .await;
    assert_eq!(lines, 1, "it is said once a minute, not at every question");
    record(&Row {
        fault: "links with an unavailable Redis: refused, frozen, WRONGPASS",
        load: "health check every 20 ms",
        promised: "unhealthy after 10 s, with link and reason; response within 100 ms",
        counted: format!(
            "all 3 reported after {}, 0 other links; {answers} responses, maximum {}",
            s(unhealthy_after),
            ms(longest)
        ),
    });
    let promptly = Duration::from_millis(pick(1_000, 100));
    assert!(longest <= promptly, "health took {longest:?}");
}

#[tokio::test]
async fn health_of_the_process_is_that_it_runs() {
    let world = async |config: &'static [(&str, &str)]| {
        let down = Redis::stopped();
        TestEnv::builder()
            .redis(down)
            .provider_config(config)
            .start()
            .await
    };
    let (links, process) = tokio::join!(world(&[]), world(&[("HEALTH", "process")]));
    // A link may have it otherwise than the provider.
    let strict = process.link("strict", "default", &[("HEALTH", "links")]);
    strict.await;
    eventually(
        "the provider that speaks of links is unhealthy",
        async || !links.host.health().await.unwrap().healthy,
    )
    .await;
    eventually("so is the other one, for one link", async || {
        let health = process.host.health().await.unwrap();
        let message = health.message.unwrap_or_default();
        assert!(!message.contains(COMPONENT), "{message}");
        message.contains("strict")
    })
    .await;
    process.unlink("strict", "default").await;
    healthy(&process).await;

    // Links follow new configuration of the provider.
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
