//! A Redis Cluster of real processes: three primaries with replicas, which a test can reshape.

use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;

use redis::Value;

use crate::ports;
use crate::redis_node::RedisNode;
use crate::wait::eventually;

/// A cluster. The first three nodes start as primaries.
pub struct RedisCluster {
    /// The nodes.
    pub nodes: Vec<RedisNode>,
    arguments: Vec<String>,
}

impl RedisCluster {
    /// Starts three primaries with this number of replicas each.
    pub async fn start(replicas: usize, arguments: &[&str]) -> Self {
        let mut cluster = Self {
            nodes: Vec::new(),
            arguments: arguments.iter().map(|&a| a.to_owned()).collect(),
        };
        for _ in 0..3 * (1 + replicas) {
            cluster.add_node().await;
        }
        let addresses: Vec<String> = cluster.nodes.iter().map(address).collect();
        let mut create = vec!["--cluster", "create"];
        create.extend(addresses.iter().map(String::as_str));
        let replicas = replicas.to_string();
        create.extend(["--cluster-replicas", &replicas, "--cluster-yes"]);
        redis_cli(&create);
        cluster.wait_until_consistent().await;
        cluster
    }

    /// Starts a node that has not joined the cluster yet.
    pub async fn add_node(&mut self) -> &RedisNode {
        let mut arguments = vec!["--cluster-enabled", "yes", "--cluster-node-timeout", "1000"];
        arguments.extend(self.arguments.iter().map(String::as_str));
        let node = RedisNode::start_at(port(), &arguments).await;
        self.nodes.push(node);
        self.nodes.last().expect("the node was pushed above")
    }

    /// The URL for a link: it names two of the nodes.
    pub fn url(&self) -> String {
        let (a, b) = (self.nodes[0].port, self.nodes[1].port);
        format!("redis-cluster://127.0.0.1:{a}?node=127.0.0.1:{b}")
    }

    /// Waits until all nodes know each other, every slot is served and every replica is in sync.
    pub async fn wait_until_consistent(&self) {
        eventually(
            "the nodes of the cluster agree on the topology",
            async || {
                for node in &self.nodes {
                    let info: redis::RedisResult<String> = node.command(&["CLUSTER", "INFO"]).await;
                    let known = format!("cluster_known_nodes:{}", self.nodes.len());
                    let agrees =
                        info.is_ok_and(|i| i.contains("cluster_state:ok") && i.contains(&known));
                    if !agrees || !node.is_in_sync().await {
                        return false;
                    }
                }
                true
            },
        )
        .await;
    }

    /// The node that currently owns the slot, according to node `observer`.
    pub async fn slot_owner(&self, slot: u16, observer: usize) -> Option<usize> {
        let slots: Value = self.nodes[observer]
            .command(&["CLUSTER", "SLOTS"])
            .await
            .ok()?;
        let Value::Array(ranges) = slots else {
            return None;
        };
        for range in ranges {
            let Value::Array(parts) = range else { continue };
            let [
                Value::Int(first),
                Value::Int(last),
                Value::Array(primary),
                ..,
            ] = &parts[..]
            else {
                continue;
            };
            if (*first..=*last).contains(&i64::from(slot))
                && let Some(Value::Int(port)) = primary.get(1)
            {
                return self.nodes.iter().position(|n| i64::from(n.port) == *port);
            }
        }
        None
    }

    /// The primary of a replica.
    pub async fn primary_of(&self, node: usize) -> Option<usize> {
        let info: String = self.nodes[node]
            .command(&["INFO", "replication"])
            .await
            .ok()?;
        let port = info.lines().find_map(|l| l.strip_prefix("master_port:"))?;
        let port: u16 = port.trim().parse().ok()?;
        self.nodes.iter().position(|node| node.port == port)
    }

    /// Moves slots with their keys from one node to another with `redis-cli`.
    pub async fn move_slots(&self, from: usize, to: usize, count: u16) {
        let id = async |node: usize| {
            let id: String = self.nodes[node]
                .command(&["CLUSTER", "MYID"])
                .await
                .unwrap();
            id
        };
        let (from_id, to_id) = (id(from).await, id(to).await);
        let address = address(&self.nodes[0]);
        let count = count.to_string();
        let arguments: Vec<String> = [
            "--cluster",
            "reshard",
            &address,
            "--cluster-from",
            &from_id,
            "--cluster-to",
            &to_id,
            "--cluster-slots",
            &count,
            "--cluster-yes",
            "--cluster-pipeline",
            "50",
        ]
        .map(str::to_owned)
        .into();
        tokio::task::spawn_blocking(move || {
            redis_cli(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        })
        .await
        .unwrap();
    }

    /// Moves the slot of a key, which must be the only key in the slot, as `redis-cli` does.
    pub async fn migrate(&self, key: &str, to: usize) {
        let slot: u16 = self.nodes[0]
            .command(&["CLUSTER", "KEYSLOT", key])
            .await
            .unwrap();
        self.move_slot(slot, to).await;
    }

    /// Moves a slot with its keys, as `redis-cli` does. Returns false if `to` serves it already.
    pub async fn move_slot(&self, slot: u16, to: usize) -> bool {
        let from = self.slot_owner(slot, 0).await.unwrap();
        if from == to {
            return false;
        }
        let slot = slot.to_string();
        let id = async |node: usize| -> String {
            self.nodes[node]
                .command(&["CLUSTER", "MYID"])
                .await
                .unwrap()
        };
        let (from_id, to_id) = (id(from).await, id(to).await);
        let set_slot = async |node: usize, state: &str, id: &str| {
            let words = ["CLUSTER", "SETSLOT", &slot, state, id];
            let () = self.nodes[node].command(&words).await.unwrap();
        };
        set_slot(to, "IMPORTING", &from_id).await;
        set_slot(from, "MIGRATING", &to_id).await;
        let port = self.nodes[to].port.to_string();
        let words = ["CLUSTER", "GETKEYSINSLOT", &slot, "100000"];
        let keys: Vec<String> = self.nodes[from].command(&words).await.unwrap();
        for key in &keys {
            let words = ["MIGRATE", "127.0.0.1", &port, key, "0", "5000"];
            let () = self.nodes[from].command(&words).await.unwrap();
        }
        for node in [to, from] {
            set_slot(node, "NODE", &to_id).await;
        }
        true
    }

    /// Adds an empty node to the cluster and returns its index.
    pub async fn add_empty_node(&mut self) -> usize {
        let first = self.nodes[0].port.to_string();
        let node = self.add_node().await;
        let _: String = node
            .command(&["CLUSTER", "MEET", "127.0.0.1", &first])
            .await
            .unwrap();
        self.wait_until_consistent().await;
        self.nodes.len() - 1
    }
}

/// A free port. The cluster bus listens on the port that is 10,000 higher, which must be free and
/// below the kernel's range of ephemeral ports.
fn port() -> u16 {
    loop {
        let port = ports::free();
        if port < 22_000 && TcpListener::bind((Ipv4Addr::LOCALHOST, port + 10_000)).is_ok() {
            return port;
        }
    }
}

fn address(node: &RedisNode) -> String {
    format!("127.0.0.1:{}", node.port)
}

fn redis_cli(arguments: &[&str]) {
    let output = Command::new("redis-cli")
        .args(arguments)
        .output()
        .expect("redis-cli starts");
    assert!(
        output.status.success(),
        "redis-cli {arguments:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
