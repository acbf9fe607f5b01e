//! A Redis server process on a free port and a Unix socket, without persistence except for
//! [`Redis::durable`].
//!
//! It can be killed and restarted, suspended and resumed, and queried directly. `REDIS_SERVER` selects
//! the binary (Valkey works too); the default is `redis-server`.

use std::collections::HashMap;
use std::env;
use std::path::PathBuf;
use std::process::Command;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue, Pipeline};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::ports;
use crate::process::Process;
use crate::wait::{eventually, eventually_some, test_timeout};

/// The client name of the tests' own connections.
const TEST_CLIENT_NAME: &str = "test";

/// A Redis server; killed when dropped.
pub struct Redis {
    port: u16,
    folder: TempDir,
    password: Option<&'static str>,
    durable: bool,
    arguments: Vec<String>,
    process: Option<Process>,
}

impl Redis {
    /// Starts a server without access control.
    pub async fn start() -> Self {
        Self::launch(Self::stopped()).await
    }

    /// Starts a server with a password.
    pub async fn with_password(password: &'static str) -> Self {
        let mut redis = Self::stopped();
        redis.password = Some(password);
        Self::launch(redis).await
    }

    /// Starts a server that replies to a write after it is on disk, so that the data survives
    /// [`Self::stop`] and [`Self::restart`].
    pub async fn durable() -> Self {
        let mut redis = Self::stopped();
        redis.durable = true;
        Self::launch(redis).await
    }

    /// Starts a server with additional arguments, such as `--cluster-enabled yes`.
    pub async fn with_arguments(arguments: &[&str]) -> Self {
        let mut redis = Self::stopped();
        redis.arguments = arguments.iter().map(|&word| word.to_owned()).collect();
        Self::launch(redis).await
    }

    /// A server with a port that is not running: connections to it are refused.
    pub fn stopped() -> Self {
        Self {
            port: ports::free(),
            folder: TempDir::new().expect("a temporary folder"),
            password: None,
            durable: false,
            arguments: Vec::new(),
            process: None,
        }
    }

    async fn launch(mut redis: Self) -> Self {
        while !redis.try_start().await {
            redis.port = ports::free();
        }
        redis
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The URL, without a password.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The URL of a database.
    pub fn url_of(&self, database: u32) -> String {
        format!("{}/{database}", self.url())
    }

    /// The path of its Unix socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("redis.sock")
    }

    /// Kills the server (SIGKILL); its data is lost unless it is durable.
    pub fn stop(&mut self) {
        self.process = None;
    }

    /// Starts the server on its port, empty unless it is durable.
    pub async fn restart(&mut self) {
        self.stop();
        assert!(
            self.try_start().await,
            "redis-server did not restart: is its port taken?"
        );
    }

    /// Waits until the server has loaded its data and replies to `PING`.
    pub async fn ready(&self) {
        eventually("redis-server replies to PING", async || {
            let Ok(mut connection) = self.connect(0).await else {
                return false;
            };
            let pong: redis::RedisResult<String> =
                redis::cmd("PING").query_async(&mut connection).await;
            pong.is_ok()
        })
        .await;
    }

    /// Restarts the server on its port with other arguments; it loads what it saved.
    pub async fn restart_with(&mut self, arguments: &[&str]) {
        self.arguments = arguments.iter().map(|&word| word.to_owned()).collect();
        self.restart().await;
    }

    /// Suspends the process: connections stay open, and no command gets a reply.
    pub fn pause(&self) {
        self.process().signal(Signal::STOP);
    }

    /// Resumes the suspended process.
    pub fn resume(&self) {
        self.process().signal(Signal::CONT);
    }

    /// Runs a command in database 0, directly on the server.
    pub async fn query<T: FromRedisValue>(&self, command: &Cmd) -> T {
        let mut connection = self.connect(0).await.expect("Redis accepts connections");
        command
            .query_async(&mut connection)
            .await
            .expect("the command succeeds")
    }

    /// Runs a command given as words, in database 0.
    pub async fn command<T: FromRedisValue>(&self, words: &[&str]) -> T {
        self.command_in(0, words).await
    }

    /// Runs a command given as words, in any database.
    pub async fn command_in<T: FromRedisValue>(&self, database: u32, words: &[&str]) -> T {
        let mut connection = self
            .connect(database)
            .await
            .expect("Redis accepts connections");
        let mut command = Cmd::new();
        command.arg(words);
        command
            .query_async(&mut connection)
            .await
            .expect("the command succeeds")
    }

    /// Runs a pipeline of commands.
    pub async fn run_pipeline(&self, pipeline: &Pipeline) {
        let mut connection = self.connect(0).await.expect("Redis accepts connections");
        let () = pipeline
            .query_async(&mut connection)
            .await
            .expect("the command succeeds");
    }

    /// Writes its number into each database, for [`crate::client::Client::database`].
    pub async fn number_databases(&self) {
        for database in 0..16 {
            let () = self
                .command_in(database, &["SET", "database", &database.to_string()])
                .await;
        }
    }

    /// The connections with a client name of kvredis, as fields of `CLIENT LIST`.
    pub async fn kvredis_clients(&self) -> Vec<HashMap<String, String>> {
        let list: String = self.command(&["CLIENT", "LIST"]).await;
        list.lines()
            .map(fields)
            .filter(|client| {
                client
                    .get("name")
                    .is_some_and(|name| name.starts_with("kvredis:"))
            })
            .collect()
    }

    /// The client names of these connections, sorted.
    pub async fn kvredis_client_names(&self) -> Vec<String> {
        let mut clients = self.kvredis_clients().await;
        let mut names: Vec<_> = clients
            .iter_mut()
            .filter_map(|client| client.remove("name"))
            .collect();
        names.sort();
        names
    }

    /// The number of connections, not counting the tests' own.
    pub async fn connections(&self) -> usize {
        let list: String = self.command(&["CLIENT", "LIST"]).await;
        let own = |line: &&str| {
            fields(line)
                .get("name")
                .is_some_and(|name| name == TEST_CLIENT_NAME)
        };
        list.lines().filter(|line| !own(line)).count()
    }

    /// The number of times that a command was run since the server started.
    pub async fn calls(&self, command: &str) -> u64 {
        let stats: String = self.command(&["INFO", "commandstats"]).await;
        let prefix = format!("cmdstat_{}:calls=", command.to_lowercase());
        stats
            .lines()
            .find_map(|line| line.strip_prefix(&prefix))
            .and_then(|rest| rest.split(',').next())
            .map_or(0, |count| count.parse().expect("a count"))
    }

    fn process(&self) -> &Process {
        self.process.as_ref().expect("the server is running")
    }

    /// A connection with the tests' client name, so that [`Self::connections`] does not count it: the
    /// server may still list it for a moment after it was dropped.
    pub async fn connect(&self, database: u32) -> redis::RedisResult<MultiplexedConnection> {
        let password = self
            .password
            .map_or(String::new(), |password| format!(":{password}@"));
        let url = format!("redis://{password}127.0.0.1:{}/{database}", self.port);
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(test_timeout()))
            .set_response_timeout(Some(test_timeout()));
        let client = Client::open(url)?;
        let mut connection = client
            .get_multiplexed_async_connection_with_config(&config)
            .await?;
        let name = redis::cmd("CLIENT")
            .arg("SETNAME")
            .arg(TEST_CLIENT_NAME)
            .take();
        let () = name.query_async(&mut connection).await?;
        Ok(connection)
    }

    /// Starts the process; returns false when it exits at once, as it does when its port is taken.
    async fn try_start(&mut self) -> bool {
        let program = env::var("REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned());
        let mut command = Command::new(program);
        command
            // The hyphen lets it start on machines without IPv6.
            .args(["--bind", "127.0.0.1", "-::1"])
            .args(["--port", &self.port.to_string()])
            .args(["--save", "", "--appendfsync", "always"])
            .args(["--appendonly", if self.durable { "yes" } else { "no" }])
            .arg("--dir")
            .arg(self.folder.path())
            .arg("--unixsocket")
            .arg(self.socket());
        command.args(&self.arguments);
        if let Some(password) = self.password {
            command.args(["--requirepass", password]);
        }
        let mut process = Process::start("redis-server", command, Vec::new());
        let id = process.id().to_string();
        let ready = eventually_some("redis-server replies", async || {
            if process.try_wait().is_some() {
                return Some(false);
            }
            let mut connection = self.connect(0).await.ok()?;
            let info: String = redis::cmd("INFO")
                .arg("server")
                .query_async(&mut connection)
                .await
                .ok()?;
            // The process id distinguishes it from another process's server on the same port.
            let own = info
                .lines()
                .any(|line| line.strip_prefix("process_id:") == Some(&id));
            own.then_some(true)
        })
        .await;
        if ready {
            self.process = Some(process);
        }
        ready
    }
}

/// Parses a line of `CLIENT LIST`.
fn fields(line: &str) -> HashMap<String, String> {
    line.split(' ')
        .filter_map(|field| field.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}
