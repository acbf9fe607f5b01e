//! kvredis with its cache compared to kvredis without: keys that are read repeatedly, and keys that
//! are read once.

use test_support::redis::Redis;

use crate::Options;
use crate::comparison::Target::{RatioAtLeast, RatioAtMost};
use crate::operation::{Operation, VALUE_BYTES, get, value};
use crate::provider::{Provider, ProviderKind, Servers};
use crate::report::Report;
use crate::workload::{Metric, RoundStats, Workload};

const CONFIG: &[(&str, &str)] = &[("CACHE_MAX_ENTRIES", "10000")];
const READ_ONCE_CALLS: u64 = 15_000;
const PIPELINE: usize = 10_000;

/// Measures the workloads that the filters select.
pub async fn compare(
    servers: &Servers,
    redis: &Redis,
    options: &Options,
    report: &mut Report,
) -> anyhow::Result<()> {
    let start = |config| Provider::start(ProviderKind::Kvredis, servers, None, config);
    let (mut with, mut without) = (start(CONFIG)?, start(&[])?);
    for workload in options.select(hot_reads()) {
        let rounds = workload.compare(&mut with, &mut without)?;
        report.add_cache_rounds(&workload, &rounds);
    }
    for workload in options.select(vec![read_once()]) {
        // The keys of one more round, which fills the cache.
        write_keys(redis, (workload.rounds as u64 + 1) * workload.calls).await;
        let rounds = compare_read_once(&workload, &mut with, &mut without)?;
        report.add_cache_rounds(&workload, &rounds);
    }
    Ok(())
}

fn hot_reads() -> Vec<Workload> {
    vec![
        Workload {
            metrics: vec![
                Metric::cpu(Some(RatioAtMost(0.65))),
                Metric::p50(None),
                Metric::throughput(Some(RatioAtLeast(1.25))),
            ],
            ..Workload::hot_reads(64, 20_000)
        },
        Workload {
            metrics: vec![Metric::cpu(None), Metric::p50(Some(RatioAtMost(0.75)))],
            ..Workload::hot_reads(1, 2_000)
        },
    ]
}

fn read_once() -> Workload {
    Workload {
        name: "keys read once",
        operations: Vec::new(),
        metrics: vec![
            Metric::cpu(Some(RatioAtMost(1.1))),
            Metric::throughput(None),
        ],
        ..Workload::hot_reads(64, READ_ONCE_CALLS)
    }
}

/// Each round reads other keys, so its operations are not those of the workload.
fn compare_read_once(
    workload: &Workload,
    with: &mut Provider,
    without: &mut Provider,
) -> anyhow::Result<Vec<[RoundStats; 2]>> {
    let mut rounds = Vec::new();
    for round in 0..=workload.rounds as u64 {
        let first = round * workload.calls;
        let reads: Vec<Operation> = (first..first + workload.calls)
            .map(|index| get(&key(index), VALUE_BYTES))
            .collect();
        let measure = |provider: &mut Provider| {
            provider.reconnect()?;
            workload.measure(&reads, provider)
        };
        // The provider that reads second finds the keys in the CPU's caches: the order alternates.
        let stats = if round % 2 == 0 {
            let with = measure(with)?;
            [with, measure(without)?]
        } else {
            let without = measure(without)?;
            [measure(with)?, without]
        };
        // The first round fills the cache.
        if round > 0 {
            rounds.push(stats);
        }
    }
    Ok(rounds)
}

async fn write_keys(redis: &Redis, count: u64) {
    let value = value(VALUE_BYTES);
    for chunk in (0..count).collect::<Vec<_>>().chunks(PIPELINE) {
        let mut sets = redis::pipe();
        for index in chunk {
            sets.set(key(*index), &value).ignore();
        }
        redis.run_pipeline(&sets).await;
    }
}

fn key(index: u64) -> String {
    format!("once-{index:07}")
}
