//! A Sentinel deployment: a primary, two replicas and three sentinels that monitor them.

use std::fs;

use tempfile::TempDir;

use crate::ports;
use crate::redis_node::RedisNode;
use crate::wait::eventually;

/// The name under which the sentinels monitor the primary.
pub const SERVICE: &str = "main";

/// The processes of the deployment. The first server starts as the primary.
pub struct SentinelDeployment {
    /// The Redis servers.
    pub servers: Vec<RedisNode>,
    /// The sentinels.
    pub sentinels: Vec<RedisNode>,
    _folder: TempDir,
}

impl SentinelDeployment {
    /// Starts the deployment without passwords.
    pub async fn start() -> Self {
        Self::with(&[], "", None).await
    }

    /// Starts the deployment with additional arguments for the servers, additional lines in the
    /// sentinels' configuration, and the sentinels' own password.
    pub async fn with(arguments: &[&str], lines: &str, password: Option<&str>) -> Self {
        let known = |server: RedisNode, password: Option<&str>| match password {
            Some(password) => server.with_password(password),
            None => server,
        };
        let own = arguments
            .iter()
            .position(|a| *a == "--requirepass")
            .map(|at| arguments[at + 1]);
        let mut servers = vec![known(RedisNode::start(arguments).await, own)];
        let port = servers[0].port.to_string();
        for _ in 0..2 {
            let mut replica = arguments.to_vec();
            replica.extend(["--replicaof", "127.0.0.1", &port]);
            servers.push(known(RedisNode::start(&replica).await, own));
        }
        let folder = TempDir::new().expect("a temporary folder");
        let mut sentinels = Vec::new();
        for index in 0..3 {
            let path = folder.path().join(format!("sentinel-{index}.conf"));
            let own_port = ports::free();
            let dir = folder.path().display();
            let text = format!(
                "port {own_port}\nbind 127.0.0.1\ndir {dir}\n\
                 sentinel monitor {SERVICE} 127.0.0.1 {port} 2\n\
                 sentinel down-after-milliseconds {SERVICE} 800\n\
                 sentinel failover-timeout {SERVICE} 3000\n{lines}\n"
            );
            fs::write(&path, text).expect("a file");
            let path = path.to_str().expect("a path in UTF-8");
            let sentinel = RedisNode::start_at(own_port, &[path, "--sentinel"]).await;
            sentinels.push(known(sentinel, password));
        }
        let all = Self {
            servers,
            sentinels,
            _folder: folder,
        };
        eventually("the sentinels know all servers", async || {
            for sentinel in &all.sentinels {
                let known: redis::RedisResult<String> =
                    sentinel.command(&["INFO", "sentinel"]).await;
                if !known.is_ok_and(|k| k.contains("slaves=2,sentinels=3")) {
                    return false;
                }
            }
            for server in &all.servers {
                if !server.is_in_sync().await {
                    return false;
                }
            }
            true
        })
        .await;
        all
    }

    /// The URL for a link; `user` is the part before the host, including the `@`.
    pub fn url(&self, user: &str) -> String {
        let [first, others @ ..] = &self.sentinels[..] else {
            panic!("the deployment has no sentinels")
        };
        let others: String = others
            .iter()
            .map(|sentinel| format!("&node=127.0.0.1:{}", sentinel.port))
            .collect();
        format!(
            "redis-sentinel://{user}127.0.0.1:{}?sentinelServiceName={SERVICE}{others}",
            first.port
        )
    }

    /// The index of the server that the last sentinel reports as the primary.
    pub async fn primary(&self) -> usize {
        let words = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE];
        let sentinel = self.sentinels.last().expect("there are sentinels");
        let (_, port): (String, u16) = sentinel.command(&words).await.unwrap();
        let mut servers = self.servers.iter();
        servers.position(|server| server.port == port).unwrap()
    }
}
