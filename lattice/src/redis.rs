//! A Redis server on a free port, and commands to it through `redis-cli`.

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
    /// Starts the server without persistence and waits until it responds.
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
        wait::until_true("the Redis server", wait::TIMEOUT, async || {
            redis.process.check_running()?;
            Ok(redis.cli(&["PING"])? == "PONG")
        })
        .await?;
        Ok(redis)
    }

    /// The `URL` for a link, with database 0.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The `URL` for a link, with a database number.
    #[must_use]
    pub fn url_of_database(&self, database: u8) -> String {
        format!("{}/{database}", self.url())
    }

    /// The shell command for a Redis command to this server.
    #[must_use]
    pub fn cli_command(&self, command: &[&str]) -> String {
        format!("redis-cli -p {} {}", self.port, command.join(" "))
    }

    /// Runs a command with `redis-cli` and returns the reply.
    pub fn cli(&self, command: &[&str]) -> Result<String> {
        let output = Command::new("redis-cli")
            .args(["-p", &self.port.to_string()])
            .args(command)
            .output()
            .context("cannot run redis-cli: run `make tools` to install it")?;
        ensure!(
            output.status.success(),
            "{}: {}",
            self.cli_command(command),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    /// Returns the value of a key in a database, or an empty string if the key does not exist.
    pub fn get(&self, database: u8, key: &str) -> Result<String> {
        self.cli(&["-n", &database.to_string(), "GET", key])
    }

    /// Returns the lines of `CLIENT LIST`, without the line of the connection that requests them.
    pub fn clients(&self) -> Result<Vec<String>> {
        Ok(self
            .cli(&["CLIENT", "LIST"])?
            .lines()
            .filter(|line| !line.contains("cmd=client|list"))
            .map(str::to_owned)
            .collect())
    }

    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }
}
