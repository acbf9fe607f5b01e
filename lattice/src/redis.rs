//! A Redis server on a free port, and questions to it through `redis-cli`.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::nats::free_port;
use crate::process::Process;
use crate::wait;

/// A running Redis server.
#[derive(Debug)]
pub struct Redis {
    process: Process,
    port: u16,
}

impl Redis {
    /// Starts the server, which keeps nothing on disk, and waits until it answers.
    pub async fn start(folder: &Path) -> Result<Self> {
        let port = free_port()?;
        let mut command = Command::new("redis-server");
        command
            .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
            .args(["--save", "", "--appendonly", "no"])
            .arg("--dir")
            .arg(folder);
        let mut redis = Self {
            process: Process::start("redis", command, folder)?,
            port,
        };
        wait::until_true("the Redis server", wait::SOON, async || {
            redis.process.check_running()?;
            Ok(redis.cli(&["PING"])? == "PONG")
        })
        .await?;
        Ok(redis)
    }

    /// The address for a link, database 0.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The address for a link, with a database number.
    #[must_use]
    pub fn url_of_database(&self, database: u8) -> String {
        format!("{}/{database}", self.url())
    }

    /// The words of a `redis-cli` call on this server, as one would type them.
    #[must_use]
    pub fn cli_words(&self, words: &[&str]) -> String {
        format!("redis-cli -p {} {}", self.port, words.join(" "))
    }

    /// The answer of `redis-cli` to a command.
    pub fn cli(&self, words: &[&str]) -> Result<String> {
        let output = Command::new("redis-cli")
            .args(["-p", &self.port.to_string()])
            .args(words)
            .output()
            .context("cannot run redis-cli: `make tools` installs it")?;
        ensure!(
            output.status.success(),
            "{}: {}",
            self.cli_words(words),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    /// The value of a key in a database; empty where there is none.
    pub fn get(&self, database: u8, key: &str) -> Result<String> {
        self.cli(&["-n", &database.to_string(), "GET", key])
    }

    /// The connections that are open, as `CLIENT LIST` tells them, without the one that asks.
    pub fn clients(&self) -> Result<Vec<String>> {
        Ok(self
            .cli(&["CLIENT", "LIST"])?
            .lines()
            .filter(|line| !line.contains("cmd=client|list"))
            .map(str::to_owned)
            .collect())
    }

    /// Its process.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }
}
