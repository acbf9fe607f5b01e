//! `lattice demo`: the counter of `examples/counter`, counting in Redis through kvredis.

use std::env;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use lattice::nats::free_port;
use lattice::{Lattice, Options, Progress, http, interrupt, manifest};

/// The addresses in the manifest, for those who deploy it with `wash`.
const MANIFEST_HTTP: &str = "127.0.0.1:8000";
const MANIFEST_REDIS: &str = "redis://127.0.0.1:6379";

/// How often the counter is called.
const CALLS: u32 = 3;
const KEY: &str = "visits";

/// The demo's arguments.
#[derive(Debug, clap::Args)]
pub struct Demo {
    /// The manifest to deploy
    #[arg(long, default_value = "local.wadm.yaml")]
    manifest: PathBuf,
    /// End with an error where the counts are wrong, instead of waiting for Ctrl-C
    #[arg(long)]
    check: bool,
}

impl Demo {
    /// Starts a lattice, deploys, calls, shows; then waits for Ctrl-C, but for `--check`.
    pub async fn run(&self) -> Result<()> {
        let progress = Progress::start();
        let http = format!("127.0.0.1:{}", free_port()?);
        let lattice = interrupt::guard(self.start(&http, &progress)).await?;
        if !self.check {
            tell_what_runs(&lattice, &http);
            let signal = interrupt::signalled().await?;
            progress.say(format_args!("{signal}: stopping"));
        }
        drop(lattice);
        progress.say("all stopped, temporary files removed");
        Ok(())
    }

    async fn start(&self, http: &str, progress: &Progress) -> Result<Lattice> {
        let options = Options {
            program: env::current_exe()?,
            wadm: true,
            secrets: false,
        };
        let lattice = Lattice::start(&options, progress).await?;
        if let Err(error) = self.show(&lattice, http, progress).await {
            lattice.show_logs();
            return Err(error);
        }
        Ok(lattice)
    }

    async fn show(&self, lattice: &Lattice, http: &str, progress: &Progress) -> Result<()> {
        let redis = lattice.redis().url();
        progress.say(format_args!(
            "{} with {MANIFEST_HTTP} replaced by {http} and {MANIFEST_REDIS} by {redis}",
            self.manifest.display()
        ));
        let manifest = manifest::load(
            &self.manifest,
            &[(MANIFEST_HTTP, http), (MANIFEST_REDIS, &redis)],
        )?;
        lattice.deploy(&manifest, progress).await?;

        let url = format!("http://{http}/?key={KEY}");
        for count in 1..=CALLS {
            let answer = if count == 1 {
                http::get_when_ready(&url).await?
            } else {
                http::get(&url).await?.body
            };
            progress.say(format_args!("curl '{url}'  ->  {answer}"));
            ensure!(
                answer == count.to_string(),
                "call {count} answered {answer:?}"
            );
        }
        let words = ["GET", KEY];
        let stored = lattice.redis().cli(&words)?;
        progress.say(format_args!(
            "{}  ->  {stored}",
            lattice.redis().cli_words(&words)
        ));
        ensure!(stored == CALLS.to_string(), "Redis holds {stored:?}");
        progress.say("the counter counts");
        Ok(())
    }
}

fn tell_what_runs(lattice: &Lattice, http: &str) {
    println!("\nRunning now, in lattice {}:", lattice.name());
    for process in lattice.processes() {
        println!(
            "  {:<6} pid {:<8} log {}",
            process.name(),
            process.id(),
            process.log().display()
        );
    }
    println!("  The providers kvredis and http-server are children of the host; they log there.");
    println!("\nTry it:");
    println!("  curl 'http://{http}/?key={KEY}'");
    println!("  {}", lattice.redis().cli_words(&["MONITOR"]));
    println!(
        "  wash app list --ctl-port {} --lattice {}   (if you have wash)",
        lattice.nats().port(),
        lattice.name()
    );
    println!("\nCtrl-C stops all of it and removes the files.");
}
