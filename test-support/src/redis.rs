//! A Redis server of the test's own: on a free port and a Unix socket, keeping nothing on disk
//! unless told to ([`Redis::durable`]).
//!
//! It can be killed and started again, paused and resumed, and asked directly, past kvredis.
//! The binary is that of `REDIS_SERVER` (a Valkey will do), else `redis-server`.

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

/// What connections past kvredis call themselves.
const OWN_NAME: &str = "test";

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
    /// Starts a server that everybody may use.
    pub async fn start() -> Self {
        Self::launch(Self::stopped()).await
    }

    /// Starts a server that wants this password.
    pub async fn with_password(password: &'static str) -> Self {
        let mut redis = Self::stopped();
        redis.password = Some(password);
        Self::launch(redis).await
    }

    /// Starts a server that answers a write only when it is on disk, and so keeps its data over
    /// [`Self::stop`] and [`Self::restart`].
    pub async fn durable() -> Self {
        let mut redis = Self::stopped();
        redis.durable = true;
        Self::launch(redis).await
    }

    /// Starts a server with more on its command line, such as `--cluster-enabled yes`.
    pub async fn with_arguments(arguments: &[&str]) -> Self {
        let mut redis = Self::stopped();
        redis.arguments = arguments.iter().map(|&word| word.to_owned()).collect();
        Self::launch(redis).await
    }

    /// A server with a port, but not running: connections to it are refused.
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

    /// Its address, without a password.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Its address with a database number.
    pub fn url_of(&self, database: u32) -> String {
        format!("{}/{database}", self.url())
    }

    /// The path of its Unix socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("redis.sock")
    }

    /// Kills the server (SIGKILL); what it held is lost, unless it is durable.
    pub fn stop(&mut self) {
        self.process = None;
    }

    /// Starts it on its port, empty unless it is durable.
    pub async fn restart(&mut self) {
        self.stop();
        assert!(
            self.try_start().await,
            "redis-server did not start again: is its port taken?"
        );
    }

    /// Waits until it has loaded its data and answers `PING`.
    pub async fn ready(&self) {
        eventually("redis-server answers PING", async || {
            let Ok(mut connection) = self.connect(0).await else {
                return false;
            };
            let pong: redis::RedisResult<String> =
                redis::cmd("PING").query_async(&mut connection).await;
            pong.is_ok()
        })
        .await;
    }

    /// Starts it on its port with more on its command line; what it has saved, it loads.
    pub async fn restart_with(&mut self, arguments: &[&str]) {
        self.arguments = arguments.iter().map(|&word| word.to_owned()).collect();
        self.restart().await;
    }

    /// Stops the process's clock: connections stay open, and nothing is answered.
    pub fn pause(&self) {
        self.process().signal(Signal::STOP);
    }

    /// Ends a pause.
    pub fn resume(&self) {
        self.process().signal(Signal::CONT);
    }

    /// Runs a command in database 0, past kvredis.
    pub async fn query<T: FromRedisValue>(&self, command: &Cmd) -> T {
        let mut connection = self.connect(0).await.expect("Redis takes connections");
        command
            .query_async(&mut connection)
            .await
            .expect("Redis does as it is told")
    }

    /// Runs a command given in words, in database 0.
    pub async fn command<T: FromRedisValue>(&self, words: &[&str]) -> T {
        self.command_in(0, words).await
    }

    /// Runs a command given in words, in any database.
    pub async fn command_in<T: FromRedisValue>(&self, database: u32, words: &[&str]) -> T {
        let mut connection = self
            .connect(database)
            .await
            .expect("Redis takes connections");
        let mut command = Cmd::new();
        command.arg(words);
        command
            .query_async(&mut connection)
            .await
            .expect("Redis does as it is told")
    }

    /// Runs many commands at once.
    pub async fn run_pipeline(&self, pipeline: &Pipeline) {
        let mut connection = self.connect(0).await.expect("Redis takes connections");
        let () = pipeline
            .query_async(&mut connection)
            .await
            .expect("Redis does as it is told");
    }

    /// Writes into each database which one it is, for [`crate::client::Client::database`].
    pub async fn number_databases(&self) {
        for database in 0..16 {
            let () = self
                .command_in(database, &["SET", "database", &database.to_string()])
                .await;
        }
    }

    /// The connections that call themselves kvredis's, as `CLIENT LIST` has them: field to value.
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

    /// The names of these connections, in order.
    pub async fn kvredis_client_names(&self) -> Vec<String> {
        let mut clients = self.kvredis_clients().await;
        let mut names: Vec<_> = clients
            .iter_mut()
            .filter_map(|client| client.remove("name"))
            .collect();
        names.sort();
        names
    }

    /// How many connections there are, but for the test's own.
    pub async fn connections(&self) -> usize {
        let list: String = self.command(&["CLIENT", "LIST"]).await;
        let own = |line: &&str| {
            fields(line)
                .get("name")
                .is_some_and(|name| name == OWN_NAME)
        };
        list.lines().filter(|line| !own(line)).count()
    }

    /// How often a command has been run since the server started, by anybody.
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
        self.process.as_ref().expect("the server runs")
    }

    /// A connection of the test's, which [`Self::connections`] does not count: it may still be
    /// there a moment after it was dropped.
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
        let name = redis::cmd("CLIENT").arg("SETNAME").arg(OWN_NAME).take();
        let () = name.query_async(&mut connection).await?;
        Ok(connection)
    }

    /// Starts the process; false when it ended at once, as it does where its port is taken.
    async fn try_start(&mut self) -> bool {
        let program = env::var("REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned());
        let mut command = Command::new(program);
        command
            // With the hyphen it starts on machines without IPv6, too.
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
        let ready = eventually_some("redis-server answers", async || {
            if process.try_wait().is_some() {
                return Some(false);
            }
            let mut connection = self.connect(0).await.ok()?;
            let info: String = redis::cmd("INFO")
                .arg("server")
                .query_async(&mut connection)
                .await
                .ok()?;
            // The process id tells it from another process's server on the same port.
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

/// Takes a line of `CLIENT LIST` apart.
fn fields(line: &str) -> HashMap<String, String> {
    line.split(' ')
        .filter_map(|field| field.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}
