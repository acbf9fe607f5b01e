//! Clusters whose nodes name themselves in other ways than by an IPv4 address, in slot maps and in
//! redirects: calls reach the right node, or return a clear error.

// Guarantees: G30

use std::collections::BTreeSet;

use test_support::client::{Client, other_error};
use test_support::cluster::RedisCluster;
use test_support::host::Link;
use test_support::test_env::TestEnv;
use test_support::wait::eventually;

const SLOT_OF_FOO: u16 = 12_182;

async fn configure(cluster: &RedisCluster, settings: &[(&str, &str)]) {
    for node in &cluster.nodes {
        for (name, value) in settings {
            let () = node.command(&["CONFIG", "SET", name, value]).await.unwrap();
        }
    }
}

async fn link(cluster: &RedisCluster, config: &[(&str, &str)]) -> (TestEnv, Client) {
    let env = TestEnv::builder().unlinked().start().await;
    let url = cluster.url();
    let config = [&[("URL", &*url)], config].concat();
    let client = env
        .add_link(&Link::new("c", "default").config(&config))
        .await;
    (env, client)
}

/// Waits until node `observer` replies to a call for a key of `foo`'s slot with this redirect.
async fn wait_for_redirect(cluster: &RedisCluster, observer: usize, redirect: &str) {
    eventually(&format!("the redirect contains {redirect}"), async || {
        let reply: redis::RedisResult<()> = cluster.nodes[observer].command(&["GET", "foo"]).await;
        reply.is_err_and(|error| error.to_string().contains(redirect))
    })
    .await;
}

/// Calls before, during and after the move of a slot, in both directions.
async fn assert_calls_follow_a_slot(cluster: &RedisCluster, config: &[(&str, &str)]) {
    let (_env, client) = link(cluster, config).await;
    let mut keys = BTreeSet::new();
    let set = async |key: &str| {
        client.set("", key, key).await.unwrap();
        assert_eq!(client.get("", key).await, Ok(Some(key.as_bytes().to_vec())));
    };
    for number in 0..20 {
        keys.insert(format!("key-{number}"));
        keys.insert(format!("{{foo}}-{number}"));
    }
    for key in &keys {
        set(key).await;
    }
    for (from, to) in [(2, 0), (0, 2)] {
        let slot = SLOT_OF_FOO.to_string();
        for (node, state, other) in [(to, "IMPORTING", from), (from, "MIGRATING", to)] {
            let id: String = cluster.nodes[other]
                .command(&["CLUSTER", "MYID"])
                .await
                .unwrap();
            let words = ["CLUSTER", "SETSLOT", &slot, state, &id];
            let () = cluster.nodes[node].command(&words).await.unwrap();
        }
        // ASK.
        let key = format!("{{foo}}-asked-{to}");
        set(&key).await;
        let words = ["CLUSTER", "GETKEYSINSLOT", &slot, "100"];
        let imported: Vec<String> = cluster.nodes[to].command(&words).await.unwrap();
        assert_eq!(imported, [key.as_str()]);
        keys.insert(key);
        // MOVED.
        assert!(cluster.move_slot(SLOT_OF_FOO, to).await);
        for key in &keys {
            assert_eq!(client.get("", key).await, Ok(Some(key.as_bytes().to_vec())));
        }
        let listed: BTreeSet<String> = client.keys("").await.unwrap().into_iter().collect();
        assert_eq!(listed, keys);
    }
}

#[tokio::test]
async fn nodes_without_a_host_have_the_host_of_the_replying_node() {
    let unknown = ["--cluster-preferred-endpoint-type", "unknown-endpoint"];
    let cluster = RedisCluster::start(0, &unknown).await;
    let port = cluster.nodes[2].port;
    wait_for_redirect(&cluster, 0, &format!("{SLOT_OF_FOO} :{port}")).await;
    assert_calls_follow_a_slot(&cluster, &[]).await;
}

#[tokio::test]
async fn nodes_without_a_host_name_have_the_address_of_the_slot_map() {
    let named = ["--cluster-preferred-endpoint-type", "hostname"];
    let cluster = RedisCluster::start(0, &named).await;
    let port = cluster.nodes[2].port;
    wait_for_redirect(&cluster, 0, &format!("?:{port}")).await;
    assert_calls_follow_a_slot(&cluster, &[]).await;
}

#[tokio::test]
async fn host_names_of_nodes_are_used() {
    let named = ["--cluster-preferred-endpoint-type", "hostname"];
    let cluster = RedisCluster::start(0, &named).await;
    configure(&cluster, &[("cluster-announce-hostname", "localhost")]).await;
    let port = cluster.nodes[2].port;
    wait_for_redirect(&cluster, 0, &format!("localhost:{port}")).await;
    // The slot map in RESP3.
    assert_calls_follow_a_slot(&cluster, &[("CACHE_MAX_ENTRIES", "100")]).await;
}

#[tokio::test]
async fn ipv6_addresses_of_nodes_are_used() {
    let cluster = RedisCluster::start(0, &["--bind", "127.0.0.1", "::1"]).await;
    configure(&cluster, &[("cluster-announce-ip", "::1")]).await;
    let port = cluster.nodes[2].port;
    wait_for_redirect(&cluster, 0, &format!("{SLOT_OF_FOO} ::1:{port}")).await;
    cluster.wait_until_consistent().await;
    assert_calls_follow_a_slot(&cluster, &[]).await;
}

/// Nodes behind one address, such as a load balancer's: which node replies is left to chance.
#[tokio::test]
async fn nodes_that_are_indistinguishable_are_refused() {
    let unknown = ["--cluster-preferred-endpoint-type", "unknown-endpoint"];
    let cluster = RedisCluster::start(0, &unknown).await;
    let port = cluster.nodes[0].port.to_string();
    configure(&cluster, &[("cluster-announce-port", &port)]).await;
    for observer in 0..2 {
        wait_for_redirect(&cluster, observer, &format!("{SLOT_OF_FOO} :{port}")).await;
    }
    let (_env, client) = link(&cluster, &[]).await;
    let is_clear = |text: &str| {
        text.contains("several nodes") && text.contains("cluster-preferred-endpoint-type")
    };
    eventually("the error gives the reason", async || {
        let get = other_error(client.get("", "k").await);
        let list = other_error(client.list_keys("", None).await);
        is_clear(&get) && is_clear(&list)
    })
    .await;
}
