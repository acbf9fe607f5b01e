//! Clusters: every function, keys in moved slots, failed primaries.

// Guarantees: G30

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use test_support::client::{Client, Error, other_error};
use test_support::cluster::RedisCluster;
use test_support::host::Link;
use test_support::ports;
use test_support::redis_node::RedisNode;
use test_support::test_env::TestEnv;
use test_support::wait::{eventually, eventually_some};
use tokio::time::Instant;

use crate::all_functions::exercise_all_functions;
use crate::load::Load;

async fn link(env: &TestEnv, config: &[(&str, &str)]) -> Client {
    env.add_link(&Link::new("c", "default").config(config))
        .await
}

async fn start_env() -> TestEnv {
    TestEnv::builder().unlinked().start().await
}

#[tokio::test]
async fn every_function_works_on_a_cluster() {
    let cluster = RedisCluster::start(0, &[]).await;
    let env = start_env().await;
    let client = link(&env, &[("URL", &cluster.url())]).await;
    exercise_all_functions(&client).await;
    env.unlink("c", "default").await;
    for node in &cluster.nodes {
        eventually("kvredis has closed its connections", async || {
            let clients: String = node.command(&["CLIENT", "LIST"]).await.unwrap();
            !clients.contains("kvredis")
        })
        .await;
    }
}

// Guarantees: G9
#[tokio::test]
async fn batches_with_a_ttl_work_on_a_cluster() {
    let cluster = RedisCluster::start(0, &[]).await;
    let env = start_env().await;
    let client = link(&env, &[("URL", &cluster.url()), ("TTL_MS", "600000")]).await;
    let keys: Vec<String> = (0..50).map(|n| format!("key-{n}")).collect();
    let pairs: Vec<(&str, &[u8])> = keys.iter().map(|key| (key.as_str(), &b"v"[..])).collect();
    client.set_many("", &pairs).await.unwrap();
    for key in &keys {
        assert_eq!(
            client.get("", key).await.unwrap().as_deref(),
            Some(&b"v"[..])
        );
    }
    let mut with_ttl = 0;
    for node in &cluster.nodes {
        for key in node.command::<Vec<String>>(&["KEYS", "*"]).await.unwrap() {
            let ttl: i64 = node.command(&["PTTL", &key]).await.unwrap();
            assert!(ttl > 0, "{key} does not expire");
            with_ttl += 1;
        }
    }
    assert_eq!(with_ttl, keys.len());
}

// Guarantees: G47
#[tokio::test]
async fn a_scattered_batch_counts_as_one_call() {
    let cluster = RedisCluster::start(0, &[]).await;
    let env = start_env().await;
    let url = cluster.url();
    let limits = [("MAX_IN_FLIGHT", "4"), ("MAX_WAITING", "0")];
    let client = link(&env, &[&[("URL", &*url)], &limits[..]].concat()).await;
    eventually("every node is connected to", async || {
        let mut connected = 0;
        for node in &cluster.nodes {
            let clients: String = node.command(&["CLIENT", "LIST"]).await.unwrap();
            connected += u32::from(clients.contains("name=kvredis"));
        }
        connected == 3 && client.get("", "k").await.is_ok()
    })
    .await;
    let batch = async |name: &str| {
        let keys: Vec<String> = (0..200).map(|n| format!("{name}-{n}")).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let pairs: Vec<(&str, &str)> = keys.iter().map(|key| (*key, *key)).collect();
        client.set_many("", &pairs).await.unwrap();
        let values = client.get_many("", &keys).await.unwrap();
        assert_eq!(values.iter().flatten().count(), keys.len());
        client.delete_many("", &keys).await.unwrap();
        let values = client.get_many("", &keys).await.unwrap();
        assert_eq!(values.iter().flatten().count(), 0);
    };
    // As many calls as may be in flight.
    tokio::join!(batch("a"), batch("b"), batch("c"), batch("d"));
}

// Guarantees: G7
#[tokio::test]
async fn a_listing_is_complete_over_all_nodes() {
    let cluster = RedisCluster::start(0, &[]).await;
    let env = start_env().await;
    let client = link(&env, &[("URL", &cluster.url()), ("SCAN_COUNT", "20")]).await;
    let keys: BTreeSet<String> = (0..500).map(|n| format!("key-{n}")).collect();
    let pairs: Vec<(&str, &[u8])> = keys.iter().map(|key| (key.as_str(), &b"v"[..])).collect();
    client.set_many("", &pairs).await.unwrap();
    client.set("other", "hidden", b"v").await.unwrap();
    let pages = client.pages("").await.unwrap();
    assert!(pages.len() > 10, "{} pages of about 20 keys", pages.len());
    let found: BTreeSet<String> = pages.into_iter().flat_map(|page| page.keys).collect();
    assert!(found.is_superset(&keys), "keys are missing");
    assert_eq!(client.keys("other").await.unwrap(), ["hidden"]);
    // Any cursor gets a reply.
    for invented in [1, u64::MAX, 16_384 << 50, 5 << 50] {
        client.list_keys("", Some(invented)).await.unwrap();
    }
}

#[tokio::test]
async fn slots_move_under_load_without_errors() {
    let mut cluster = RedisCluster::start(0, &[]).await;
    let env = start_env().await;
    // A node persists each slot that moves, and replies to no command until the disk has it.
    let slow_disk = ("BACKEND_RESPONSE_TIMEOUT_MS", "8000");
    let client = link(&env, &[("URL", &cluster.url()), slow_disk]).await;
    let load = Load::start(&client, 16);
    eventually("calls are made", async || load.calls() > 500).await;
    let new = cluster.add_empty_node().await;
    cluster.move_slots(0, new, 700).await;
    cluster.move_slots(1, 2, 700).await;
    let before = load.calls();
    eventually("calls go on", async || load.calls() > before + 500).await;
    let outcome = load.finish().await;
    println!(
        "slots moved under load: {} calls, {} errors",
        outcome.calls,
        outcome.errors.len()
    );
    assert!(outcome.errors.is_empty(), "{:?}", outcome.errors.first());
    let on_new: u64 = cluster.nodes[new].command(&["DBSIZE"]).await.unwrap();
    assert!(on_new > 0, "the new node has no keys");
}

#[tokio::test]
async fn a_failover_under_load_is_followed() {
    let mut cluster = RedisCluster::start(1, &[]).await;
    let env = start_env().await;
    let client = link(&env, &[("URL", &cluster.url())]).await;
    client.set("", "foo", b"before").await.unwrap();
    let load = Load::start(&client, 16);
    eventually("calls are made", async || load.calls() > 500).await;
    const SLOT_OF_FOO: u16 = 12_182;
    let witness = 0;
    let victim = cluster.slot_owner(SLOT_OF_FOO, witness).await.unwrap();
    assert_ne!(victim, witness, "the witness key is on the failed node");
    cluster.nodes[victim].kill();
    let new_primary = eventually_some("a replica is promoted", async || {
        let owner = cluster.slot_owner(SLOT_OF_FOO, witness).await?;
        (owner != victim).then_some(owner)
    })
    .await;
    let promoted = Instant::now();
    assert_ne!(new_primary, victim);
    eventually("the key can be written again", async || {
        client.set("", "foo", b"after").await.is_ok()
    })
    .await;
    let back = promoted.elapsed();
    let outcome = load.finish().await;
    println!(
        "primary killed under load: {} calls, {} errors, back {} ms after the promotion",
        outcome.calls,
        outcome.errors.len(),
        back.as_millis()
    );
    // The promise is two seconds; a busy machine may need more.
    assert!(back.as_secs() < 6, "it took {back:?}");
    assert_eq!(
        client.get("", "foo").await.unwrap().as_deref(),
        Some(&b"after"[..])
    );
}

// Guarantees: G32
#[tokio::test]
async fn reads_use_replicas_with_read_from_replica() {
    let cluster = RedisCluster::start(1, &[]).await;
    let env = start_env().await;
    let client = link(&env, &[("URL", &cluster.url()), ("READ_FROM", "replica")]).await;
    client.set("", "foo", b"v").await.unwrap();
    let reads_on_replicas = async || {
        let mut reads = 0;
        for node in &cluster.nodes {
            let role: redis::Value = node.command(&["ROLE"]).await.unwrap();
            let stats: String = node.command(&["INFO", "commandstats"]).await.unwrap();
            if format!("{role:?}").contains("slave") && stats.contains("cmdstat_get:") {
                reads += 1;
            }
        }
        reads
    };
    eventually("a replica is read from", async || {
        // A replica may lag behind.
        let value = client.get("", "foo").await.unwrap();
        assert!(value.is_none() || value.as_deref() == Some(&b"v"[..]));
        reads_on_replicas().await > 0
    })
    .await;
}

// Guarantees: G32
#[tokio::test]
async fn failing_replicas_fail_no_read() {
    let cluster = RedisCluster::start(1, &["--replica-serve-stale-data", "no"]).await;
    let env = start_env().await;
    let client = link(&env, &[("URL", &cluster.url()), ("READ_FROM", "replica")]).await;
    let keys: Vec<String> = (0..50).map(|n| format!("key-{n}")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let pairs: Vec<(&str, &str)> = keys.iter().map(|key| (*key, "v")).collect();
    client.set_many("", &pairs).await.unwrap();
    let received = async |what: &str, section: &str| {
        let mut replicas = 0;
        for (at, node) in cluster.nodes.iter().enumerate() {
            let stats: String = node.command(&["INFO", section]).await.unwrap();
            let is_replica = cluster.primary_of(at).await.is_some();
            replicas += u32::from(is_replica && stats.contains(what));
        }
        replicas
    };
    eventually("every replica is read from", async || {
        client.get_many("", &keys).await.unwrap();
        received("cmdstat_mget:", "commandstats").await == 3
    })
    .await;
    for (at, node) in cluster.nodes.iter().enumerate() {
        if let Some(primary) = cluster.primary_of(at).await {
            node.lose_primary(&cluster.nodes[primary]).await;
        }
    }
    for key in &keys {
        let value = client.get("", key).await.unwrap();
        assert_eq!(value.as_deref(), Some(&b"v"[..]));
    }
    assert!(client.exists("", keys[0]).await.unwrap());
    let values = client.get_many("", &keys).await.unwrap();
    assert!(values.iter().all(Option::is_some), "{values:?}");
    let refused = received("errorstat_MASTERDOWN", "errorstats").await;
    assert_eq!(refused, 3, "replicas that returned an error");
}

#[tokio::test]
async fn authentication_errors_of_nodes_are_returned() {
    let mut cluster = RedisCluster::start(0, &[]).await;
    for node in &mut cluster.nodes {
        let _: String = node
            .command(&["ACL", "SETUSER", "app", "on", ">right", "+@all", "~*"])
            .await
            .unwrap();
    }
    let env = start_env().await;
    let url = |password: &str| cluster.url().replace("//", &format!("//app:{password}@"));
    let client = link(&env, &[("URL", &url("wrong"))]).await;
    let asked = Instant::now();
    let error = other_error(client.get("", "k").await);
    assert!(error.contains("WRONGPASS"), "{error}");
    // Far less than the call's timeout: a permanent error is not retried.
    assert!(asked.elapsed() < Duration::from_secs(5));
    env.unlink("c", "default").await;
    let client = link(&env, &[("URL", &url("right"))]).await;
    client.set("", "k", b"v").await.unwrap();
}

#[tokio::test]
async fn a_server_without_cluster_mode_is_reported_at_once() {
    let single = RedisNode::start(&[]).await;
    let mut env = start_env().await;
    let url = single.url().replace("redis:", "redis-cluster:");
    let put = Instant::now();
    let client = link(&env, &[("URL", &url)]).await;
    let refusal = "cluster support disabled";
    // The first calls may come before the server has replied.
    eventually("calls fail at once", async || {
        let asked = Instant::now();
        let error = other_error(client.get("", "k").await);
        assert!(
            error.contains(refusal) && error.contains("use redis:// in the URL"),
            "{error}"
        );
        asked.elapsed() < Duration::from_secs(1)
    })
    .await;
    let message = eventually_some("the provider is unhealthy", async || {
        env.host.health().await.unwrap().message
    })
    .await;
    assert!(message.contains(refusal), "{message}");
    let after = put.elapsed();
    assert!(
        after >= Duration::from_secs(10),
        "unhealthy after only {after:?}"
    );
    let lines = env.provider.stop_and_count_log(&["WARN", refusal]).await;
    assert_eq!(lines, 1, "the failure is logged at each attempt");
}

#[tokio::test]
async fn missing_permission_for_the_slot_map_is_reported_at_once() {
    let cluster = RedisCluster::start(0, &[]).await;
    for node in &cluster.nodes {
        let rules = ["on", ">pw", "~*", "+@all", "-cluster"];
        let words = [&["ACL", "SETUSER", "app"], &rules[..]].concat();
        let _: String = node.command(&words).await.unwrap();
    }
    let env = start_env().await;
    let url = cluster.url().replace("//", "//app:pw@");
    let client = link(&env, &[("URL", &url)]).await;
    let asked = Instant::now();
    let error = other_error(client.get("", "k").await);
    assert!(
        error.contains("NOPERM") && error.contains("+cluster|slots"),
        "{error}"
    );
    assert!(asked.elapsed() < Duration::from_secs(5));
    // Once permitted, the link works.
    for node in &cluster.nodes {
        let words = ["ACL", "SETUSER", "app", "+cluster|slots"];
        let _: String = node.command(&words).await.unwrap();
    }
    eventually("calls succeed", async || {
        client.set("", "k", b"v").await.is_ok()
    })
    .await;
}

// Guarantees: G47
#[tokio::test]
async fn calls_waiting_for_the_first_slot_map_are_limited() {
    let nobody = format!("redis-cluster://127.0.0.1:{}", ports::free());
    let env = start_env().await;
    let client = link(&env, &[("URL", &nobody), ("MAX_WAITING", "2")]).await;
    let results = join_all((0..10).map(|_| client.get("", "k"))).await;
    let refused = results
        .into_iter()
        .filter(|result| matches!(result, Err(Error::Other(why)) if why.contains("MAX_WAITING")));
    assert_eq!(refused.count(), 8);
}

#[tokio::test]
async fn a_cluster_node_as_a_single_server_is_reported() {
    let cluster = RedisCluster::start(0, &[]).await;
    let env = start_env().await;
    let client = link(&env, &[("URL", &cluster.nodes[0].url())]).await;
    // `foo` is on the third node.
    let error = other_error(client.get("", "foo").await);
    assert!(error.contains("redis-cluster://"), "{error}");
}

#[tokio::test]
async fn a_partially_failed_batch_is_an_error() {
    let part = &["--cluster-require-full-coverage", "no"];
    let mut cluster = RedisCluster::start(0, part).await;
    let env = start_env().await;
    let client = link(&env, &[("URL", &cluster.url())]).await;
    // `foo` is on the third node, `bar` on the first.
    client
        .set_many("", &[("foo", "1"), ("bar", "2")])
        .await
        .unwrap();
    cluster.nodes[2].kill();
    let client = client.timeout(Duration::from_secs(20));
    let error = other_error(client.get_many("", &["foo", "bar"]).await);
    assert!(error.contains("cannot reach"), "{error}");
    let error = other_error(client.set_many("", &[("foo", "3"), ("bar", "4")]).await);
    assert!(error.contains("cannot reach"), "{error}");
    other_error(client.delete_many("", &["foo", "bar"]).await);
    // Keys on other nodes are still served.
    client.set("", "bar", b"5").await.unwrap();
    assert_eq!(
        client.get("", "bar").await.unwrap().as_deref(),
        Some(&b"5"[..])
    );
}
