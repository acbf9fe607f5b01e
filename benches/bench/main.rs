//! `make bench`: kvredis against a provider built the usual way, in one run.
//!
//! The same NATS, the same Redis, the same caller; the providers take turns, round by round, and
//! the medians of the rounds are compared. What counts are the ratios.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod cache;
mod collector;
mod load;
mod report;
mod stock;
mod subject;
mod workload;

use anyhow::{Context as _, ensure};

use load::median;
use report::{Comparison, Report};
use subject::{Subject, Which};
use workload::{Figures, Workload};

/// How often each is measured.
pub const ROUNDS: usize = 5;
const MEMORY_CALLS: u64 = 1_000_000;
const STARTS: usize = 7;

/// kvredis with traces and metrics exported against the yardstick without.
fn with_telemetry(servers: &(String, String), stock: &mut Subject) -> anyhow::Result<Comparison> {
    let collector = collector::start()?;
    let first = Workload::first();
    let mut kvredis = Subject::start(
        Which::Kvredis,
        &servers.0,
        &servers.1,
        Some(&collector.url),
        &[],
        &first,
    )?;
    let workload = Workload::busy();
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        with.push(workload.round(&mut kvredis)?.cpu);
        without.push(workload.round(stock)?.cpu);
    }
    ensure!(collector.has_traces(), "no traces were exported");
    Ok(Comparison {
        name: "with traces and metrics exported, 64 in flight: CPU per call, us".to_owned(),
        kvredis: median(&mut with),
        stock: median(&mut without),
        target: Some(1.0),
        more_is_better: false,
    })
}

fn main() -> anyhow::Result<()> {
    if std::env::args().any(|argument| argument == "--serve-stock") {
        return stock::main();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let (nats, redis) = runtime.block_on(async {
        (
            test_support::nats::Nats::start().await,
            test_support::redis::Redis::start().await,
        )
    });
    let servers = (nats.url(), redis.url());
    let mut report = Report::default();

    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with("--"))
        .collect();
    let first = Workload::first();
    let start = |which| Subject::start(which, &servers.0, &servers.1, None, &[], &first);
    let mut kvredis = start(Which::Kvredis)?;
    let mut stock = start(Which::Stock)?;
    Workload::prepare(&mut kvredis)?;
    for workload in Workload::all() {
        if !words.is_empty() && !words.iter().any(|word| workload.name.contains(word)) {
            continue;
        }
        let mut rounds: Vec<(Figures, Figures)> = Vec::new();
        for _ in 0..workload.rounds() {
            rounds.push((
                workload.round(&mut kvredis).context("kvredis failed")?,
                workload.round(&mut stock).context("the yardstick failed")?,
            ));
        }
        let lost: usize = rounds.iter().map(|(kvredis, _)| kvredis.lost).sum();
        ensure!(lost == 0, "kvredis lost {lost} calls");
        report.add_workload(&workload, &rounds);
    }
    runtime.block_on(cache::fill(&redis));
    cache::compare(&servers, &words, &mut report)?;
    if !words.is_empty() {
        return Ok(());
    }
    report.add(with_telemetry(&servers, &mut stock)?);

    // Grown to their size by now; what a million calls more add is kept for ever.
    let mixed = Workload::mixed();
    for (which, subject) in [("kvredis", &mut kvredis), ("stock", &mut stock)] {
        subject.reconnect()?;
        let before = subject.resident()?;
        subject.caller.run(&mixed, 64, MEMORY_CALLS)?;
        let grown = subject.resident()?.saturating_sub(before);
        report.add_memory(which, grown as f64 / MEMORY_CALLS as f64);
    }
    drop((kvredis, stock));

    let mut starts = (Vec::new(), Vec::new());
    for _ in 0..STARTS {
        starts
            .0
            .push(start(Which::Kvredis)?.first_answer.as_secs_f64() * 1e3);
        starts
            .1
            .push(start(Which::Stock)?.first_answer.as_secs_f64() * 1e3);
    }
    report.add(Comparison {
        name: "from process start to the first answer, ms".to_owned(),
        kvredis: median(&mut starts.0),
        stock: median(&mut starts.1),
        target: Some(1.0),
        more_is_better: false,
    });
    report.finish()
}
