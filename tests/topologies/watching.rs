//! Watching where the keys are on several servers, or on one that is replaced.

use std::collections::BTreeSet;

use test_support::cluster::RedisCluster;
use test_support::host::Link;
use test_support::sentinel::SentinelDeployment;
use test_support::test_env::TestEnv;
use test_support::wait::eventually;

const WATCHER: &str = "watcher-component";
const SLOT_OF_FOO: u16 = 12_182;

#[tokio::test]
async fn keys_of_every_node_of_a_cluster_are_told_of() {
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
    let told = || -> BTreeSet<String> { component.calls().into_iter().map(|t| t.key).collect() };
    eventually("every node is heard", async || {
        for n in 0..30 {
            writer.set("", &format!("key-{n}"), b"v").await.unwrap();
        }
        told().len() == 30
    })
    .await;

    // A node that is added is heard as soon as it has slots.
    let new = cluster.add_empty_node().await;
    cluster.move_slots(0, new, 2_000).await;
    eventually("the new node is heard", async || {
        component.clear_calls();
        for n in 0..200 {
            writer.set("", &format!("key-{n}"), b"w").await.unwrap();
        }
        let on_new: Vec<String> = cluster.nodes[new]
            .command(&["KEYS", "key-*"])
            .await
            .unwrap();
        !on_new.is_empty() && on_new.iter().all(|key| told().contains(key))
    })
    .await;
}

#[tokio::test]
async fn a_key_that_moves_to_another_node_was_not_deleted() {
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
    eventually("both nodes are heard", async || {
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
        "the new node is asked whether the key is there",
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
        let told = component.calls().into_iter();
        told.filter(|told| told.function == "on-delete").count()
    };
    eventually("the deletion is told", async || deletions() > 0).await;
    // Changes of one key are told in order: what came before would have been told by now.
    let () = cluster.nodes[to]
        .command(&["SET", "foo", "end"])
        .await
        .unwrap();
    eventually("the end is told", async || {
        let told = component.calls().into_iter();
        told.filter_map(|told| told.value)
            .any(|value| value == b"end")
    })
    .await;
    assert_eq!(deletions(), 1, "{:?}", component.call_summaries());
}

#[tokio::test]
async fn what_a_new_primary_of_a_cluster_did_unheard_is_no_secret() {
    const MISSED: &[&str] = &["WARN", WATCHER, "may have been missed"];
    let mut cluster = RedisCluster::start(1, &["--notify-keyspace-events", "AKE"]).await;
    let mut env = TestEnv::builder().unlinked().start().await;
    let component = env.component(WATCHER).await;
    let url = cluster.url();
    let link = Link::new(WATCHER, "default").config(&[("URL", &url), ("WATCH", "SET@foo")]);
    env.host.put_watch(&link).await;
    let told = async |cluster: &RedisCluster, value: &str| {
        eventually("the component is told", async || {
            for node in &cluster.nodes {
                let _: redis::RedisResult<()> = node.command(&["SET", "foo", value]).await;
            }
            let values = component.calls().into_iter().filter_map(|told| told.value);
            values.last().is_some_and(|last| last == value.as_bytes())
        })
        .await;
    };
    told(&cluster, "before").await;
    let log = env.provider.log();
    assert!(!log.iter().any(|line| line.contains(MISSED[2])), "{log:?}");
    let victim = cluster.slot_owner(SLOT_OF_FOO, 0).await.unwrap();
    cluster.nodes[victim].kill();
    told(&cluster, "after").await;
    env.provider.wait_for_log(MISSED).await;
    // Once, whatever else came of it.
    assert_eq!(env.provider.stop_and_count_log(MISSED).await, 1);
}

#[tokio::test]
async fn the_primary_that_sentinels_name_is_watched_also_after_a_failover() {
    let mut redis = SentinelDeployment::with(&["--notify-keyspace-events", "AKE"], "", None).await;
    let env = TestEnv::builder().unlinked().start().await;
    let component = env.component(WATCHER).await;
    let url = redis.url("");
    let link = Link::new(WATCHER, "default").config(&[("URL", &url), ("WATCH", "SET@k")]);
    env.host.put_watch(&link).await;
    let told = async |redis: &SentinelDeployment, value: &str| {
        eventually("the component is told", async || {
            let primary = redis.primary().await;
            let set: redis::RedisResult<String> =
                redis.servers[primary].command(&["SET", "k", value]).await;
            let values = component.calls().into_iter().filter_map(|told| told.value);
            set.is_ok() && values.last().is_some_and(|last| last == value.as_bytes())
        })
        .await;
    };
    told(&redis, "before").await;
    redis.servers[0].kill();
    eventually("there is another primary", async || {
        redis.primary().await != 0
    })
    .await;
    told(&redis, "after").await;
}
