//! A NATS server with JetStream, on a free port.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::process::Process;
use crate::wait;

/// With older servers, wadm 0.21 fails with "consumer filter subject is not a valid subset".
const MIN_VERSION: (u32, u32) = (2, 10);

/// A running NATS server.
#[derive(Debug)]
pub struct Nats {
    process: Process,
    port: u16,
}

impl Nats {
    /// Starts the server and connects to it.
    pub async fn start(folder: &Path) -> Result<(Self, async_nats::Client)> {
        check_version()?;
        let port = free_port()?;
        let mut command = Command::new(program());
        command
            .args(["--addr", "127.0.0.1", "--port", &port.to_string()])
            .arg("--jetstream")
            .arg("--store_dir")
            .arg(folder.join("jetstream"));
        let mut nats = Self {
            process: Process::start("nats", command, folder)?,
            port,
        };
        let client = wait::until("the NATS server", wait::TIMEOUT, async || {
            nats.process.check_running()?;
            Ok(Some(async_nats::connect(nats.url()).await?))
        })
        .await?;
        Ok((nats, client))
    }

    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }
}

/// Returns a TCP port that is not in use.
pub fn free_port() -> Result<u16> {
    let listener =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot find a free port")?;
    Ok(listener.local_addr()?.port())
}

/// Prefers the server that `scripts/install-tools` installs if the system's is too old.
fn program() -> PathBuf {
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/bin/nats-server");
    if installed.exists() {
        installed
    } else {
        "nats-server".into()
    }
}

fn check_version() -> Result<()> {
    let output = Command::new(program())
        .arg("--version")
        .output()
        .context("cannot run nats-server: run `make tools` to install it")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = parse_version(&text).with_context(|| {
        format!(
            "unexpected output of nats-server --version: {:?}",
            text.trim()
        )
    })?;
    ensure!(
        version >= MIN_VERSION,
        "wadm needs nats-server {}.{} or newer, found {}: run `make tools`",
        MIN_VERSION.0,
        MIN_VERSION.1,
        text.trim()
    );
    Ok(())
}

/// Parses output such as `nats-server: v2.10.4`.
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.trim().rsplit_once('v')?.1.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}
