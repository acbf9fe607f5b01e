//! The program `lattice`: packs provider archives, runs the demo, and runs the processes that
//! [`lattice::Lattice`] starts.

mod demo;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use lattice::archive::{self, PackArgs};
use lattice::serve::{self, ServeArgs};

/// A real wasmCloud lattice on one machine
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Create a provider archive
    Pack(PackArgs),
    /// Deploy a manifest in a new lattice, call its component, and run until Ctrl-C
    Demo(demo::Demo),
    /// Run a wasmCloud host
    #[command(hide = true)]
    Host(ServeArgs),
    /// Run wadm
    #[command(hide = true)]
    Wadm(ServeArgs),
    /// Run the secrets backend
    #[command(hide = true)]
    Secrets(ServeArgs),
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse().command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<()> {
    match command {
        Command::Pack(args) => {
            let key = archive::pack(&args).await?;
            println!("wrote {} (public key {key})", args.out.display());
            Ok(())
        }
        Command::Demo(demo) => demo.run().await,
        Command::Host(args) => serve::host(&args).await,
        Command::Wadm(args) => serve::wadm(&args).await,
        Command::Secrets(args) => serve::secrets_backend(&args).await,
    }
}
