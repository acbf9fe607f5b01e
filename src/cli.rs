//! The command line: reads what the host says on standard input and runs the provider; or runs one
//! of the commands for people, which `check` and `settings::listing` carry out.

use std::env;
use std::io::{self, IsTerminal, Write as _, stdin, stdout};
use std::process::ExitCode;

use crate::provider::host_data::{self, HostDataError};
use crate::settings::{render, schema};
use crate::{check, provider, telemetry};
use clap::{Parser, Subcommand};
use wasmcloud_provider_sdk::HostData;

/// The exit code for a start that cannot work, as of `sysexits` and most command lines.
const USAGE: u8 = 2;

/// wasi:keyvalue on Redis and Valkey, as a wasmCloud 1.x capability provider.
///
/// A wasmCloud host starts it, and tells it on standard input what it needs to know; there is
/// nothing to be set on the command line. Start it with `wash start provider <image> kvredis`, or
/// with your application: `wash app deploy wadm.yaml`. The commands below are for people.
#[derive(Parser)]
#[command(version = env!("KVREDIS_VERSION"), after_help = "\
Examples:
  kvredis check redis://10.0.0.7:6379 PREFIX=orders/
  kvredis settings
  wash start provider ghcr.io/kvredis/kvredis:0.1.0 kvredis")]
struct Arguments {
    #[command(subcommand)]
    command: Option<CliCommand>,
}

#[derive(Subcommand)]
enum CliCommand {
    /// Try a connection as a link would, and say what was found; nothing is changed in Redis.
    ///
    /// One line for each finding: the settings, the connection, TLS, the log-in, the server, what
    /// the ACL forbids that this link needs, notifications, latency. Under each failure stands what
    /// to do. Exit code 0: a link with these settings would fully work; 1: it would not; 2: the
    /// command line is wrong.
    #[command(after_help = "\
Examples:
  kvredis check redis://10.0.0.7:6379
  kvredis check rediss://redis.example USERNAME=orders PASSWORD_FILE=/run/secrets/redis
  kvredis check 'redis-sentinel://s1:26379?sentinelServiceName=main&node=s2:26379' READ_ONLY=true
  kvredis check redis-cluster://10.0.0.7 'WATCH=SET@orders:*' --json

Others on the machine can see a command line: a password is better in a file (PASSWORD_FILE).

With --json it prints one object: `works` (a boolean), `address` (without credentials), `version` (of
kvredis) and `findings`, each with `name`, `status` (ok, info, warning, failed), `text`, `advice` (or
null) and `details`, whose fields docs/check.md lists.")]
    Check {
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
        /// What to connect to, and the settings of the link; `kvredis settings` lists them.
        #[arg(value_name = "URL | NAME=VALUE", required = true)]
        settings: Vec<String>,
    },
    /// List every setting: default, meaning, example.
    Settings {
        /// Print a JSON schema (draft 2020-12) of a link's or provider's configuration.
        #[arg(long)]
        json: bool,
        /// Print the tables of the documentation.
        #[arg(long, hide = true, conflicts_with = "json")]
        markdown: bool,
    },
}

/// Runs what the command line asks for: the provider, or one of the commands for people.
#[must_use]
pub fn main() -> ExitCode {
    let Arguments { command } = Arguments::parse();
    let done = match command {
        None => return start(),
        Some(CliCommand::Check { json, settings }) => run_check(&settings, json),
        Some(CliCommand::Settings { json: true, .. }) => {
            print(&format!("{:#}\n", schema::schema())).map(|()| ExitCode::SUCCESS)
        }
        Some(CliCommand::Settings { markdown: true, .. }) => {
            print(&render::markdown()).map(|()| ExitCode::SUCCESS)
        }
        Some(CliCommand::Settings { .. }) => {
            print(&format!("{}\n", render::table())).map(|()| ExitCode::SUCCESS)
        }
    };
    done.unwrap_or_else(|error| {
        eprintln!("kvredis: {error:#}");
        ExitCode::FAILURE
    })
}

/// Runs the provider, as a host starts it.
fn start() -> ExitCode {
    let host_data = match read_host_data() {
        Ok(host_data) => host_data,
        Err(missing) => {
            eprintln!("{}", in_words(&missing));
            return ExitCode::from(USAGE);
        }
    };
    match serve(host_data) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kvredis: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn read_host_data() -> Result<HostData, HostDataError> {
    if stdin().is_terminal() {
        return Err(HostDataError::Nothing);
    }
    host_data::read(stdin().lock())
}

fn serve(host_data: HostData) -> anyhow::Result<()> {
    let runtime = runtime()?;
    let done = runtime.block_on(telemetry::run(&host_data, provider::run(&host_data)));
    // Looking up a name may still be under way, in a thread that nobody can stop.
    runtime.shutdown_background();
    done
}

/// One thread: calls wait for NATS and Redis, not for each other, and waking threads costs more
/// than what a call needs.
fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}

fn run_check(settings: &[String], json: bool) -> anyhow::Result<ExitCode> {
    let sources = match check::arguments::sources(settings) {
        Ok(sources) => sources,
        Err(wrong) => {
            eprintln!("kvredis check: {wrong}; see `kvredis check --help`");
            return Ok(ExitCode::from(USAGE));
        }
    };
    let runtime = runtime()?;
    let report = runtime.block_on(check::check(&sources));
    // A look-up of a name may still hang; nobody waits for it any more.
    runtime.shutdown_background();
    if json {
        print(&format!("{:#}\n", report.json()))?;
    } else {
        let no_colour = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        print(&report.text(stdout().is_terminal() && !no_colour))?;
    }
    Ok(if report.works() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Prints; a reader that has gone, such as `head`, is no error.
fn print(text: &str) -> anyhow::Result<()> {
    let mut output = stdout().lock();
    let written = output
        .write_all(text.as_bytes())
        .and_then(|()| output.flush());
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

fn in_words(missing: &HostDataError) -> String {
    let hint = "kvredis is a wasmCloud capability provider: a host starts it and sends its data to \
                standard input.\nStart it with `wash start provider <image> kvredis` or \
                `wash app deploy wadm.yaml`.\nBy hand: `kvredis check URL` tries a Redis, \
                `kvredis settings` lists the settings; see `kvredis --help`.";
    match missing {
        HostDataError::Nothing => {
            format!("kvredis: there is no host data on standard input.\n{hint}")
        }
        HostDataError::Unreadable(error) => {
            format!("kvredis: cannot read the host data from standard input: {error}")
        }
        HostDataError::Malformed(what) => {
            format!("kvredis: what is on standard input is no host data: {what}.\n{hint}")
        }
    }
}
