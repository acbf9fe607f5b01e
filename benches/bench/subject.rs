//! A provider under measurement: started as a host starts it, and weighed by the kernel's own
//! accounting of its process.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nkeys::KeyPair;
use test_support::process::Process;
use test_support::provider::kvredis_binary;
use wasmcloud_provider_sdk::core::logging::Level;
use wasmcloud_provider_sdk::core::otel::{OtelConfig, OtelProtocol};
use wasmcloud_provider_sdk::{HostData, InterfaceLinkDefinition};

use crate::load::{Caller, Operation};

const LATTICE: &str = "bench";
const COMPONENT: &str = "bench-component";
/// A sampled trace, as components send it when the host traces.
const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// Which provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The one of this package.
    Kvredis,
    /// The yardstick.
    Stock,
}

/// A running provider, with a caller connected to it.
pub struct Subject {
    process: Process,
    nats: String,
    provider: String,
    /// Who calls it.
    pub caller: Caller,
    /// From the start of the process to the first call answered.
    pub first_answer: Duration,
}

impl Subject {
    /// Starts a provider between these servers. With `traces_to`, it exports traces and metrics
    /// there; `config` is the link's besides its URL.
    pub fn start(
        which: Which,
        nats: &str,
        redis: &str,
        traces_to: Option<&str>,
        config: &[(&str, &str)],
        first: &Operation,
    ) -> anyhow::Result<Self> {
        let provider = KeyPair::new_service().public_key();
        let address = nats.trim_start_matches("nats://");
        let mut caller = connect(address, &provider)?;
        let data = host_data(&provider, nats, redis, traces_to, config);
        let input = format!("{}\r\n", STANDARD.encode(serde_json::to_vec(&data)?));
        let mut command = match which {
            Which::Kvredis => Command::new(kvredis_binary()),
            Which::Stock => {
                let mut stock = Command::new(std::env::current_exe()?);
                stock.arg("--serve-stock");
                stock
            }
        };
        command.env_clear();
        let started = Instant::now();
        let process = Process::start("provider", command, input.into());
        caller.first_answer(first)?;
        Ok(Self {
            process,
            nats: address.to_owned(),
            provider,
            caller,
            first_answer: started.elapsed(),
        })
    }

    /// Calls over a new connection from now on: what comes late for calls that were given up would
    /// fill the old one while nobody reads it, and NATS closes such connections.
    pub fn reconnect(&mut self) -> anyhow::Result<()> {
        self.caller = connect(&self.nats, &self.provider)?;
        Ok(())
    }

    /// The CPU time that the process has used, in user and kernel.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        let mut nanoseconds = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.process.id()))? {
            let stat = fs::read_to_string(task?.path().join("schedstat"))?;
            let on_cpu = stat.split(' ').next().unwrap_or_default();
            nanoseconds += on_cpu.parse::<u64>().context("schedstat has no time")?;
        }
        Ok(Duration::from_nanos(nanoseconds))
    }

    /// The resident memory of the process, in bytes.
    pub fn resident(&self) -> anyhow::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let kilobytes = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.trim().strip_suffix(" kB"))
            .context("no VmRSS")?;
        Ok(kilobytes.trim().parse::<u64>()? * 1024)
    }
}

fn connect(address: &str, provider: &str) -> anyhow::Result<Caller> {
    Caller::connect(address, LATTICE, provider, COMPONENT, TRACEPARENT)
}

fn host_data(
    provider: &str,
    nats: &str,
    redis: &str,
    traces_to: Option<&str>,
    config: &[(&str, &str)],
) -> HostData {
    let config = config.iter().copied().chain([("URL", redis)]);
    let target_config = config.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let otel_config = OtelConfig {
        enable_traces: Some(traces_to.is_some()),
        enable_metrics: Some(traces_to.is_some()),
        observability_endpoint: traces_to.map(str::to_owned),
        protocol: OtelProtocol::Http,
        ..OtelConfig::default()
    };
    HostData {
        host_id: KeyPair::new_server().public_key(),
        lattice_rpc_prefix: LATTICE.to_owned(),
        lattice_rpc_url: nats.to_owned(),
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
