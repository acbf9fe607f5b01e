//! Watching with keys on several servers, and on a server that is replaced.

// Guarantees: G38

use std::collections::BTreeSet;

use test_support::cluster::RedisCluster;
use test_support::host::Link;
use test_support::sentinel::SentinelDeployment;
use test_support::test_env::TestEnv;
use test_support::wait::eventually;

const WATCHER: &str = "watcher-component";
const SLOT_OF_FOO: u16 = 12_182;

#[tokio::test]
async fn changes_on_every_node_of_a_cluster_are_delivered() {
    let mut cluster = RedisCluster::start(0, &["--notify-keyspace-events", "AKE"]).await;
    let env = TestEnv::builder().unlinked().start().await;
    let component = env.component(WATCHER).await;
    let url = cluster.url();
    let link = Link::new(WATCHER, "default");
    let link = link.config(&[("URL", &url), ("WATCH", "SET@key-*")]);
    env.host.put_watch(&link).await;
    let writer = env
        .link("writer", "default", &[("URL", &cluster.url())])
        .await;
    let received =
        || -> BTreeSet<String> { component.calls().into_iter().map(|t| t.key).collect() };
    eventually("changes of every node arrive", async || {
        for n in 0..30 {
            writer.set("", &format!("key-{n}"), b"v").await.unwrap();
        }
        received().len() == 30
    })
    .await;

    // A new node is subscribed to once it has slots.
    let new = cluster.add_empty_node().await;
    cluster.move_slots(0, new, 2_000).await;
    eventually("changes of the new node arrive", async || {
        component.clear_calls();
        for n in 0..200 {
            writer.set("", &format!("key-{n}"), b"w").await.unwrap();
        }
        let on_new: Vec<String> = cluster.nodes[new]
            .command(&["KEYS", "key-*"])
            .await
            .unwrap();
        !on_new.is_empty() && on_new.iter().all(|key| received().contains(key))
    })
    .await;
}

#[tokio::test]
async fn moving_a_key_to_another_node_is_not_a_deletion() {
    let cluster = RedisCluster::start(0, &["--notify-keyspace-events", "AKE"]).await;
    let env = TestEnv::builder().unlinked().start().await;
    let component = env.component(WATCHER).await;
    let url = cluster.url();
    let link = Link::new(WATCHER, "default");
    let link = link.config(&[("URL", &url), ("WATCH", "SET@foo,DEL@foo")]);
    env.host.put_watch(&link).await;
    let from = cluster.slot_owner(SLOT_OF_FOO, 0).await.unwrap();
    let to = (from + 1) % 3;
    let heard_at = async |node: usize| {
        let patterns: u64 = cluster.nodes[node]
            .command(&["PUBSUB", "NUMPAT"])
            .await
            .unwrap();
        patterns > 0
    };
    eventually("changes of both nodes arrive", async || {
        heard_at(from).await && heard_at(to).await
    })
    .await;
    let () = cluster.nodes[from]
        .command(&["SET", "foo", "v"])
        .await
        .unwrap();
    component.wait_for_call("foo").await;

    cluster.migrate("foo", to).await;
    eventually(
        "kvredis checks on the new node whether the key exists",
        async || {
            let stats: String = cluster.nodes[to]
                .command(&["INFO", "commandstats"])
                .await
                .unwrap();
            stats.contains("cmdstat_exists:")
        },
    )
    .await;
    let () = cluster.nodes[to].command(&["DEL", "foo"]).await.unwrap();
    let deletions = || {
        let received = component.calls().into_iter();
        received
            .filter(|received| received.function == "on-delete")
            .count()
    };
    eventually("the deletion arrives", async || deletions() > 0).await;
    // Changes of a key are delivered in order: an earlier deletion would have arrived by now.
    let () = cluster.nodes[to]
        .command(&["SET", "foo", "end"])
        .await
        .unwrap();
    eventually("the last change arrives", async || {
        let received = component.calls().into_iter();
        received
            .filter_map(|received| received.value)
            .any(|value| value == b"end")
    })
    .await;
    assert_eq!(deletions(), 1, "{:?}", component.call_summaries());
}

// Guarantees: G40
#[tokio::test]
async fn changes_missed_during_a_cluster_failover_are_logged() {
    const MISSED: &[&str] = &["WARN", WATCHER, "may have been missed"];
    let mut cluster = RedisCluster::start(1, &["--notify-keyspace-events", "AKE"]).await;
    let mut env = TestEnv::builder().unlinked().start().await;
    let component = env.component(WATCHER).await;
    let url = cluster.url();
    let link = Link::new(WATCHER, "default").config(&[("URL", &url), ("WATCH", "SET@foo")]);
    env.host.put_watch(&link).await;
    let received = async |cluster: &RedisCluster, value: &str| {
        eventually("the component receives a change", async || {
            for node in &cluster.nodes {
                let _: redis::RedisResult<()> = node.command(&["SET", "foo", value]).await;
            }
            let values = component
                .calls()
                .into_iter()
                .filter_map(|received| received.value);
            values.last().is_some_and(|last| last == value.as_bytes())
        })
        .await;
    };
    received(&cluster, "before").await;
    let log = env.provider.log();
    assert!(!log.iter().any(|line| line.contains(MISSED[2])), "{log:?}");
    let victim = cluster.slot_owner(SLOT_OF_FOO, 0).await.unwrap();
    cluster.nodes[victim].kill();
    received(&cluster, "after").await;
    env.provider.wait_for_log(MISSED).await;
    // Once, whatever else happened.
    assert_eq!(env.provider.stop_and_count_log(MISSED).await, 1);
}

// Guarantees: G40
#[tokio::test]
async fn watching_follows_a_sentinel_failover() {
    let mut redis = SentinelDeployment::with(&["--notify-keyspace-events", "AKE"], "", None).await;
    let env = TestEnv::builder().unlinked().start().await;
    let component = env.component(WATCHER).await;
    let url = redis.url("");
    let link = Link::new(WATCHER, "default").config(&[("URL", &url), ("WATCH", "SET@k")]);
    env.host.put_watch(&link).await;
    let received = async |redis: &SentinelDeployment, value: &str| {
        eventually("the component receives a change", async || {
            let primary = redis.primary().await;
            let set: redis::RedisResult<String> =
                redis.servers[primary].command(&["SET", "k", value]).await;
            let values = component
                .calls()
                .into_iter()
                .filter_map(|received| received.value);
            set.is_ok() && values.last().is_some_and(|last| last == value.as_bytes())
        })
        .await;
    };
    received(&redis, "before").await;
    redis.servers[0].kill();
    eventually("the sentinels report a new primary", async || {
        redis.primary().await != 0
    })
    .await;
    received(&redis, "after").await;
}
