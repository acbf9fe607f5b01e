//! A NATS server with JetStream, on a free port.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::process::Process;
use crate::wait;

/// The oldest server that wadm 0.21 works with ("consumer filter subject is not a valid subset"
/// before).
const OLDEST: (u32, u32) = (2, 10);

/// A running NATS server.
#[derive(Debug)]
pub struct Nats {
    process: Process,
    port: u16,
}

impl Nats {
    /// Starts the server and waits until it answers.
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
        let client = wait::until("the NATS server", wait::SOON, async || {
            nats.process.check_running()?;
            Ok(Some(async_nats::connect(nats.url()).await?))
        })
        .await?;
        Ok((nats, client))
    }

    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// The port that it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }
}

/// A TCP port that nothing listens on.
pub fn free_port() -> Result<u16> {
    let listener =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot find a free port")?;
    Ok(listener.local_addr()?.port())
}

/// The server that `scripts/install-tools` has installed where the system's is too old, else the
/// system's.
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
        .context("cannot run nats-server: `make tools` installs it")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = parse_version(&text)
        .with_context(|| format!("nats-server told its version as {:?}", text.trim()))?;
    ensure!(
        version >= OLDEST,
        "wadm needs nats-server {}.{} or newer and found {}: `make tools` installs it",
        OLDEST.0,
        OLDEST.1,
        text.trim()
    );
    Ok(())
}

/// Reads `nats-server: v2.10.4`.
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.trim().rsplit_once('v')?.1.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}
