//! The program `lattice`: packs provider archives, shows the demo, and runs the parts of a lattice
//! that [`lattice::Lattice`] starts as processes.

mod demo;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use lattice::archive::{self, Pack};
use lattice::serve::{self, Place};

/// A real wasmCloud lattice on one machine
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a provider archive
    Pack(Pack),
    /// Deploy a manifest in a new lattice, call it, and keep it running until Ctrl-C
    Demo(demo::Demo),
    /// Run a wasmCloud host
    #[command(hide = true)]
    Host(Place),
    /// Run wadm
    #[command(hide = true)]
    Wadm(Place),
    /// Run the secrets backend
    #[command(hide = true)]
    Secrets(Place),
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
        Command::Pack(pack) => {
            let key = archive::pack(&pack).await?;
            println!("{} ({key})", pack.out.display());
            Ok(())
        }
        Command::Demo(demo) => demo.run().await,
        Command::Host(place) => serve::host(&place).await,
        Command::Wadm(place) => serve::wadm(&place).await,
        Command::Secrets(place) => serve::secrets_backend(&place).await,
    }
}
