//! [`Lattice`]: starts all processes in order and stops them in reverse order.

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

/// The environment variable that retains the temporary folder with the logs.
const KEEP_FOLDER: &str = "LATTICE_KEEP";

/// The number of lines of each log that are shown after a failure.
const LOG_TAIL_LINES: usize = 25;

/// The processes to start in addition to NATS, Redis and a host.
#[derive(Clone, Debug)]
pub struct Options {
    /// The path of the program `lattice`, which runs the host, wadm and the secrets backend.
    pub program: PathBuf,
    pub wadm: bool,
    pub secrets: bool,
}

/// A running lattice.
pub struct Lattice {
    // Fields are dropped in this order: a host needs NATS to stop.
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
    /// Starts a lattice with a unique name.
    pub async fn start(options: &Options, progress: &Progress) -> Result<Self> {
        let mut folder = tempfile::Builder::new().prefix("lattice-").tempdir()?;
        folder.disable_cleanup(env::var_os(KEEP_FOLDER).is_some());
        let name = unique_name();
        let (nats, client) = Nats::start(folder.path()).await?;
        progress.print(format_args!("NATS with JetStream at {}", nats.url()));
        let redis = Redis::start(folder.path()).await?;
        progress.print(format_args!("Redis at {}", redis.url()));

        let serve =
            |subcommand: &str| serve_command(options, subcommand, &nats, &name, folder.path());
        let secrets = options
            .secrets
            .then(|| Secrets::start(serve("secrets"), client.clone(), folder.path()))
            .transpose()?;
        let wadm = options
            .wadm
            .then(|| Process::start("wadm", serve("wadm"), folder.path()))
            .transpose()?;
        let mut host = Process::start("host", serve("host"), folder.path())?;
        let control = connect(&mut host, &client, &name).await?;
        progress.print(format_args!("wasmCloud host {}", control.host()));
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

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The temporary folder with the logs.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    #[must_use]
    pub fn redis(&self) -> &Redis {
        &self.redis
    }

    #[must_use]
    pub fn nats(&self) -> &Nats {
        &self.nats
    }

    /// The client for operator actions.
    #[must_use]
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// The secrets backend; an error if the options did not include it.
    pub fn secrets(&self) -> Result<&Secrets> {
        self.secrets
            .as_ref()
            .context("this lattice has no secrets backend")
    }

    /// Deploys a manifest through wadm and waits until it is deployed.
    pub async fn deploy(&self, manifest: &Manifest, progress: &Progress) -> Result<()> {
        ensure!(self.wadm.is_some(), "this lattice has no wadm");
        let client = wadm_client::Client::from_nats_client(&self.name, None, self.client.clone());
        // Putting a manifest fails until wadm has created its streams.
        wait::until("wadm", wait::TIMEOUT, async || {
            Ok(Some(client.list_manifests().await?))
        })
        .await?;
        manifest::deploy(&client, manifest, progress).await
    }

    /// All processes of the lattice.
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

    /// The log of the host and its providers.
    #[must_use]
    pub fn host_log(&self) -> String {
        self.host.log_tail(usize::MAX)
    }

    /// Prints the end of every log.
    pub fn show_logs(&self) {
        for process in self.processes() {
            eprintln!(
                "--- {}:\n{}",
                process.name(),
                process.log_tail(LOG_TAIL_LINES)
            );
        }
    }
}

impl Drop for Lattice {
    fn drop(&mut self) {
        if thread::panicking() {
            self.show_logs();
        }
        if env::var_os(KEEP_FOLDER).is_some() {
            eprintln!("{KEEP_FOLDER}: the logs are in {}", self.folder().display());
        }
    }
}

/// The command that runs a subcommand of [`crate::serve`].
fn serve_command(
    options: &Options,
    subcommand: &str,
    nats: &Nats,
    lattice: &str,
    folder: &Path,
) -> Command {
    let mut command = Command::new(&options.program);
    command
        .args([subcommand, "--nats", &nats.url(), "--lattice", lattice])
        // The host unpacks providers into the temporary folder.
        .env("TMPDIR", folder);
    command
}

/// Waits until the host responds.
async fn connect(
    process: &mut Process,
    nats: &async_nats::Client,
    lattice: &str,
) -> Result<Control> {
    // A request to all hosts always takes the whole auction timeout.
    let client = ClientBuilder::new(nats.clone())
        .lattice(lattice)
        .auction_timeout(Duration::from_millis(200))
        .build();
    let host = wait::until("the wasmCloud host", wait::TIMEOUT, async || {
        process.check_running()?;
        Ok(control::hosts(&client).await?.pop())
    })
    .await?;
    Ok(Control::new(client, nats.clone(), host))
}

/// The name distinguishes lattices of the same process and of others.
fn unique_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("kvredis-{}-{number}", process::id())
}
