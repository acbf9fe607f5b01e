//! Clusters whose nodes are replaced or frozen: a usable slot map is found elsewhere, and soon.

// Guarantees: G30

use std::time::Duration;

use rustix::process::Signal;
use test_support::cluster::RedisCluster;
use test_support::host::Link;
use test_support::test_env::TestEnv;
use test_support::wait::eventually;
use tokio::time::Instant;

const SLOT_OF_FOO: u16 = 12_182;
const SLOT_OF_BAR: u16 = 5_061;

#[tokio::test]
async fn seeds_are_queried_when_no_known_node_has_a_usable_map() {
    let cluster = RedisCluster::start(1, &[]).await;
    let env = TestEnv::builder().unlinked().start().await;
    // The seed is a replica: the map names it, but a link that reads from primaries does not use it.
    let seed = cluster.nodes[3].port;
    let url = format!("redis-cluster://127.0.0.1:{seed}");
    let link = Link::new("c", "default").config(&[("URL", &url)]);
    let client = env.add_link(&link).await;
    client.set("", "foo", b"v").await.unwrap();
    eventually("the connection to the seed is closed", async || {
        let clients: String = cluster.nodes[3].command(&["CLIENT", "LIST"]).await.unwrap();
        !clients.contains("name=kvredis")
    })
    .await;

    // While kvredis cannot notice it, the replicas take over, and the known nodes are reset.
    env.provider.signal(Signal::STOP);
    for replica in 3..6 {
        let () = cluster.nodes[replica]
            .command(&["CLUSTER", "FAILOVER"])
            .await
            .unwrap();
    }
    eventually("the replicas have taken over", async || {
        for observer in 3..6 {
            for slot in [0, 6_000, SLOT_OF_FOO] {
                if cluster
                    .slot_owner(slot, observer)
                    .await
                    .is_none_or(|n| n < 3)
                {
                    return false;
                }
            }
        }
        true
    })
    .await;
    // Their connections stay open, and they know of no slots.
    for node in &cluster.nodes[..3] {
        let () = node.command(&["CLUSTER", "RESET", "HARD"]).await.unwrap();
    }
    env.provider.signal(Signal::CONT);
    eventually("calls succeed again", async || {
        match client.get("", "foo").await {
            Ok(value) => {
                assert_eq!(value.as_deref(), Some(&b"v"[..]));
                true
            }
            Err(_) => false,
        }
    })
    .await;
    let log = env.provider.log();
    let warnings = log
        .iter()
        .filter(|line| line.contains("no slot map of the cluster"))
        .count();
    assert!(warnings <= 3, "{log:#?}");
}

#[tokio::test]
async fn frozen_nodes_do_not_delay_the_slot_map() {
    const RESPONSE_TIMEOUT_MS: &str = "8000";
    // The cluster itself does not consider them failed during the test.
    let mut cluster = RedisCluster::start(0, &["--cluster-node-timeout", "60000"]).await;
    let new = cluster.add_empty_node().await;
    // A primary that loses its last slot becomes a replica.
    assert!(cluster.move_slot(0, new).await);
    let env = TestEnv::builder().unlinked().start().await;
    let url = cluster.url();
    let config = [
        ("URL", &*url),
        ("BACKEND_RESPONSE_TIMEOUT_MS", RESPONSE_TIMEOUT_MS),
    ];
    let link = Link::new("c", "default").config(&config);
    let client = env.add_link(&link).await;
    for key in ["foo", "bar"] {
        assert_eq!(client.get("", key).await, Ok(None));
    }
    for node in [1, 2] {
        cluster.nodes[node].pause();
    }
    let moved = async |node: usize| {
        let stats: String = cluster.nodes[node]
            .command(&["INFO", "errorstats"])
            .await
            .unwrap();
        let moved = stats
            .lines()
            .find_map(|line| line.strip_prefix("errorstat_MOVED:count="));
        moved.map_or(0, |count| count.trim().parse::<u64>().unwrap())
    };
    // The first node that is queried changes from query to query.
    for round in 0..4 {
        let (from, to) = if round % 2 == 0 { (0, new) } else { (new, 0) };
        assert!(cluster.move_slot(SLOT_OF_BAR, to).await);
        let start = Instant::now();
        eventually("calls are sent to the new owner", async || {
            let before = moved(from).await;
            assert_eq!(client.get("", "bar").await, Ok(None));
            moved(from).await == before
        })
        .await;
        let elapsed = start.elapsed();
        assert!(
            elapsed < Duration::from_secs(4),
            "{elapsed:?} in round {round}"
        );
    }
}
