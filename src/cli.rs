//! The command line: runs the provider with the host data on standard input, or one of the commands
//! for operators.

use std::env;
use std::io::{self, IsTerminal, Write as _, stdin, stdout};
use std::process::ExitCode;

use crate::provider::host_data::{self, HostDataError};
use crate::settings::{render, schema};
use crate::tasks::{Panicked, TaskFailure, catch_panic};
use crate::{check, provider, telemetry};
use clap::{Parser, Subcommand};
use wasmcloud_provider_sdk::HostData;

/// The exit code for invalid arguments or input, as most command lines have it.
const USAGE_ERROR: u8 = 2;

/// wasi:keyvalue on Redis and Valkey, as a wasmCloud 1.x capability provider.
///
/// A wasmCloud host starts kvredis and passes the configuration on standard input. Start it with
/// `wash start provider <image> kvredis`, or with your application: `wash app deploy wadm.yaml`. The
/// commands below are for operators.
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
    /// Test a connection as a link would use it, and report the findings; Redis is not changed.
    ///
    /// One line for each finding: the settings, the connection, TLS, the login, the server, the
    /// required commands and keys that the ACL forbids, notifications, latency. Each failure is
    /// followed by advice. Exit code 0: a link with these settings would fully work; 1: it would not;
    /// 2: the command line is invalid.
    #[command(after_help = "\
Examples:
  kvredis check redis://10.0.0.7:6379
  kvredis check rediss://redis.example USERNAME=orders PASSWORD_FILE=/run/secrets/redis
  kvredis check 'redis-sentinel://s1:26379?sentinelServiceName=main&node=s2:26379' READ_ONLY=true
  kvredis check redis-cluster://10.0.0.7 'WATCH=SET@orders:*' --json

Other users of the machine can see the command line: store passwords in a file (PASSWORD_FILE).

With --json, one object is printed: `works` (a boolean), `address` (without credentials), `version` (of
kvredis) and `findings`, each with `name`, `status` (ok, info, warning, failed), `text`, `advice` (or
null) and `details`, whose fields docs/check.md lists.")]
    Check {
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
        /// The URL and the settings of the link; `kvredis settings` lists them.
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

/// Runs the provider, or the command that the arguments name.
#[must_use]
pub fn main() -> ExitCode {
    let Arguments { command } = Arguments::parse();
    let outcome = match command {
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
    outcome.unwrap_or_else(|error| {
        eprintln!("kvredis: {error:#}");
        ExitCode::FAILURE
    })
}

/// Runs the provider as a host starts it.
fn start() -> ExitCode {
    let host_data = match read_host_data() {
        Ok(host_data) => host_data,
        Err(error) => {
            eprintln!("{}", message(&error));
            return ExitCode::from(USAGE_ERROR);
        }
    };
    match run_provider(&host_data) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kvredis: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn read_host_data() -> Result<HostData, HostDataError> {
    if stdin().is_terminal() {
        return Err(HostDataError::Missing);
    }
    host_data::read(stdin().lock())
}

fn run_provider(host_data: &HostData) -> anyhow::Result<()> {
    let runtime = runtime()?;
    let provider = async {
        catch_panic(provider::run(host_data))
            .await
            .unwrap_or_else(|Panicked| Err(TaskFailure::Panicked("provider").into()))
    };
    let outcome = runtime.block_on(telemetry::run(host_data, provider));
    // A name may still be being resolved, in a thread that cannot be stopped.
    runtime.shutdown_background();
    outcome
}

/// One thread: calls wait for NATS and Redis, not for the processor, and to wake another thread
/// costs more than to serve a call.
fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}

fn run_check(settings: &[String], json: bool) -> anyhow::Result<ExitCode> {
    let sources = match check::arguments::sources(settings) {
        Ok(sources) => sources,
        Err(error) => {
            eprintln!("kvredis check: {error}; see `kvredis check --help`");
            return Ok(ExitCode::from(USAGE_ERROR));
        }
    };
    let runtime = runtime()?;
    let report = runtime.block_on(check::check(&sources));
    // A name may still be being resolved, in a thread that cannot be stopped.
    runtime.shutdown_background();
    if json {
        print(&format!("{:#}\n", report.json()))?;
    } else {
        let no_color = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        print(&report.text(stdout().is_terminal() && !no_color))?;
    }
    Ok(if report.works() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Prints; a closed pipe, as of `head`, is not an error.
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

/// The message for a start without usable host data: for a start by hand, with the way to start.
fn message(error: &HostDataError) -> String {
    let hint = "kvredis is a wasmCloud capability provider: a host starts it and passes the \
                configuration on standard input.\nStart it with `wash start provider <image> kvredis` \
                or `wash app deploy wadm.yaml`.\nWithout a host, `kvredis check URL` tests a \
                connection and `kvredis settings` lists the settings; see `kvredis --help`.";
    match error {
        HostDataError::Missing | HostDataError::Malformed(_) => {
            format!("kvredis: {error}.\n{hint}")
        }
        HostDataError::Io(_) => format!("kvredis: {error}"),
    }
}
