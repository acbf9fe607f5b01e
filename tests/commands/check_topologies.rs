//! `kvredis check` on clusters and Sentinel deployments.

// Guarantees: G57

use test_support::cluster::RedisCluster;
use test_support::redis::Redis;
use test_support::sentinel::{SERVICE, SentinelDeployment};
use test_support::wait::eventually;

use crate::run::check;

#[tokio::test]
async fn a_cluster_passes_and_findings_name_the_node() {
    let mut cluster = RedisCluster::start(1, &[]).await;
    let url = cluster.url();
    eventually("the nodes know the replicas", async || {
        let found = check(&[&url]).await;
        let replicas = found.one("cluster")["details"]["replicas"].as_array();
        replicas.is_some_and(|replicas| replicas.len() == 3)
    })
    .await;
    for settings in [&[][..], &["READ_FROM=replica", "TTL_MS=1000"]] {
        let found = check(&[&[url.as_str()], settings].concat()).await;
        found.fails(&[]);
        let details = &found.one("cluster")["details"];
        assert_eq!(details["slots_covered"], 16_384);
        assert_eq!(details["primaries"].as_array().unwrap().len(), 3);
        assert_eq!(details["replicas"].as_array().unwrap().len(), 3);
        assert_eq!(found.status("acl"), "ok");
    }
    let found = check(&[&url, "WATCH=SET@a"]).await;
    found.fails(&["notifications"]);

    // Each node has its own users and settings.
    let node = &cluster.nodes[2];
    let () = node
        .command(&["ACL", "SETUSER", "default", "-exists"])
        .await
        .unwrap();
    check(&[&url, "WATCH=SET@a"])
        .await
        .fails(&["notifications"]);
    let found = check(&[&url, "WATCH=DEL@a"]).await;
    found.fails(&["acl", "notifications"]);
    let lacks = found.text.contains("lacks +exists (WATCH)");
    assert!(lacks, "{}", found.text);
    let () = node
        .command(&["ACL", "SETUSER", "default", "+exists"])
        .await
        .unwrap();
    let () = node
        .command(&["ACL", "SETUSER", "default", "-set"])
        .await
        .unwrap();
    let found = check(&[&url]).await;
    found.fails(&["acl"]);
    let address = format!("127.0.0.1:{}", node.port);
    assert!(
        found.text.contains(&format!("at {address}: ")),
        "{}",
        found.text
    );
    let () = node
        .command(&["ACL", "SETUSER", "default", "+set"])
        .await
        .unwrap();

    // No failover during the check.
    for replica in &cluster.nodes[3..] {
        let words = ["CONFIG", "SET", "cluster-replica-no-failover", "yes"];
        let () = replica.command(&words).await.unwrap();
    }
    cluster.nodes[2].kill();
    let found = check(&[&url]).await;
    assert_eq!(found.code, Some(1), "{}", found.text);
    let gone = format!("the node {address}: connection refused");
    assert!(found.text.contains(&gone), "{}", found.text);
}

#[tokio::test]
async fn servers_without_cluster_mode_and_incomplete_clusters_fail() {
    let redis = Redis::start().await;
    let url = format!("redis-cluster://127.0.0.1:{}", redis.port());
    let found = check(&[&url]).await;
    found.fails(&["cluster"]);
    found.says("cluster", &["cluster support disabled", "redis://"]);

    let node = Redis::with_arguments(&["--cluster-enabled", "yes"]).await;
    let found = check(&[&node.url_of(1)]).await;
    found.fails(&["login"]);
    found.says("login", &["database number", "redis-cluster://"]);
    let () = node.command(&["CLUSTER", "ADDSLOTSRANGE", "0", "99"]).await;
    let dead = Redis::stopped();
    let seeds = format!(
        "redis-cluster://127.0.0.1:{}?node=127.0.0.1:{}",
        dead.port(),
        node.port()
    );
    let found = check(&[&seeds]).await;
    assert_eq!(found.code, Some(1), "{}", found.text);
    found.says("cluster", &["100 of 16384", "redis-cli --cluster"]);
    let seeds = found.all("reachable");
    let [reached, dead] = &seeds[..] else {
        panic!("{seeds:?}")
    };
    assert_eq!(
        (&reached["status"], &dead["status"]),
        (&"ok".into(), &"warning".into())
    );
}

#[tokio::test]
async fn sentinel_findings_cover_service_quorum_and_reachability() {
    let mut servers = SentinelDeployment::start().await;
    let url = servers.url("");
    let mut found = check(&[&url, "READ_FROM=replica"]).await;
    // Sentinels poll for replicas at intervals.
    eventually("the sentinels name a replica", async || {
        found = check(&[&url, "READ_FROM=replica"]).await;
        found.status("replicas") == "ok"
    })
    .await;
    found.fails(&[]);
    let details = &found.one("sentinels")["details"];
    let primary = format!("127.0.0.1:{}", servers.servers[0].port);
    assert_eq!(details["primary"], primary);
    assert_eq!(
        (&details["agree"], &details["asked"]),
        (&3.into(), &3.into())
    );

    let found = check(&[&url.replace(SERVICE, "another")]).await;
    found.fails(&["sentinels"]);
    found.says("sentinels", &["another", "sentinelServiceName"]);

    let sentinel = format!("redis://127.0.0.1:{}", servers.sentinels[0].port);
    let found = check(&[&sentinel]).await;
    assert_eq!(found.status("server"), "failed", "{}", found.text);
    found.says("server", &["sentinel", "redis-sentinel://"]);

    servers.sentinels[0].kill();
    let found = check(&[&url]).await;
    found.fails(&[]);
    assert_eq!(found.status("sentinels"), "warning");
    found.says("sentinels", &["2 of 3", "connection refused"]);
    servers.sentinels[1].kill();
    servers.sentinels[2].kill();
    let found = check(&[&url]).await;
    found.fails(&["sentinels"]);
    found.says("sentinels", &["connection refused", "check the hosts"]);
}
