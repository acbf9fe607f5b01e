//! `lattice demo`: deploys the component of `examples/counter`, which counts in Redis through kvredis.

use std::env;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use lattice::nats::free_port;
use lattice::{Lattice, Options, Progress, http, interrupt, manifest};

/// The addresses in the manifest, which are meant for `wash`; the demo replaces them with free ports.
const MANIFEST_HTTP: &str = "127.0.0.1:8000";
const MANIFEST_REDIS: &str = "redis://127.0.0.1:6379";

const CALLS: u32 = 3;
const KEY: &str = "visits";

/// The arguments of `lattice demo`.
#[derive(Debug, clap::Args)]
pub struct Demo {
    /// The manifest to deploy
    #[arg(long, default_value = "local.wadm.yaml")]
    manifest: PathBuf,
    /// Exit after checking the counts, instead of waiting for Ctrl-C
    #[arg(long)]
    check: bool,
}

impl Demo {
    /// Starts a lattice, deploys the manifest and calls the counter. Without `--check`, the lattice then
    /// runs until Ctrl-C.
    pub async fn run(&self) -> Result<()> {
        let progress = Progress::start();
        let http = format!("127.0.0.1:{}", free_port()?);
        let lattice = interrupt::exit_on_signal(self.start(&http, &progress)).await?;
        if !self.check {
            print_processes(&lattice, &http);
            let signal = interrupt::wait_for_signal().await?;
            progress.print(format_args!("{signal}: stopping"));
        }
        drop(lattice);
        progress.print("all processes stopped, temporary files removed");
        Ok(())
    }

    async fn start(&self, http: &str, progress: &Progress) -> Result<Lattice> {
        let options = Options {
            program: env::current_exe()?,
            wadm: true,
            secrets: false,
        };
        let lattice = Lattice::start(&options, progress).await?;
        if let Err(error) = self.deploy_and_call(&lattice, http, progress).await {
            lattice.show_logs();
            return Err(error);
        }
        Ok(lattice)
    }

    async fn deploy_and_call(
        &self,
        lattice: &Lattice,
        http: &str,
        progress: &Progress,
    ) -> Result<()> {
        let redis = lattice.redis().url();
        progress.print(format_args!(
            "deploying {} with {http} instead of {MANIFEST_HTTP} and {redis} instead of {MANIFEST_REDIS}",
            self.manifest.display()
        ));
        let manifest = manifest::load(
            &self.manifest,
            &[(MANIFEST_HTTP, http), (MANIFEST_REDIS, &redis)],
        )?;
        lattice.deploy(&manifest, progress).await?;

        let url = format!("http://{http}/?key={KEY}");
        for count in 1..=CALLS {
            let body = if count == 1 {
                http::get_when_ready(&url).await?
            } else {
                http::get(&url).await?.body
            };
            progress.print(format_args!("curl '{url}'  ->  {body}"));
            ensure!(body == count.to_string(), "call {count} returned {body:?}");
        }
        let command = ["GET", KEY];
        let stored = lattice.redis().cli(&command)?;
        progress.print(format_args!(
            "{}  ->  {stored}",
            lattice.redis().cli_command(&command)
        ));
        ensure!(stored == CALLS.to_string(), "Redis has stored {stored:?}");
        progress.print("counts verified");
        Ok(())
    }
}

fn print_processes(lattice: &Lattice, http: &str) {
    println!("\nProcesses of lattice {}:", lattice.name());
    for process in lattice.processes() {
        println!(
            "  {:<6} pid {:<8} log {}",
            process.name(),
            process.id(),
            process.log().display()
        );
    }
    println!(
        "  The providers kvredis and http-server are children of the host and log to its file."
    );
    println!("\nTry:");
    println!("  curl 'http://{http}/?key={KEY}'");
    println!("  {}", lattice.redis().cli_command(&["MONITOR"]));
    println!(
        "  wash app list --ctl-port {} --lattice {}   (requires wash)",
        lattice.nats().port(),
        lattice.name()
    );
    println!("\nCtrl-C stops all processes and removes the files.");
}
