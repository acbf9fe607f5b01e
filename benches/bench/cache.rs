//! kvredis with the cache against kvredis without: keys that are read again and again, and keys
//! that are never read twice.

use anyhow::Context as _;
use test_support::redis::Redis;

use crate::load::{Operation, median};
use crate::report::{Comparison, Report};
use crate::subject::{Subject, Which};
use crate::workload::{Figures, Workload, read, value};

const CONFIG: &[(&str, &str)] = &[("CACHE_MAX_ENTRIES", "10000")];
/// Reads of a round of keys that are read once.
const ONCE: u64 = 15_000;

/// One figure, and what with / without is to be.
type Wanted = (&'static str, fn(&Figures) -> f64, Option<f64>, bool);

/// Writes the keys that are read once.
pub async fn fill(redis: &Redis) {
    let value = value();
    for chunk in (0..keys()).collect::<Vec<_>>().chunks(10_000) {
        let mut sets = redis::pipe();
        for key in chunk {
            sets.set(once(*key), &value).ignore();
        }
        redis.run_all(&sets).await;
    }
}

/// Measures it all, or those whose name holds one of the words.
pub fn compare(
    servers: &(String, String),
    words: &[String],
    report: &mut Report,
) -> anyhow::Result<()> {
    let first = Workload::first();
    let start = |config| {
        let (nats, redis) = servers;
        Subject::start(Which::Kvredis, nats, redis, None, config, &first)
    };
    let (mut with, mut without) = (start(CONFIG)?, start(&[])?);
    let busy: &[Wanted] = &[
        ("CPU per call, us", |f| f.cpu, Some(0.65), false),
        ("p50, us", |f| f.p50, None, false),
        ("calls per second", |f| f.rate, Some(1.25), true),
    ];
    let alone: &[Wanted] = &[
        ("CPU per call, us", |f| f.cpu, None, false),
        ("p50, us", |f| f.p50, Some(0.75), false),
    ];
    for (workload, wanted) in [
        (
            Workload::hot_reads("hot reads, 64 in flight", 64, 20_000),
            busy,
        ),
        (
            Workload::hot_reads("hot reads, 1 in flight", 1, 2_000),
            alone,
        ),
    ] {
        if !is_wanted(workload.name, words) {
            continue;
        }
        let mut rounds = Vec::new();
        for _ in 0..workload.rounds() {
            rounds.push((
                workload.round(&mut with).context("with the cache")?,
                workload.round(&mut without).context("without the cache")?,
            ));
        }
        add(report, workload.name, &rounds, wanted);
    }
    let once = never_twice();
    if is_wanted(once.name, words) {
        let mut rounds = Vec::new();
        for round in 0..=once.rounds() as u64 {
            let first = round * ONCE;
            let reads: Vec<Operation> = (first..first + ONCE)
                .map(|key| read(&self::once(key)))
                .collect();
            // Who comes second finds the keys in the processor's memory: they take turns in that, too.
            let figures = if round % 2 == 0 {
                let with = measure(&once, &reads, &mut with)?;
                (with, measure(&once, &reads, &mut without)?)
            } else {
                let without = measure(&once, &reads, &mut without)?;
                (measure(&once, &reads, &mut with)?, without)
            };
            // The first one fills the cache.
            if round > 0 {
                rounds.push(figures);
            }
        }
        let wanted: &[Wanted] = &[
            ("CPU per call, us", |f| f.cpu, Some(1.1), false),
            ("calls per second", |f| f.rate, None, true),
        ];
        add(report, once.name, &rounds, wanted);
    }
    Ok(())
}

fn measure(
    workload: &Workload,
    reads: &[Operation],
    subject: &mut Subject,
) -> anyhow::Result<Figures> {
    subject.reconnect()?;
    workload.measure(reads, subject)
}

fn add(report: &mut Report, name: &str, rounds: &[(Figures, Figures)], wanted: &[Wanted]) {
    report.add_rounds(name, ["with cache", "without"], rounds);
    for (what, figure, target, more_is_better) in wanted {
        let mut with: Vec<f64> = rounds.iter().map(|(with, _)| figure(with)).collect();
        let mut without: Vec<f64> = rounds.iter().map(|(_, without)| figure(without)).collect();
        report.add_cache(Comparison {
            name: format!("{name}: {what}"),
            kvredis: median(&mut with),
            stock: median(&mut without),
            target: *target,
            more_is_better: *more_is_better,
        });
    }
}

fn is_wanted(name: &str, words: &[String]) -> bool {
    words.is_empty() || words.iter().any(|word| name.contains(word))
}

/// Its operations are others in each round.
fn never_twice() -> Workload {
    Workload::hot_reads("keys that are never read twice, 64 in flight", 64, ONCE)
}

fn keys() -> u64 {
    (never_twice().rounds() as u64 + 1) * ONCE
}

fn once(key: u64) -> String {
    format!("once-{key:07}")
}
