//! Clusters and Sentinel deployments: each node sends the invalidations of its own keys.

// Guarantees: G36

use test_support::client::Client;
use test_support::cluster::RedisCluster;
use test_support::host::Link;
use test_support::redis_node::RedisNode;
use test_support::sentinel::SentinelDeployment;
use test_support::test_env::TestEnv;
use test_support::wait::{eventually, eventually_some};

use crate::CACHED;

async fn linked(url: &str, config: &[(&str, &str)]) -> (TestEnv, Client) {
    let env = TestEnv::builder().unlinked().start().await;
    let config = [CACHED, &[("URL", url)], config].concat();
    let client = env
        .add_link(&Link::new("c", "default").config(&config))
        .await;
    (env, client)
}

async fn gets(servers: &[RedisNode]) -> u64 {
    let mut sum = 0;
    for server in servers {
        let stats: String = server
            .command(&["INFO", "commandstats"])
            .await
            .unwrap_or_default();
        let count = stats.lines().find_map(|line| {
            let rest = line.strip_prefix("cmdstat_get:calls=")?;
            rest.split(',').next()?.parse::<u64>().ok()
        });
        sum += count.unwrap_or(0);
    }
    sum
}

fn text(number: u32) -> Option<Vec<u8>> {
    Some(number.to_string().into_bytes())
}

/// Writes directly to the node that owns the key.
async fn set(cluster: &RedisCluster, key: &str, value: &str) {
    for node in &cluster.nodes {
        if node.command::<()>(&["SET", key, value]).await.is_ok() {
            return;
        }
    }
    panic!("no node accepts {key}");
}

#[tokio::test]
async fn every_node_of_a_cluster_sends_invalidations() {
    let cluster = RedisCluster::start(0, &[]).await;
    let (_env, client) = linked(&cluster.url(), &[]).await;
    let keys: Vec<String> = (0..60).map(|n| format!("key-{n}")).collect();
    for key in &keys {
        client.set("", key, b"0").await.unwrap();
        assert_eq!(client.get("", key).await.unwrap(), text(0));
    }
    let before = gets(&cluster.nodes).await;
    for key in &keys {
        assert_eq!(client.get("", key).await.unwrap(), text(0));
    }
    assert_eq!(
        gets(&cluster.nodes).await,
        before,
        "commands were sent to nodes"
    );
    for key in &keys {
        set(&cluster, key, "1").await;
    }
    for key in &keys {
        eventually("the change by another client is visible", async || {
            client.get("", key).await.unwrap() == text(1)
        })
        .await;
    }
    let pairs: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), "2")).collect();
    client.set_many("", &pairs).await.unwrap();
    for key in &keys {
        assert_eq!(client.get("", key).await.unwrap(), text(2));
    }
    let names: Vec<&str> = keys.iter().map(String::as_str).collect();
    client.delete_many("", &names).await.unwrap();
    for key in &keys {
        assert_eq!(client.get("", key).await.unwrap(), None);
    }
}

/// Keys that move to another node, and keys that are created after tnew_primary slot has moved.
#[tokio::test]
async fn keys_in_moved_slots_are_invalidated() {
    let mut cluster = RedisCluster::start(0, &[]).await;
    let (_env, client) = linked(&cluster.url(), &[]).await;
    let keys: Vec<String> = (0..200).map(|n| format!("key-{n}")).collect();
    for key in &keys {
        client.set("", key, b"0").await.unwrap();
        client.get("", key).await.unwrap();
        assert_eq!(client.get("", &format!("no-{key}")).await.unwrap(), None);
    }
    let new = cluster.add_empty_node().await;
    for from in 0..3 {
        cluster.move_slots(from, new, 2_000).await;
    }
    for key in &keys {
        set(&cluster, key, "1").await;
        set(&cluster, &format!("no-{key}"), "1").await;
    }
    for key in &keys {
        for key in [key.clone(), format!("no-{key}")] {
            eventually(&format!("the change of {key} is visible"), async || {
                client.get("", &key).await.unwrap() == text(1)
            })
            .await;
        }
    }
}

/// A node that gives slots away may send no invalidation for tnew_primary keys.
#[tokio::test]
async fn a_new_slot_map_empties_the_cache() {
    let cluster = RedisCluster::start(0, &[]).await;
    let (_env, client) = linked(&cluster.url(), &[]).await;
    // `foo` is on the third node and stays there; `bar` is on the first.
    for key in ["foo", "bar"] {
        client.set("", key, "0").await.unwrap();
        assert_eq!(client.get("", key).await.unwrap(), text(0));
    }
    let third = &cluster.nodes[2..];
    let before = gets(third).await;
    assert_eq!(client.get("", "foo").await.unwrap(), text(0));
    assert_eq!(gets(third).await, before, "foo is not cached");
    cluster.migrate("bar", 1).await;
    eventually("foo is read from Redis again", async || {
        // The redirect of this write causes a refresh of the slot map.
        client.set("", "bar", "1").await.unwrap();
        assert_eq!(client.get("", "foo").await.unwrap(), text(0));
        gets(third).await > before
    })
    .await;
}

#[tokio::test]
async fn a_failed_or_suspended_primary_stops_serving_cached_values() {
    const SLOT_OF_FOO: u16 = 12_182;
    let mut cluster = RedisCluster::start(1, &[]).await;
    let (_env, client) = linked(&cluster.url(), &[("BACKEND_RESPONSE_TIMEOUT_MS", "1000")]).await;
    for dies in [false, true] {
        let witness = 0;
        client.set("", "foo", b"0").await.unwrap();
        assert_eq!(client.get("", "foo").await.unwrap(), text(0));
        let victim = cluster.slot_owner(SLOT_OF_FOO, witness).await.unwrap();
        assert_ne!(victim, witness);
        if dies {
            cluster.nodes[victim].kill();
        } else {
            cluster.nodes[victim].pause();
        }
        let new_primary = eventually_some("a replica is promoted", async || {
            let owner = cluster.slot_owner(SLOT_OF_FOO, witness).await?;
            (owner != victim).then_some(owner)
        })
        .await;
        eventually("the new primary accepts writes", async || {
            cluster.nodes[new_primary]
                .command::<()>(&["SET", "foo", "1"])
                .await
                .is_ok()
        })
        .await;
        // The failover takes longer than the lease of the old connection.
        eventually("the change is visible", async || {
            match client.get("", "foo").await {
                Ok(read) => {
                    assert_eq!(read, text(1), "the value is the old primary's");
                    true
                }
                Err(_) => false,
            }
        })
        .await;
        cluster.nodes[victim].restart().await;
        cluster.wait_until_consistent().await;
    }
}

#[tokio::test]
async fn a_sentinel_failover_empties_the_cache() {
    let mut redis = SentinelDeployment::start().await;
    let (_env, client) = linked(&redis.url(""), &[]).await;
    client.set("", "k", b"0").await.unwrap();
    client.get("", "k").await.unwrap();
    let before = gets(&redis.servers).await;
    assert_eq!(client.get("", "k").await.unwrap(), text(0));
    assert_eq!(gets(&redis.servers).await, before);
    redis.servers[0].kill();
    let new = eventually_some("the sentinels report a new primary", async || {
        let primary = redis.primary().await;
        (primary != 0).then_some(primary)
    })
    .await;
    let () = redis.servers[new]
        .command(&["SET", "k", "1"])
        .await
        .unwrap();
    eventually("calls succeed again", async || {
        match client.get("", "k").await {
            Ok(read) => {
                assert_eq!(read, text(1), "the value is the old primary's");
                true
            }
            Err(_) => false,
        }
    })
    .await;
    let () = redis.servers[new]
        .command(&["SET", "k", "2"])
        .await
        .unwrap();
    eventually("the new primary sends invalidations", async || {
        client.get("", "k").await.unwrap() == text(2)
    })
    .await;
}

#[tokio::test]
async fn replicas_send_invalidations_as_they_replicate() {
    let redis = SentinelDeployment::start().await;
    let (_env, client) = linked(&redis.url(""), &[("READ_FROM", "replica")]).await;
    for round in 0..100 {
        client.set("", "k", round.to_string()).await.unwrap();
        eventually("the replica has the value", async || {
            client.get("", "k").await.unwrap() == text(round)
        })
        .await;
    }
    let before = gets(&redis.servers).await;
    for _ in 0..20 {
        assert_eq!(client.get("", "k").await.unwrap(), text(99));
    }
    assert!(gets(&redis.servers).await <= before + 1);
}
