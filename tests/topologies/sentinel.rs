//! Sentinel: finding the primary, following failovers, and never writing to a demoted primary.

// Guarantees: G31

use std::collections::HashMap;
use std::time::Duration;

use test_support::client::{Client, other_error};
use test_support::host::Link;
use test_support::redis_node::RedisNode;
use test_support::sentinel::{SERVICE, SentinelDeployment};
use test_support::test_env::TestEnv;
use test_support::wait::eventually;
use tokio::time::Instant;

use crate::all_functions::exercise_all_functions;
use crate::load::Load;

async fn link(env: &TestEnv, config: &[(&str, &str)]) -> Client {
    env.add_link(&Link::new("s", "default").config(config))
        .await
}

async fn start_env() -> TestEnv {
    TestEnv::builder().unlinked().start().await
}

#[tokio::test]
async fn the_primary_is_found_and_failovers_are_followed() {
    let mut redis = SentinelDeployment::start().await;
    let env = start_env().await;
    let client = link(&env, &[("URL", &redis.url(""))]).await;
    exercise_all_functions(&client).await;
    assert_eq!(redis.primary().await, 0);

    // Even without one of the sentinels, the first one in the URL.
    redis.sentinels[0].pause();
    let load = Load::start(&client, 16);
    eventually("calls are made", async || load.calls() > 300).await;
    redis.servers[0].kill();
    let killed = Instant::now();
    eventually("the sentinels report a new primary", async || {
        redis.primary().await != 0
    })
    .await;
    let promoted = Instant::now();
    eventually("calls succeed again", async || {
        load.latest_success().is_some_and(|at| at > promoted)
    })
    .await;
    let back = promoted.elapsed();
    let outcome = load.finish().await;
    println!(
        "failover by sentinels under load: {} calls, {} errors, promoted after {} ms, back {} ms \
         later, no success for {} ms",
        outcome.calls,
        outcome.errors.len(),
        (promoted - killed).as_millis(),
        back.as_millis(),
        outcome.longest_gap().as_millis()
    );
    assert!(back < Duration::from_secs(6), "it took {back:?}");
    let writes: i64 = {
        let now = redis.primary().await;
        client.set("", "after", b"v").await.unwrap();
        redis.servers[now]
            .command(&["EXISTS", "after"])
            .await
            .unwrap()
    };
    assert_eq!(writes, 1);
}

#[tokio::test]
async fn writes_move_to_the_new_primary_after_a_planned_failover() {
    let redis = SentinelDeployment::start().await;
    let env = start_env().await;
    let client = link(&env, &[("URL", &redis.url(""))]).await;
    client.set("", "k", b"1").await.unwrap();
    let words = ["SENTINEL", "FAILOVER", test_support::sentinel::SERVICE];
    eventually("a failover begins", async || {
        redis.sentinels[0].command::<String>(&words).await.is_ok()
    })
    .await;
    let mut round = 0_u32;
    let mut errors = 0;
    while redis.primary().await == 0 {
        round += 1;
        errors += u32::from(client.set("", "k", round.to_string()).await.is_err());
    }
    eventually("writes reach the new primary", async || {
        round += 1;
        let value = round.to_string();
        if client.set("", "k", &value).await.is_err() {
            return false;
        }
        let new = redis.primary().await;
        let stored: Option<String> = redis.servers[new].command(&["GET", "k"]).await.unwrap();
        stored == Some(value)
    })
    .await;
    println!("planned failover: {round} sequential writes, {errors} errors");
}

#[tokio::test]
async fn sentinels_and_servers_have_their_own_credentials() {
    let sentinel_lines = "requirepass watcher\nsentinel sentinel-pass watcher\n\
                          sentinel auth-pass main secret";
    let redis = SentinelDeployment::with(
        &["--requirepass", "secret", "--masterauth", "secret"],
        sentinel_lines,
        Some("watcher"),
    )
    .await;
    let env = start_env().await;
    let url = |password: &str, sentinels: &str| {
        let url = redis.url(&format!(":{password}@"));
        format!("{url}&sentinelPassword={sentinels}")
    };
    let client = link(&env, &[("URL", &url("secret", "watcher"))]).await;
    client.set("", "k", b"v").await.unwrap();
    env.unlink("s", "default").await;
    let client = link(&env, &[("URL", &url("secret", "wrong"))]).await;
    let error = other_error(client.get("", "k").await);
    assert!(
        error.contains("sentinel at 127.0.0.1") && error.contains("WRONGPASS"),
        "{error}"
    );
    assert!(
        !error.contains("wrong\"") && !error.contains("secret"),
        "{error}"
    );
    env.unlink("s", "default").await;
    let client = link(&env, &[("URL", &url("wrong", "watcher"))]).await;
    let error = other_error(client.get("", "k").await);
    assert!(error.contains("WRONGPASS"), "{error}");
    env.unlink("s", "default").await;
    let unknown = url("secret", "watcher").replace("=main", "=unknown");
    let client = link(&env, &[("URL", &unknown)]).await;
    let error = other_error(client.get("", "k").await);
    assert!(
        error.contains("do not monitor a service \"unknown\""),
        "{error}"
    );
}

// Guarantees: G32
#[tokio::test]
async fn reads_use_replicas_with_read_from_replica() {
    let redis = SentinelDeployment::start().await;
    let env = start_env().await;
    let client = link(&env, &[("URL", &redis.url("")), ("READ_FROM", "replica")]).await;
    client.set("", "k", b"v").await.unwrap();
    eventually("a replica is read from", async || {
        let value = client.get("", "k").await.unwrap();
        assert!(value.is_none() || value.as_deref() == Some(&b"v"[..]));
        let mut reads = 0;
        for replica in &redis.servers[1..] {
            let stats: String = replica.command(&["INFO", "commandstats"]).await.unwrap();
            reads += u32::from(stats.contains("cmdstat_get:"));
        }
        reads > 0
    })
    .await;
    assert_writes_reach_the_primary(&client).await;
}

/// The number of `GET`s that a server has executed.
async fn gets(server: &RedisNode) -> u64 {
    let stats: String = server.command(&["INFO", "commandstats"]).await.unwrap();
    let count = stats.lines().find_map(|line| {
        let rest = line.strip_prefix("cmdstat_get:calls=")?;
        rest.split(',').next()?.parse::<u64>().ok()
    });
    count.unwrap_or(0)
}

// Guarantees: G32
#[tokio::test]
async fn a_replica_that_comes_later_is_read_within_seconds() {
    let mut redis = SentinelDeployment::start().await;
    for replica in [1, 2] {
        redis.servers[replica].kill();
    }
    let wait_for_replicas = async |redis: &SentinelDeployment, healthy: usize| {
        let what = format!("the sentinels report {healthy} healthy replicas");
        eventually(&what, async || {
            for sentinel in &redis.sentinels {
                let words = ["SENTINEL", "REPLICAS", SERVICE];
                let known: Vec<HashMap<String, String>> = sentinel.command(&words).await.unwrap();
                let is_healthy = |replica: &&HashMap<String, String>| {
                    replica["flags"] == "slave" && replica["master-link-status"] == "ok"
                };
                if known.iter().filter(is_healthy).count() != healthy {
                    return false;
                }
            }
            true
        })
        .await;
    };
    wait_for_replicas(&redis, 0).await;
    let mut env = start_env().await;
    let url = redis.url("");
    let client = link(&env, &[("URL", &url), ("READ_FROM", "replica")]).await;
    client.set("", "k", b"v").await.unwrap();
    let before = gets(&redis.servers[0]).await;
    assert_eq!(client.get("", "k").await, Ok(Some(b"v".to_vec())));
    assert_eq!(gets(&redis.servers[0]).await, before + 1);

    redis.servers[1].restart().await;
    wait_for_replicas(&redis, 1).await;
    let start = Instant::now();
    eventually("the replica is read", async || {
        assert_eq!(client.get("", "k").await, Ok(Some(b"v".to_vec())));
        gets(&redis.servers[1]).await > 0
    })
    .await;
    let elapsed = start.elapsed();
    assert!(elapsed < Duration::from_secs(10), "{elapsed:?}");
    // Changing servers is not a lost connection.
    assert_eq!(env.provider.stop_and_count_log(&["WARN"]).await, 0);
}

// Guarantees: G32
#[tokio::test]
async fn failing_replicas_fail_no_read() {
    let redis = SentinelDeployment::with(&["--replica-serve-stale-data", "no"], "", None).await;
    let env = start_env().await;
    let client = link(&env, &[("URL", &redis.url("")), ("READ_FROM", "replica")]).await;
    client.set("", "k", b"v").await.unwrap();
    let reads = async || {
        let mut refused = 0;
        for replica in &redis.servers[1..] {
            let stats: String = replica.command(&["INFO", "commandstats"]).await.unwrap();
            refused += u32::from(stats.contains("cmdstat_get:"));
        }
        refused
    };
    eventually("a replica is read from", async || {
        client.get("", "k").await.unwrap();
        reads().await > 0
    })
    .await;
    for replica in &redis.servers[1..] {
        replica.lose_primary(&redis.servers[0]).await;
    }
    let value = client.get("", "k").await.unwrap();
    assert_eq!(value.as_deref(), Some(&b"v"[..]));
    let values = client.get_many("", &["k"]).await.unwrap();
    assert_eq!(values.len(), 1);
}

/// Writes go to the primary even when reads do not.
async fn assert_writes_reach_the_primary(client: &Client) {
    assert_eq!(client.increment("", "n", 3).await.unwrap(), 3);
    client
        .set_many("", &[("a", "1"), ("b", "2")])
        .await
        .unwrap();
    client.delete_many("", &["a", "b"]).await.unwrap();
    assert_eq!(client.keys("").await.unwrap(), ["k", "n"]);
}
