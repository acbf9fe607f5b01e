//! The results: the table on the terminal, the page, and the picture.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use crate::load::median;
use crate::workload::{Figures, Workload};

/// One figure of both providers, or of kvredis with the cache and without.
pub struct Comparison {
    /// What it is, with its unit.
    pub name: String,
    /// Measured of kvredis, or with the cache.
    pub kvredis: f64,
    /// Measured of the yardstick, or without the cache.
    pub stock: f64,
    /// What kvredis / stock is to be: at most, or at least where more is better.
    pub target: Option<f64>,
    /// Whether a larger figure is the better one.
    pub more_is_better: bool,
}

/// All that was measured.
#[derive(Default)]
pub struct Report {
    comparisons: Vec<Comparison>,
    cache: Vec<Comparison>,
    memory: Vec<(&'static str, f64)>,
    raw: String,
}

impl Comparison {
    fn ratio(&self) -> f64 {
        self.kvredis / self.stock
    }

    fn met(&self) -> &'static str {
        match self.target {
            None => "",
            Some(target) if self.more_is_better && self.ratio() >= target => "yes",
            Some(target) if !self.more_is_better && self.ratio() <= target => "yes",
            Some(_) => "no",
        }
    }

    fn row(&self) -> String {
        let target = match (self.target, self.more_is_better) {
            (None, _) => String::new(),
            (Some(target), true) => format!(">= {target}"),
            (Some(target), false) => format!("<= {target}"),
        };
        format!(
            "| {} | {:.1} | {:.1} | {:.2} | {target} | {} |",
            self.name,
            self.kvredis,
            self.stock,
            self.ratio(),
            self.met()
        )
    }
}

impl Report {
    /// Adds a comparison, and prints it.
    pub fn add(&mut self, comparison: Comparison) {
        println!("{}", comparison.row());
        self.comparisons.push(comparison);
    }

    /// Adds a comparison of kvredis with the cache and without, and prints it.
    pub fn add_cache(&mut self, comparison: Comparison) {
        println!("{}", comparison.row());
        self.cache.push(comparison);
    }

    /// Adds the rounds of a workload.
    pub fn add_workload(&mut self, workload: &Workload, rounds: &[(Figures, Figures)]) {
        let name = workload.name;
        self.add_rounds(name, ["kvredis", "stock"], rounds);
        let mut add = |what: &str, figure: fn(&Figures) -> f64, target, more_is_better| {
            let mut kvredis: Vec<f64> = rounds.iter().map(|(kvredis, _)| figure(kvredis)).collect();
            let mut stock: Vec<f64> = rounds.iter().map(|(_, stock)| figure(stock)).collect();
            self.add(Comparison {
                name: format!("{name}: {what}"),
                kvredis: median(&mut kvredis),
                stock: median(&mut stock),
                target,
                more_is_better,
            });
        };
        let large = workload.is_large();
        let (cpu, p50, rate) = match (workload.keys, workload.in_flight) {
            (2.., _) => (Some(0.6), None, None),
            _ if large => (Some(0.7), None, None),
            (_, 1) => (Some(0.4), Some(0.75), None),
            (_, 64) => (Some(0.33), Some(0.6), Some(1.7)),
            (_, 256) => (None, None, Some(1.7)),
            _ => (None, None, None),
        };
        let unit = if workload.keys > 1 { "key" } else { "call" };
        add(&format!("CPU per {unit}, us"), |f| f.cpu, cpu, false);
        if !large && workload.keys == 1 {
            add("p50, us", |f| f.p50, p50, false);
            add("p99, us", |f| f.p99, None, false);
            add("calls per second", |f| f.rate, rate, true);
        }
    }

    /// Adds the figures of all rounds of two who are compared.
    pub fn add_rounds(&mut self, name: &str, who: [&str; 2], rounds: &[(Figures, Figures)]) {
        for (round, (one, other)) in rounds.iter().enumerate() {
            for (who, figures) in who.into_iter().zip([one, other]) {
                let Figures {
                    cpu,
                    p50,
                    p99,
                    rate,
                    lost,
                } = figures;
                writeln!(
                    self.raw,
                    "| {name} | {round} | {who} | {cpu:.2} | {p50:.0} | {p99:.0} | {rate:.0} | \
                     {lost} |"
                )
                .expect("a string takes text");
            }
        }
    }

    /// Adds the memory that each call of a million left behind, in bytes.
    pub fn add_memory(&mut self, who: &'static str, bytes: f64) {
        println!("resident memory kept per call, {who}: {bytes:.2} bytes");
        self.memory.push((who, bytes));
    }

    /// Writes `docs/performance.md` and its picture.
    pub fn finish(self) -> anyhow::Result<()> {
        let mut page = String::from(PAGE);
        page.push_str("| | kvredis | stock | kvredis / stock | target | met |\n");
        page.push_str("|---|---|---|---|---|---|\n");
        for comparison in &self.comparisons {
            writeln!(page, "{}", comparison.row())?;
        }
        for (who, bytes) in &self.memory {
            let (target, met) = match *who {
                "kvredis" => ("<= 1 byte", if *bytes <= 1.0 { "yes" } else { "no" }),
                _ => ("", ""),
            };
            let what = "resident memory kept per call of a million, bytes";
            writeln!(
                page,
                "| {what}: {who} | {bytes:.2} | | | {target} | {met} |"
            )?;
        }
        page.push_str(CACHE);
        page.push_str("| | with cache | without | with / without | target | met |\n");
        page.push_str("|---|---|---|---|---|---|\n");
        for comparison in &self.cache {
            writeln!(page, "{}", comparison.row())?;
        }
        writeln!(page, "\n## Machine and versions\n\n{}", machine())?;
        writeln!(page, "## Rounds\n")?;
        page.push_str(
            "| workload | round | provider | CPU us | p50 us | p99 us | calls/s | lost |\n",
        );
        page.push_str("|---|---|---|---|---|---|---|---|\n");
        page.push_str(&self.raw);
        fs::create_dir_all("docs")?;
        fs::write("docs/performance.md", page)?;
        fs::write("docs/performance.svg", self.picture()?)?;
        println!("\nwritten to docs/performance.md and docs/performance.svg");
        Ok(())
    }

    /// Two bars for each comparison that has a target, the yardstick's at full length.
    fn picture(&self) -> Result<String, std::fmt::Error> {
        const ROW: usize = 34;
        let shown: Vec<&Comparison> = self
            .comparisons
            .iter()
            .filter(|c| c.target.is_some())
            .collect();
        let height = 40 + shown.len() * ROW;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"840\" height=\"{height}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"840\" height=\"{height}\" fill=\"#fff\"/>\n\
             <text x=\"10\" y=\"20\">kvredis (blue) as a share of a provider built the usual way \
             (grey)</text>\n"
        );
        for (index, comparison) in shown.iter().enumerate() {
            let top = 34 + index * ROW;
            let longest = comparison.ratio().max(1.0);
            let stock = 330.0 / longest;
            let kvredis = stock * comparison.ratio();
            writeln!(
                svg,
                "<text x=\"410\" y=\"{}\" text-anchor=\"end\">{}</text>\n\
                 <rect x=\"420\" y=\"{top}\" width=\"{kvredis:.0}\" height=\"12\" fill=\"#2a6fdb\"/>\n\
                 <rect x=\"420\" y=\"{}\" width=\"{stock:.0}\" height=\"8\" fill=\"#bbb\"/>\n\
                 <text x=\"{:.0}\" y=\"{}\">{:.2}</text>",
                top + 14,
                comparison.name,
                top + 14,
                426.0 + stock.max(kvredis),
                top + 14,
                comparison.ratio(),
            )?;
        }
        svg.push_str("</svg>\n");
        Ok(svg)
    }
}

const PAGE: &str = "# Performance\n\n\
Written by `make bench`; do not edit. kvredis against *stock*, a provider built the usual way \
(`benches/bench/stock.rs`): the same operations on the same Redis and the same NATS, the same \
callers, the providers taking turns, medians of the rounds, values of 100 bytes where nothing else \
is said, log level `info`. CPU is the kernel's accounting of the provider's process. Compare the \
ratios; the figures themselves are those of the machine. The yardstick loses calls whose \
parameters come in several messages; the callers make them again, and the rounds below count \
them.\n\n\
![kvredis and stock](performance.svg)\n\n";

const CACHE: &str = "\n## The cache\n\n\
kvredis with `CACHE_MAX_ENTRIES=10000` against itself without: hot reads are of 100 keys in turn; \
the others are of keys that nobody reads a second time, so that every read makes room for itself. \
See [cache.md](cache.md).\n\n";

fn machine() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown", |rest| rest.trim_start_matches(['\t', ' ', ':']));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!(
        "- {cores} cores: {model}\n- {}\n- {}\n- {}\n- kvredis {}\n",
        version("redis-server", "--version"),
        version("nats-server", "--version"),
        version("rustc", "--version"),
        env!("CARGO_PKG_VERSION")
    )
}

fn version(program: &str, flag: &str) -> String {
    let output = Command::new(program).arg(flag).output();
    output.map_or_else(
        |_| format!("{program}: unknown"),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}
