//! `make bench`: compares kvredis with the SDK baseline, and kvredis with its cache to kvredis
//! without.
//!
//! All providers share one NATS server, one Redis server and one load generator. Rounds alternate
//! between the providers, and the medians of the rounds are compared, so that changes in the
//! machine's speed affect both sides.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod baseline;
mod cache;
mod collector;
mod comparison;
mod load;
mod operation;
mod plot;
mod provider;
mod report;
mod workload;

use std::path::Path;

use anyhow::ensure;
use comparison::{Comparison, Target};
use load::median;
use provider::{Provider, ProviderKind, Servers};
use report::Report;
use test_support::nats::Nats;
use test_support::redis::Redis;
use workload::{Metric, Workload};

const MEMORY_CALLS: u64 = 1_000_000;
const MEMORY_CALLS_QUICK: u64 = 10_000;
const STARTS: usize = 7;

/// The arguments after `cargo bench --`.
pub struct Options {
    /// Only the workloads whose labels contain one of these are measured, and no report is written.
    filters: Vec<String>,
    /// `--quick`: one short round of each workload, to try the benchmark itself. The report goes to
    /// `target/bench-quick`.
    quick: bool,
}

impl Options {
    fn from_arguments() -> Self {
        let (flags, filters): (Vec<String>, Vec<String>) = std::env::args()
            .skip(1)
            .partition(|argument| argument.starts_with("--"));
        Self {
            filters,
            quick: flags.iter().any(|flag| flag == "--quick"),
        }
    }

    /// The workloads to measure, in the form that was asked for.
    fn select(&self, workloads: Vec<Workload>) -> impl Iterator<Item = Workload> {
        workloads
            .into_iter()
            .filter(|workload| {
                let label = workload.label();
                self.filters.is_empty() || self.filters.iter().any(|text| label.contains(text))
            })
            .map(|workload| {
                if self.quick {
                    workload.quick()
                } else {
                    workload
                }
            })
    }
}

fn main() -> anyhow::Result<()> {
    if std::env::args().any(|argument| argument == provider::SERVE_BASELINE) {
        return baseline::main();
    }
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?
        .block_on(run(&Options::from_arguments()))
}

async fn run(options: &Options) -> anyhow::Result<()> {
    let nats = Nats::start().await;
    let redis = Redis::start().await;
    let servers = Servers {
        nats: nats.url(),
        redis: redis.url(),
    };
    let mut report = Report::new();

    let start = |kind| Provider::start(kind, &servers, None, &[]);
    let mut kvredis = start(ProviderKind::Kvredis)?;
    let mut baseline = start(ProviderKind::SdkBaseline)?;
    Workload::prepare(&mut kvredis)?;
    for workload in options.select(Workload::all()) {
        let rounds = workload.compare(&mut kvredis, &mut baseline)?;
        let retries: usize = rounds.iter().map(|[kvredis, _]| kvredis.retries).sum();
        ensure!(retries == 0, "kvredis lost {retries} calls");
        report.add_rounds(&workload, &rounds);
    }
    cache::compare(&servers, &redis, options, &mut report).await?;
    if !options.filters.is_empty() {
        return Ok(());
    }
    compare_telemetry(&servers, options, &mut baseline, &mut report)?;
    // Last, when the providers' memory has grown to its working size.
    compare_memory(options, &mut kvredis, &mut baseline, &mut report)?;
    drop((kvredis, baseline));
    compare_startup(&servers, &mut report)?;
    report.write(Path::new(if options.quick {
        "target/bench-quick"
    } else {
        "docs"
    }))
}

/// Compares kvredis exporting traces and metrics with the SDK baseline exporting nothing.
fn compare_telemetry(
    servers: &Servers,
    options: &Options,
    baseline: &mut Provider,
    report: &mut Report,
) -> anyhow::Result<()> {
    let collector = collector::start()?;
    let mut kvredis = Provider::start(ProviderKind::Kvredis, servers, Some(&collector.url), &[])?;
    let workload = Workload {
        metrics: vec![Metric::cpu(Some(Target::RatioAtMost(1.0)))],
        ..Workload::single_keys(64)
    };
    for workload in options.select(vec![workload]) {
        let rounds = workload.compare(&mut kvredis, baseline)?;
        ensure!(collector.has_traces(), "no traces were exported");
        report.add_telemetry_rounds(&workload, &rounds);
    }
    Ok(())
}

fn compare_memory(
    options: &Options,
    kvredis: &mut Provider,
    baseline: &mut Provider,
    report: &mut Report,
) -> anyhow::Result<()> {
    let calls = if options.quick {
        MEMORY_CALLS_QUICK
    } else {
        MEMORY_CALLS
    };
    let workload = Workload::single_keys(64);
    let growth = |provider: &mut Provider| {
        provider.reconnect()?;
        let before = provider.resident_memory()?;
        provider
            .client
            .run(&workload.operations, workload.in_flight, calls)?;
        let grown = provider.resident_memory()?.saturating_sub(before);
        anyhow::Ok(grown as f64 / calls as f64)
    };
    report.add(Comparison {
        workload: format!("{}, {calls} calls", workload.label()),
        metric: "growth of resident memory per call (bytes)".to_owned(),
        values: [growth(kvredis)?, growth(baseline)?],
        target: Some(Target::AtMost(1.0)),
    });
    Ok(())
}

fn compare_startup(servers: &Servers, report: &mut Report) -> anyhow::Result<()> {
    let milliseconds = |kind| {
        let provider = Provider::start(kind, servers, None, &[])?;
        anyhow::Ok(provider.time_to_first_response.as_secs_f64() * 1e3)
    };
    let (mut kvredis, mut baseline) = (Vec::new(), Vec::new());
    for _ in 0..STARTS {
        kvredis.push(milliseconds(ProviderKind::Kvredis)?);
        baseline.push(milliseconds(ProviderKind::SdkBaseline)?);
    }
    report.add(Comparison {
        workload: "start of the process".to_owned(),
        metric: "time to first response (ms)".to_owned(),
        values: [median(&mut kvredis), median(&mut baseline)],
        target: Some(Target::RatioAtMost(1.0)),
    });
    Ok(())
}
