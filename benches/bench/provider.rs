//! A provider under measurement: started as a host starts it; CPU time and memory are read from the
//! kernel's accounting of its process.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nkeys::KeyPair;
use test_support::process::Process;
use wasmcloud_provider_sdk::core::logging::Level;
use wasmcloud_provider_sdk::core::otel::{OtelConfig, OtelProtocol};
use wasmcloud_provider_sdk::{HostData, InterfaceLinkDefinition};

use crate::load::Client;
use crate::operation::{self, VALUE_BYTES};

/// The argument with which the benchmark's program runs as the SDK baseline.
pub const SERVE_BASELINE: &str = "--serve-baseline";

const LATTICE: &str = "bench";
const COMPONENT: &str = "bench-component";
/// A sampled trace: a component sends one when its host exports traces.
const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// The URLs of the servers that all providers share.
pub struct Servers {
    pub nats: String,
    pub redis: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProviderKind {
    Kvredis,
    SdkBaseline,
}

/// A running provider and the client that calls it.
pub struct Provider {
    process: Process,
    nats: String,
    id: String,
    pub client: Client,
    /// The time from the start of the process to the first response.
    pub time_to_first_response: Duration,
}

impl Provider {
    /// Starts a provider and waits for its first response. With `collector`, it exports traces and
    /// metrics to that URL; `config` is the link's configuration besides `URL`.
    pub fn start(
        kind: ProviderKind,
        servers: &Servers,
        collector: Option<&str>,
        config: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let id = KeyPair::new_service().public_key();
        let nats = servers.nats.trim_start_matches("nats://");
        let mut client = connect(nats, &id)?;
        let data = host_data(&id, servers, collector, config);
        let input = format!("{}\r\n", STANDARD.encode(serde_json::to_vec(&data)?));
        let mut command = match kind {
            ProviderKind::Kvredis => Command::new(env!("CARGO_BIN_EXE_kvredis")),
            ProviderKind::SdkBaseline => {
                let mut command = Command::new(std::env::current_exe()?);
                command.arg(SERVE_BASELINE);
                command
            }
        };
        command.env_clear();
        let started = Instant::now();
        let process = Process::start("provider", command, input.into());
        client.wait_for_response(&operation::set("first", VALUE_BYTES))?;
        Ok(Self {
            process,
            nats: nats.to_owned(),
            id,
            client,
            time_to_first_response: started.elapsed(),
        })
    }

    /// Replaces the client's connection. Late replies to lost calls arrive on the old one while the
    /// client does not read, and NATS closes the connections of such slow consumers.
    pub fn reconnect(&mut self) -> anyhow::Result<()> {
        self.client = connect(&self.nats, &self.id)?;
        Ok(())
    }

    /// The CPU time that the process has used, in user and kernel mode.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        let mut nanoseconds = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.process.id()))? {
            let stat = fs::read_to_string(task?.path().join("schedstat"))?;
            let on_cpu = stat.split(' ').next().unwrap_or_default();
            nanoseconds += on_cpu.parse::<u64>().context("no CPU time in schedstat")?;
        }
        Ok(Duration::from_nanos(nanoseconds))
    }

    /// The resident memory of the process, in bytes.
    pub fn resident_memory(&self) -> anyhow::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let kilobytes = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.trim().strip_suffix(" kB"))
            .context("no VmRSS")?;
        Ok(kilobytes.trim().parse::<u64>()? * 1024)
    }
}

fn connect(address: &str, provider: &str) -> anyhow::Result<Client> {
    Client::connect(address, LATTICE, provider, COMPONENT, TRACEPARENT)
}

fn host_data(
    provider: &str,
    servers: &Servers,
    collector: Option<&str>,
    config: &[(&str, &str)],
) -> HostData {
    let config = config
        .iter()
        .copied()
        .chain([("URL", servers.redis.as_str())]);
    let target_config = config.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let otel_config = OtelConfig {
        enable_traces: Some(collector.is_some()),
        enable_metrics: Some(collector.is_some()),
        observability_endpoint: collector.map(str::to_owned),
        protocol: OtelProtocol::Http,
        ..OtelConfig::default()
    };
    HostData {
        host_id: KeyPair::new_server().public_key(),
        lattice_rpc_prefix: LATTICE.to_owned(),
        lattice_rpc_url: servers.nats.clone(),
        provider_key: provider.to_owned(),
        log_level: Some(Level::Info),
        otel_config,
        link_definitions: vec![InterfaceLinkDefinition {
            source_id: COMPONENT.to_owned(),
            target: provider.to_owned(),
            name: "default".to_owned(),
            wit_namespace: "wasi".to_owned(),
            wit_package: "keyvalue".to_owned(),
            target_config: target_config.collect(),
            ..InterfaceLinkDefinition::default()
        }],
        ..HostData::default()
    }
}
