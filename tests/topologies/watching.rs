//! Watching where the keys are on several servers, or on one that is replaced.

use std::collections::BTreeSet;

use test_support::cluster_servers::ClusterServers;
use test_support::host::Link;
use test_support::sentinel_servers::SentinelServers;
use test_support::test_env::TestEnv;
use test_support::wait::eventually;

const WATCHER: &str = "watcher-component";
const SLOT_OF_FOO: u16 = 12_182;

#[tokio::test]
async fn keys_of_every_node_of_a_cluster_are_told_of() {
    let mut cluster = ClusterServers::start(0, &["--notify-keyspace-events", "AKE"]).await;
    let env = TestEnv::builder().unlinked().start().await;
    let component = env.component(WATCHER).await;
    let url = cluster.url();
    let link = Link::new(WATCHER, "default");
    let link = link.config(&[("URL", &url), ("WATCH", "SET@key-*")]);
    env.host.put_watch(&link).await;
    let writer = env
        .link("writer", "default", &[("URL", &cluster.url())])
        .await;
    let told = || -> BTreeSet<String> { component.told().into_iter().map(|t| t.key).collect() };
    eventually("every node is heard", async || {
        for n in 0..30 {
            writer.set("", &format!("key-{n}"), b"v").await.unwrap();
        }
        told().len() == 30
    })
    .await;

    // A node that is added is heard as soon as it has slots.
    let new = cluster.meet().await;
    cluster.move_slots(0, new, 2_000).await;
    eventually("the new node is heard", async || {
        component.forget();
        for n in 0..200 {
            writer.set("", &format!("key-{n}"), b"w").await.unwrap();
        }
        let on_new: Vec<String> = cluster.nodes[new].ask(&["KEYS", "key-*"]).await.unwrap();
        !on_new.is_empty() && on_new.iter().all(|key| told().contains(key))
    })
    .await;
}

#[tokio::test]
async fn a_key_that_moves_to_another_node_was_not_deleted() {
    let cluster = ClusterServers::start(0, &["--notify-keyspace-events", "AKE"]).await;
    let env = TestEnv::builder().unlinked().start().await;
    let component = env.component(WATCHER).await;
    let url = cluster.url();
    let link = Link::new(WATCHER, "default");
    let link = link.config(&[("URL", &url), ("WATCH", "SET@foo,DEL@foo")]);
    env.host.put_watch(&link).await;
    let from = cluster.owner(SLOT_OF_FOO, 0).await.unwrap();
    let to = (from + 1) % 3;
    let heard_at = async |node: usize| {
        let patterns: u64 = cluster.nodes[node]
            .ask(&["PUBSUB", "NUMPAT"])
            .await
            .unwrap();
        patterns > 0
    };
    eventually("both nodes are heard", async || {
        heard_at(from).await && heard_at(to).await
    })
    .await;
    let () = cluster.nodes[from].ask(&["SET", "foo", "v"]).await.unwrap();
    component.told_of("foo").await;

    cluster.migrate("foo", to).await;
    eventually(
        "the new node is asked whether the key is there",
        async || {
            let stats: String = cluster.nodes[to]
                .ask(&["INFO", "commandstats"])
                .await
                .unwrap();
            stats.contains("cmdstat_exists:")
        },
    )
    .await;
    let () = cluster.nodes[to].ask(&["DEL", "foo"]).await.unwrap();
    let deletions = || {
        let told = component.told().into_iter();
        told.filter(|told| told.function == "on-delete").count()
    };
    eventually("the deletion is told", async || deletions() > 0).await;
    // Changes of one key are told in order: what came before would have been told by now.
    let () = cluster.nodes[to].ask(&["SET", "foo", "end"]).await.unwrap();
    eventually("the end is told", async || {
        let told = component.told().into_iter();
        told.filter_map(|told| told.value)
            .any(|value| value == b"end")
    })
    .await;
    assert_eq!(deletions(), 1, "{:?}", component.told_in_short());
}

#[tokio::test]
async fn what_a_new_primary_of_a_cluster_did_unheard_is_no_secret() {
    const MISSED: &[&str] = &["WARN", WATCHER, "may have been missed"];
    let mut cluster = ClusterServers::start(1, &["--notify-keyspace-events", "AKE"]).await;
    let mut env = TestEnv::builder().unlinked().start().await;
    let component = env.component(WATCHER).await;
    let url = cluster.url();
    let link = Link::new(WATCHER, "default").config(&[("URL", &url), ("WATCH", "SET@foo")]);
    env.host.put_watch(&link).await;
    let told = async |cluster: &ClusterServers, value: &str| {
        eventually("the component is told", async || {
            for node in &cluster.nodes {
                let _: redis::RedisResult<()> = node.ask(&["SET", "foo", value]).await;
            }
            let values = component.told().into_iter().filter_map(|told| told.value);
            values.last().is_some_and(|last| last == value.as_bytes())
        })
        .await;
    };
    told(&cluster, "before").await;
    let log = env.provider.log();
    assert!(!log.iter().any(|line| line.contains(MISSED[2])), "{log:?}");
    let victim = cluster.owner(SLOT_OF_FOO, 0).await.unwrap();
    cluster.nodes[victim].kill();
    told(&cluster, "after").await;
    env.provider.logged(MISSED).await;
    // Once, whatever else came of it.
    assert_eq!(env.provider.count_logged(MISSED).await, 1);
}

#[tokio::test]
async fn the_primary_that_sentinels_name_is_watched_also_after_a_failover() {
    let mut redis = SentinelServers::with(&["--notify-keyspace-events", "AKE"], "", None).await;
    let env = TestEnv::builder().unlinked().start().await;
    let component = env.component(WATCHER).await;
    let url = redis.url("");
    let link = Link::new(WATCHER, "default").config(&[("URL", &url), ("WATCH", "SET@k")]);
    env.host.put_watch(&link).await;
    let told = async |redis: &SentinelServers, value: &str| {
        eventually("the component is told", async || {
            let primary = redis.primary().await;
            let set: redis::RedisResult<String> =
                redis.servers[primary].ask(&["SET", "k", value]).await;
            let values = component.told().into_iter().filter_map(|told| told.value);
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
