//! A redis-server process with arbitrary arguments: a cluster node, a replica, a sentinel, or a server
//! with TLS. It is killed when dropped. `REDIS_SERVER` selects the binary (Valkey works too); the
//! default is `redis-server`.

use std::env;
use std::process::Command;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::ports;
use crate::process::Process;
use crate::wait::{eventually, eventually_some, test_timeout};

/// A server on a port of 127.0.0.1, optionally with TLS on another port.
pub struct RedisNode {
    /// The port without TLS.
    pub port: u16,
    arguments: Vec<String>,
    password: Option<String>,
    folder: TempDir,
    process: Option<Process>,
}

impl RedisNode {
    /// Starts a server on a free port with additional arguments.
    pub async fn start(arguments: &[&str]) -> Self {
        Self::start_at(ports::free(), arguments).await
    }

    /// Starts a server on this port.
    pub async fn start_at(port: u16, arguments: &[&str]) -> Self {
        let mut server = Self {
            port,
            arguments: arguments.iter().map(|&a| a.to_owned()).collect(),
            password: None,
            folder: TempDir::new().expect("a temporary folder"),
            process: None,
        };
        server.restart().await;
        server
    }

    /// Sets the password of the test's own connections.
    pub fn with_password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self
    }

    /// The URL without TLS.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Kills the process.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Suspends the process: connections stay open, and no command gets a reply.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    fn signal(&self, signal: Signal) {
        self.process
            .as_ref()
            .expect("the server is running")
            .signal(signal);
    }

    /// Starts the process again; it loads what it saved.
    pub async fn restart(&mut self) {
        self.kill();
        let program = env::var("REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned());
        let mut command = Command::new(program);
        // A sentinel is configured by its file alone, which must be the first argument.
        let is_sentinel = self.arguments.iter().any(|a| a == "--sentinel");
        if is_sentinel {
            command.args(&self.arguments);
        } else {
            command
                .args(["--bind", "127.0.0.1"])
                .args(["--port", &self.port.to_string()])
                .args(["--save", ""])
                // A replica syncs at once instead of waiting for more replicas.
                .args(["--repl-diskless-sync-delay", "0"])
                .arg("--dir")
                .arg(self.folder.path())
                .args(&self.arguments);
        }
        self.process = Some(Process::start("redis-server", command, Vec::new()));
        eventually_some("redis-server replies to PING", async || {
            let mut connection = self.connect().await.ok()?;
            let result: redis::RedisResult<redis::Value> =
                redis::cmd("PING").query_async(&mut connection).await;
            match result {
                Ok(_) => Some(()),
                // The server is up and requires authentication.
                Err(error) => matches!(error.code(), Some("NOAUTH")).then_some(()),
            }
        })
        .await;
    }

    /// Returns true if the server is a primary, or a replica in sync with its primary.
    pub async fn is_in_sync(&self) -> bool {
        let info: redis::RedisResult<String> = self.command(&["INFO", "replication"]).await;
        info.is_ok_and(|i| i.contains("role:master") || i.contains("master_link_status:up"))
    }

    /// Breaks the replication link: the replica cannot authenticate to its primary any more.
    pub async fn lose_primary(&self, primary: &Self) {
        // Redis 6.2 accepts one setting per CONFIG SET.
        for setting in [["masteruser", "nobody"], ["masterauth", "wrong"]] {
            let words = [&["CONFIG", "SET"], &setting[..]].concat();
            let _: String = self.command(&words).await.unwrap();
        }
        let _: i64 = primary
            .command(&["CLIENT", "KILL", "TYPE", "replica"])
            .await
            .unwrap();
        eventually("the replica reports its primary as down", async || {
            let link: redis::RedisResult<String> = self.command(&["INFO", "replication"]).await;
            link.is_ok_and(|i| i.contains("master_link_status:down"))
        })
        .await;
    }

    /// Runs a command given as words.
    pub async fn command<T: FromRedisValue>(&self, words: &[&str]) -> redis::RedisResult<T> {
        let mut connection = self.connect().await?;
        let mut command = Cmd::new();
        command.arg(words);
        command.query_async(&mut connection).await
    }

    async fn connect(&self) -> redis::RedisResult<MultiplexedConnection> {
        let password = self
            .password
            .as_ref()
            .map_or(String::new(), |password| format!(":{password}@"));
        let url = format!("redis://{password}127.0.0.1:{}", self.port);
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(Duration::from_secs(1)))
            .set_response_timeout(Some(test_timeout()));
        Client::open(url)?
            .get_multiplexed_async_connection_with_config(&config)
            .await
    }
}
