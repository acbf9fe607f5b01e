//! Clusters: slot maps and heartbeats that must not empty the cache.

// Guarantees: G36

use std::time::Duration;

use redis::Value;
use test_support::cluster::RedisCluster;
use test_support::host::Link;
use test_support::redis_node::RedisNode;
use test_support::test_env::TestEnv;
use test_support::wait::eventually;
use tokio::time::Instant;

use crate::CACHED;

async fn calls(servers: &[RedisNode], command: &str) -> u64 {
    let mut sum = 0;
    for server in servers {
        let stats: String = server.command(&["INFO", "commandstats"]).await.unwrap();
        let prefix = format!("cmdstat_{command}:calls=");
        let count = stats.lines().find_map(|line| {
            let rest = line.strip_prefix(&prefix)?;
            rest.split(',').next()?.parse::<u64>().ok()
        });
        sum += count.unwrap_or(0);
    }
    sum
}

/// Every node lists the replicas of a shard in an order of its own.
#[tokio::test]
async fn the_order_of_replicas_does_not_empty_the_cache() {
    let arguments = [
        "--cluster-require-full-coverage",
        "no",
        "--cluster-replica-no-failover",
        "yes",
    ];
    let mut cluster = RedisCluster::start(2, &arguments).await;
    // A node that restarts lists them as its file does. Some versions sort them.
    for _ in 0..10 {
        let slots = ["CLUSTER", "SLOTS"];
        let first: Value = cluster.nodes[0].command(&slots).await.unwrap();
        let second: Value = cluster.nodes[1].command(&slots).await.unwrap();
        if first != second {
            break;
        }
        cluster.nodes[1].restart().await;
        cluster.wait_until_consistent().await;
    }
    let mut env = TestEnv::builder().unlinked().start().await;
    let url = cluster.url();
    let config = [CACHED, &[("URL", &*url)]].concat();
    let client = env
        .add_link(&Link::new("c", "default").config(&config))
        .await;
    // `bar` is on the first node.
    client.set("", "bar", b"v").await.unwrap();
    assert_eq!(client.get("", "bar").await, Ok(Some(b"v".to_vec())));

    // With a shard down, the slot map is read ten times a second.
    for node in 3..9 {
        if cluster.primary_of(node).await == Some(2) {
            cluster.nodes[node].kill();
        }
    }
    cluster.nodes[2].kill();
    let alive = &cluster.nodes[..2];
    let gets = calls(alive, "get").await;
    let queries = calls(alive, "cluster|slots").await;
    eventually("the slot map is read forty times", async || {
        assert_eq!(client.get("", "bar").await, Ok(Some(b"v".to_vec())));
        calls(alive, "cluster|slots").await >= queries + 40
    })
    .await;
    let gets = calls(alive, "get").await - gets;
    // A slow machine may miss a heartbeat.
    assert!(gets <= 3, "{gets} reads of Redis");
    let updates = ["slot map of the cluster updated"];
    let updates = env.provider.stop_and_count_log(&updates).await;
    assert!(updates <= 2, "{updates} lines");
}

/// The documented rights of a link that caches and only uses `get` and `set`.
#[tokio::test]
async fn the_cache_of_a_cluster_needs_no_right_to_exists() {
    const WARNING: &str = "cache disabled: client tracking is unavailable";
    let cluster = RedisCluster::start(0, &[]).await;
    let rights = "+ping +client|setname +cluster|slots +asking +get +set +client|tracking \
                  +client|caching +pttl";
    for node in &cluster.nodes {
        let mut user = vec!["ACL", "SETUSER", "ann", "on", ">secret", "~*", "-@all"];
        user.extend(rights.split_whitespace());
        let () = node.command(&user).await.unwrap();
    }
    let mut env = TestEnv::builder().unlinked().start().await;
    let url = cluster.url();
    let own = [("URL", &*url), ("USERNAME", "ann"), ("PASSWORD", "secret")];
    let config = [CACHED, &own].concat();
    let client = env
        .add_link(&Link::new("c", "default").config(&config))
        .await;
    client.set("", "foo", b"v").await.unwrap();
    assert_eq!(client.get("", "foo").await, Ok(Some(b"v".to_vec())));
    let before = calls(&cluster.nodes, "get").await;
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(3) {
        assert_eq!(client.get("", "foo").await, Ok(Some(b"v".to_vec())));
    }
    let gets = calls(&cluster.nodes, "get").await - before;
    // A slow machine may miss a heartbeat.
    assert!(gets <= 3, "{gets} reads of Redis");

    // A right that is taken away later disables the cache with a reason.
    for node in &cluster.nodes {
        let () = node
            .command(&["ACL", "SETUSER", "ann", "-pttl"])
            .await
            .unwrap();
    }
    eventually("the log gives the reason", async || {
        assert_eq!(client.get("", "foo").await, Ok(Some(b"v".to_vec())));
        let log = env.provider.log();
        log.iter()
            .any(|line| line.contains(WARNING) && line.contains("PTTL: NOPERM"))
    })
    .await;
    let before = calls(&cluster.nodes, "get").await;
    for _ in 0..10 {
        assert_eq!(client.get("", "foo").await, Ok(Some(b"v".to_vec())));
    }
    assert_eq!(calls(&cluster.nodes, "get").await, before + 10);
    assert_eq!(env.provider.stop_and_count_log(&[WARNING]).await, 1);
}
