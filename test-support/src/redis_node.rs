//! A redis-server with any configuration: started, asked past kvredis, killed when dropped.
//! The binary is that of `REDIS_SERVER` (a Valkey will do), else `redis-server`.

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

/// A server that listens on a port of 127.0.0.1, and perhaps with TLS on another.
pub struct RedisNode {
    /// The port without TLS.
    pub port: u16,
    arguments: Vec<String>,
    password: Option<String>,
    folder: TempDir,
    process: Option<Process>,
}

impl RedisNode {
    /// Starts a server on a free port with more arguments.
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

    /// Gives the password that the test itself asks with.
    pub fn with_password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self
    }

    /// The address without TLS.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Kills it.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Stops its clock.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    fn signal(&self, signal: Signal) {
        self.process.as_ref().expect("it runs").signal(signal);
    }

    /// Starts it again with what it kept.
    pub async fn restart(&mut self) {
        self.kill();
        let program = env::var("REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned());
        let mut command = Command::new(program);
        // A sentinel's configuration file comes first, and has all of it.
        let is_sentinel = self.arguments.iter().any(|a| a == "--sentinel");
        if is_sentinel {
            command.args(&self.arguments);
        } else {
            command
                .args(["--bind", "127.0.0.1"])
                .args(["--port", &self.port.to_string()])
                .args(["--save", ""])
                // Replicas need not wait for more of them.
                .args(["--repl-diskless-sync-delay", "0"])
                .arg("--dir")
                .arg(self.folder.path())
                .args(&self.arguments);
        }
        self.process = Some(Process::start("redis-server", command, Vec::new()));
        eventually_some("redis-server answers", async || {
            let mut connection = self.connect().await.ok()?;
            let answer: redis::RedisResult<redis::Value> =
                redis::cmd("PING").query_async(&mut connection).await;
            match answer {
                Ok(_) => Some(()),
                // It wants somebody to log in, so it is there.
                Err(error) => matches!(error.code(), Some("NOAUTH")).then_some(()),
            }
        })
        .await;
    }

    /// Whether it is a primary, or a replica that has what its primary has.
    pub async fn is_in_sync(&self) -> bool {
        let info: redis::RedisResult<String> = self.command(&["INFO", "replication"]).await;
        info.is_ok_and(|i| i.contains("role:master") || i.contains("master_link_status:up"))
    }

    /// Has it lose its primary, which goes on without it.
    pub async fn lose_primary(&self, primary: &Self) {
        // Redis 6.2 sets one at a time.
        for setting in [["masteruser", "nobody"], ["masterauth", "wrong"]] {
            let words = [&["CONFIG", "SET"], &setting[..]].concat();
            let _: String = self.command(&words).await.unwrap();
        }
        let _: i64 = primary
            .command(&["CLIENT", "KILL", "TYPE", "replica"])
            .await
            .unwrap();
        eventually("the replica is without its primary", async || {
            let link: redis::RedisResult<String> = self.command(&["INFO", "replication"]).await;
            link.is_ok_and(|i| i.contains("master_link_status:down"))
        })
        .await;
    }

    /// Runs a command given in words.
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
