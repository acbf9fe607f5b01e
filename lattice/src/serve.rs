//! The parts of a lattice that are libraries, each run as a process: a wasmCloud host, wadm, and
//! the secrets backend. These are the bodies of the `lattice` subcommands of the same names.
//!
//! Each ends on SIGTERM, and when its standard input closes: so it never outlives its owner.

use std::env;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use nkeys::XKey;
use tokio::io::{AsyncReadExt, stdin};
use tokio::select;
use tracing_subscriber::EnvFilter;
use wadm::StreamPersistence;
use wadm::config::WadmConfig;
use wasmcloud_host::url::Url;
use wasmcloud_host::wasmbus::{Host, HostConfig};

use crate::interrupt;
use crate::secrets;

/// As in `wash up` and the `wasmcloud` program.
const PROVIDER_SHUTDOWN_DELAY: Duration = Duration::from_millis(300);

/// wadm looks at a host again with each heartbeat, and now and then needs that to see a provider
/// that has started: with the 30 s of a real host, a demo would seem to hang.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// What every part needs to know.
#[derive(Clone, Debug, clap::Args)]
pub struct Place {
    /// The NATS server
    #[arg(long)]
    pub nats: String,
    /// The lattice's name
    #[arg(long)]
    pub lattice: String,
}

/// Runs a wasmCloud host that loads components and providers from files.
pub async fn host(place: &Place) -> Result<()> {
    log();
    let nats = Url::parse(&place.nats)?;
    let (host, shutdown) = Host::new(HostConfig {
        ctl_nats_url: nats.clone(),
        rpc_nats_url: nats,
        lattice: place.lattice.as_str().into(),
        allow_file_load: true,
        heartbeat_interval: Some(HEARTBEAT),
        provider_shutdown_delay: Some(PROVIDER_SHUTDOWN_DELAY),
        secrets_topic_prefix: Some(secrets::TOPIC.to_owned()),
        ..HostConfig::default()
    })
    .await
    .context("cannot start the host")?;
    select! {
        () = told_to_end() => {}
        stopped = host.stopped() => { stopped?; }
    }
    shutdown.await.context("the host did not stop cleanly")
}

/// Runs wadm.
pub async fn wadm(place: &Place) -> Result<()> {
    log();
    let mut tasks = wadm::start_wadm(WadmConfig {
        nats_server: place.nats.clone(),
        stream_persistence: StreamPersistence::Memory,
        ..WadmConfig::default()
    })
    .await
    .context("cannot start wadm")?;
    select! {
        () = told_to_end() => Ok(()),
        ended = tasks.join_next() => match ended {
            Some(result) => result?,
            None => bail!("wadm ended"),
        },
    }
}

/// Runs the secrets backend `nats-kv`. Its keys come through the environment.
pub async fn secrets_backend(place: &Place) -> Result<()> {
    log();
    let transit = key_from_environment(secrets::TRANSIT_KEY)?;
    let encryption = key_from_environment(secrets::ENCRYPTION_KEY)?;
    let client = async_nats::connect(&place.nats).await?;
    let api = secrets::api(transit, encryption, client);
    select! {
        () = told_to_end() => Ok(()),
        result = api.run() => result,
    }
}

/// Logs to standard output, which is the part's log file, as much as `RUST_LOG` says.
fn log() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .init();
}

/// Waits for SIGTERM, or for the owner to close standard input.
async fn told_to_end() {
    let closed = async {
        let mut ignored = [0; 64];
        while matches!(stdin().read(&mut ignored).await, Ok(1..)) {}
    };
    select! {
        () = closed => {}
        _ = interrupt::signalled() => {}
    }
}

fn key_from_environment(name: &str) -> Result<XKey> {
    let seed = env::var(name).with_context(|| format!("{name} is not set"))?;
    XKey::from_seed(&seed).map_err(|_| anyhow!("{name} is no seed of an xkey"))
}
