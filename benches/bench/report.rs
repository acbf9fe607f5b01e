//! The results: rows on the terminal while measuring, then the page, its plots and the data file.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::comparison::Comparison;
use crate::load::median;
use crate::plot;
use crate::workload::{RoundStats, Workload};

const BASELINE: [&str; 2] = ["kvredis", "SDK baseline"];
const CACHE: [&str; 2] = ["kvredis with cache", "kvredis without cache"];
const TELEMETRY: [&str; 2] = ["kvredis with telemetry", "SDK baseline"];

/// The results so far.
pub struct Report {
    baseline: Vec<Comparison>,
    cache: Vec<Comparison>,
    /// The data file.
    rounds: String,
}

impl Report {
    pub fn new() -> Self {
        Self {
            baseline: Vec::new(),
            cache: Vec::new(),
            rounds:
                "workload,in_flight,provider,round,cpu_us,p50_us,p99_us,calls_per_second,retries\n"
                    .to_owned(),
        }
    }

    /// Adds a comparison of kvredis with the SDK baseline.
    pub fn add(&mut self, comparison: Comparison) {
        println!("{}", comparison.row());
        self.baseline.push(comparison);
    }

    /// Adds the rounds of kvredis and the SDK baseline.
    pub fn add_rounds(&mut self, workload: &Workload, rounds: &[[RoundStats; 2]]) {
        self.record(workload, BASELINE, rounds);
        for comparison in summarize(workload, rounds) {
            self.add(comparison);
        }
    }

    /// Adds the rounds of kvredis that exports traces and metrics, and of the SDK baseline.
    pub fn add_telemetry_rounds(&mut self, workload: &Workload, rounds: &[[RoundStats; 2]]) {
        self.record(workload, TELEMETRY, rounds);
        for mut comparison in summarize(workload, rounds) {
            comparison.workload.push_str(", with telemetry");
            self.add(comparison);
        }
    }

    /// Adds the rounds of kvredis with and without its cache.
    pub fn add_cache_rounds(&mut self, workload: &Workload, rounds: &[[RoundStats; 2]]) {
        self.record(workload, CACHE, rounds);
        for comparison in summarize(workload, rounds) {
            println!("{}", comparison.row());
            self.cache.push(comparison);
        }
    }

    fn record(&mut self, workload: &Workload, names: [&str; 2], rounds: &[[RoundStats; 2]]) {
        for (round, stats) in rounds.iter().enumerate() {
            for (name, stats) in names.into_iter().zip(stats) {
                let RoundStats {
                    cpu,
                    p50,
                    p99,
                    throughput,
                    retries,
                } = stats;
                writeln!(
                    self.rounds,
                    "{},{},{name},{round},{cpu:.2},{p50:.0},{p99:.0},{throughput:.0},{retries}",
                    workload.name, workload.in_flight
                )
                .expect("writing to a string cannot fail");
            }
        }
    }

    /// Writes the page, its plots and the data file to a folder.
    pub fn write(&self, folder: &Path) -> anyhow::Result<()> {
        let mut page = String::from(INTRODUCTION);
        push_table(&mut page, ["kvredis", "SDK baseline"], &self.baseline);
        page.push_str(CACHE_SECTION);
        push_table(&mut page, ["with cache", "without cache"], &self.cache);
        write!(page, "\n## Machine and versions\n\n{}", machine())?;
        fs::create_dir_all(folder)?;
        for (name, text) in [
            ("performance.md", page),
            ("performance.csv", self.rounds.clone()),
            (
                "performance.svg",
                plot::bars(
                    "kvredis (blue) relative to the SDK baseline (gray)",
                    &self.baseline,
                ),
            ),
            (
                "performance-cache.svg",
                plot::bars(
                    "kvredis with cache (blue) relative to kvredis without (gray)",
                    &self.cache,
                ),
            ),
        ] {
            let path = folder.join(name);
            fs::write(&path, text)?;
            println!("wrote {}", path.display());
        }
        Ok(())
    }
}

/// The medians of the rounds, for each metric of the workload.
fn summarize(workload: &Workload, rounds: &[[RoundStats; 2]]) -> Vec<Comparison> {
    let median_of = |provider: usize, value: fn(&RoundStats) -> f64| {
        let mut values: Vec<f64> = rounds.iter().map(|stats| value(&stats[provider])).collect();
        median(&mut values)
    };
    workload
        .metrics
        .iter()
        .map(|metric| Comparison {
            workload: workload.label(),
            metric: metric.name.to_owned(),
            values: [median_of(0, metric.value), median_of(1, metric.value)],
            target: metric.target,
        })
        .collect()
}

fn push_table(page: &mut String, names: [&str; 2], comparisons: &[Comparison]) {
    let [first, second] = names;
    page.push_str(&format!(
        "| workload | metric | {first} | {second} | ratio | target | met |\n\
         |---|---|---|---|---|---|---|\n"
    ));
    for comparison in comparisons {
        page.push_str(&comparison.row());
        page.push('\n');
    }
}

const INTRODUCTION: &str = "# Performance

Generated by `make bench`; do not edit. [performance.csv](performance.csv) has the measurements of each round.

kvredis is compared with the *SDK baseline* (`benches/bench/baseline.rs`), a provider with the same functions that is built on
wasmCloud's provider SDK, the generated bindings and the redis crate's `ConnectionManager`. Both serve the same calls with the
same NATS and Redis servers, in alternating rounds; each value is the median of the rounds.

- In flight: the number of concurrent calls. Values have 100 bytes unless the workload says otherwise; the log level is `info`.
- CPU: user and kernel time of the provider's process. p50, p99: percentiles of the latency that the client measures.
- Ratio: the first provider's value divided by the second's. Compare ratios: absolute values depend on the machine.
- With telemetry: kvredis exports traces and metrics, the SDK baseline does not.
- The SDK baseline loses some of the calls whose parameters arrive in several messages. The client retries these calls.

![kvredis relative to the SDK baseline](performance.svg)

";

const CACHE_SECTION: &str = "
## The cache

kvredis with `CACHE_MAX_ENTRIES=10000` is compared with kvredis without a cache ([cache.md](cache.md)). Hot reads cycle through 100
keys. Keys read once are never requested again, which shows the overhead of the cache.

![kvredis with cache relative to kvredis without](performance-cache.svg)

";

fn machine() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown", |rest| rest.trim_start_matches(['\t', ' ', ':']));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!(
        "- {cores} cores: {model}\n- {}\n- {}\n- {}\n- kvredis {}\n",
        version("redis-server"),
        version("nats-server"),
        version("rustc"),
        env!("CARGO_PKG_VERSION")
    )
}

fn version(program: &str) -> String {
    let output = Command::new(program).arg("--version").output();
    output.map_or_else(
        |_| format!("{program}: unknown"),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}
