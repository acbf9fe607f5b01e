//! [`Lattice`]: everything started, in order, and taken down in the other order.

use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use std::{env, thread};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use wadm_types::Manifest;
use wasmcloud_control_interface::ClientBuilder;

use crate::control::{self, Control};
use crate::manifest;
use crate::nats::Nats;
use crate::process::Process;
use crate::progress::Progress;
use crate::redis::Redis;
use crate::secrets::Secrets;
use crate::wait;

/// With this variable set, the temporary folder with the logs stays.
const KEEP: &str = "LATTICE_KEEP";

/// How many lines of each log are shown when something failed.
const TAIL: usize = 25;

/// What to start besides NATS, Redis and a host.
#[derive(Clone, Debug)]
pub struct Options {
    /// The program `lattice`, which runs the host, wadm and the secrets backend.
    pub program: PathBuf,
    /// Whether to start wadm.
    pub wadm: bool,
    /// Whether to start the secrets backend.
    pub secrets: bool,
}

/// A running lattice.
pub struct Lattice {
    // Dropped in this order: a host stops while NATS is still there.
    host: Process,
    wadm: Option<Process>,
    secrets: Option<Secrets>,
    redis: Redis,
    nats: Nats,
    client: async_nats::Client,
    control: Control,
    name: String,
    folder: TempDir,
}

impl Lattice {
    /// Starts a lattice with a name of its own.
    pub async fn start(options: &Options, progress: &Progress) -> Result<Self> {
        let mut folder = tempfile::Builder::new().prefix("lattice-").tempdir()?;
        folder.disable_cleanup(env::var_os(KEEP).is_some());
        let name = unique_name();
        let (nats, client) = Nats::start(folder.path()).await?;
        progress.say(format_args!("NATS with JetStream at {}", nats.url()));
        let redis = Redis::start(folder.path()).await?;
        progress.say(format_args!("Redis at {}", redis.url()));

        let part = |subcommand: &str| part(options, subcommand, &nats, &name, folder.path());
        let secrets = options
            .secrets
            .then(|| Secrets::start(part("secrets"), client.clone(), folder.path()))
            .transpose()?;
        let wadm = options
            .wadm
            .then(|| Process::start("wadm", part("wadm"), folder.path()))
            .transpose()?;
        let mut host = Process::start("host", part("host"), folder.path())?;
        let control = connect(&mut host, &client, &name).await?;
        progress.say(format_args!("wasmCloud host {}", control.host()));
        Ok(Self {
            host,
            wadm,
            secrets,
            redis,
            nats,
            client,
            control,
            name,
            folder,
        })
    }

    /// The lattice's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder with the logs, removed at the end.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its Redis.
    #[must_use]
    pub fn redis(&self) -> &Redis {
        &self.redis
    }

    /// Its NATS server.
    #[must_use]
    pub fn nats(&self) -> &Nats {
        &self.nats
    }

    /// What an operator does by hand.
    #[must_use]
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// Its secrets backend, if it was asked for.
    pub fn secrets(&self) -> Result<&Secrets> {
        self.secrets
            .as_ref()
            .context("this lattice has no secrets backend")
    }

    /// Deploys a manifest through wadm and waits until it is deployed.
    pub async fn deploy(&self, manifest: &Manifest, progress: &Progress) -> Result<()> {
        ensure!(self.wadm.is_some(), "this lattice has no wadm");
        let client = wadm_client::Client::from_nats_client(&self.name, None, self.client.clone());
        // wadm answers when its streams are made; a put is an error until then.
        wait::until("wadm", wait::SOON, async || {
            Ok(Some(client.list_manifests().await?))
        })
        .await?;
        manifest::deploy(&client, manifest, progress).await
    }

    /// All processes, for those who want to look at them or their logs.
    pub fn processes(&self) -> impl Iterator<Item = &Process> {
        [
            Some(self.nats.process()),
            Some(self.redis.process()),
            self.secrets.as_ref().map(Secrets::process),
            self.wadm.as_ref(),
            Some(&self.host),
        ]
        .into_iter()
        .flatten()
    }

    /// What the host and its providers have logged.
    #[must_use]
    pub fn host_log(&self) -> String {
        self.host.log_tail(usize::MAX)
    }

    /// Prints the end of every log, for a test that failed.
    pub fn show_logs(&self) {
        for process in self.processes() {
            eprintln!("--- {}:\n{}", process.name(), process.log_tail(TAIL));
        }
    }
}

impl Drop for Lattice {
    fn drop(&mut self) {
        if thread::panicking() {
            self.show_logs();
        }
        if env::var_os(KEEP).is_some() {
            eprintln!("{KEEP}: the logs are in {}", self.folder().display());
        }
    }
}

/// The command line of a part that this package runs itself.
fn part(options: &Options, name: &str, nats: &Nats, lattice: &str, folder: &Path) -> Command {
    let mut command = Command::new(&options.program);
    command
        .args([name, "--nats", &nats.url(), "--lattice", lattice])
        // The host unpacks providers into the temporary folder.
        .env("TMPDIR", folder);
    command
}

/// Waits until the host is there.
async fn connect(
    process: &mut Process,
    nats: &async_nats::Client,
    lattice: &str,
) -> Result<Control> {
    // A question to all hosts takes the whole auction time.
    let client = ClientBuilder::new(nats.clone())
        .lattice(lattice)
        .auction_timeout(Duration::from_millis(200))
        .build();
    let host = wait::until("the wasmCloud host", wait::SOON, async || {
        process.check_running()?;
        Ok(control::hosts(&client).await?.pop())
    })
    .await?;
    Ok(Control::new(client, nats.clone(), host))
}

/// Several lattices of one process, and of several, must not meet by name.
fn unique_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("kvredis-{}-{number}", process::id())
}
