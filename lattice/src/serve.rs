//! The hidden subcommands of `lattice`, each of which runs a library as a process: a wasmCloud host,
//! wadm, and the secrets backend.
//!
//! Each exits on SIGTERM and when its standard input closes, so that it never outlives its owner.

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

/// The default of `wash up` and of the program `wasmcloud`.
const PROVIDER_SHUTDOWN_DELAY: Duration = Duration::from_millis(300);

/// wadm sometimes learns only from a heartbeat that a provider has started. With the default of 30 s
/// the demo would seem to hang.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// The arguments of the subcommands.
#[derive(Clone, Debug, clap::Args)]
pub struct ServeArgs {
    /// The NATS server
    #[arg(long)]
    pub nats: String,
    /// The lattice's name
    #[arg(long)]
    pub lattice: String,
}

/// Runs a wasmCloud host that loads components and providers from files.
pub async fn host(args: &ServeArgs) -> Result<()> {
    init_logging();
    let nats = Url::parse(&args.nats)?;
    let (host, shutdown) = Host::new(HostConfig {
        ctl_nats_url: nats.clone(),
        rpc_nats_url: nats,
        lattice: args.lattice.as_str().into(),
        allow_file_load: true,
        heartbeat_interval: Some(HEARTBEAT),
        provider_shutdown_delay: Some(PROVIDER_SHUTDOWN_DELAY),
        secrets_topic_prefix: Some(secrets::TOPIC.to_owned()),
        ..HostConfig::default()
    })
    .await
    .context("cannot start the host")?;
    select! {
        () = shutdown_requested() => {}
        stopped = host.stopped() => { stopped?; }
    }
    shutdown.await.context("the host did not stop cleanly")
}

/// Runs wadm.
pub async fn wadm(args: &ServeArgs) -> Result<()> {
    init_logging();
    let mut tasks = wadm::start_wadm(WadmConfig {
        nats_server: args.nats.clone(),
        stream_persistence: StreamPersistence::Memory,
        ..WadmConfig::default()
    })
    .await
    .context("cannot start wadm")?;
    select! {
        () = shutdown_requested() => Ok(()),
        result = tasks.join_next() => match result {
            Some(result) => result?,
            None => bail!("wadm has no tasks"),
        },
    }
}

/// Runs the secrets backend `nats-kv` with the keys from the environment.
pub async fn secrets_backend(args: &ServeArgs) -> Result<()> {
    init_logging();
    let transit = key_from_environment(secrets::TRANSIT_KEY)?;
    let encryption = key_from_environment(secrets::ENCRYPTION_KEY)?;
    let client = async_nats::connect(&args.nats).await?;
    let api = secrets::api(transit, encryption, client);
    select! {
        () = shutdown_requested() => Ok(()),
        result = api.run() => result,
    }
}

/// Logs to standard output, which is the log file, at the level in `RUST_LOG`.
fn init_logging() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .init();
}

/// Waits for SIGTERM, or for the owner to close standard input.
async fn shutdown_requested() {
    let closed = async {
        let mut ignored = [0; 64];
        while matches!(stdin().read(&mut ignored).await, Ok(1..)) {}
    };
    select! {
        () = closed => {}
        _ = interrupt::wait_for_signal() => {}
    }
}

fn key_from_environment(name: &str) -> Result<XKey> {
    let seed = env::var(name).with_context(|| format!("{name} is not set"))?;
    XKey::from_seed(&seed).map_err(|_| anyhow!("{name} is not the seed of an xkey"))
}
