//! The command line: reads what the host says on standard input and runs the provider.

use std::io::{IsTerminal, stdin};
use std::process::ExitCode;

use clap::Parser;
use kvredis::host_data::{self, NoHostData};
use kvredis::{provider, telemetry};
use wasmcloud_provider_sdk::HostData;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The exit code for a start that cannot work, as of `sysexits` and most command lines.
const USAGE: u8 = 2;

/// wasi:keyvalue on Redis and Valkey, as a wasmCloud 1.x capability provider.
///
/// A wasmCloud host starts it, and tells it on standard input what it needs to know; there is
/// nothing to be set on the command line. Start it with `wash start provider <image> kvredis`, or
/// with your application: `wash app deploy wadm.yaml`.
#[derive(Parser)]
#[command(version)]
struct Arguments {}

fn main() -> ExitCode {
    let Arguments {} = Arguments::parse();
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

fn read_host_data() -> Result<HostData, NoHostData> {
    if stdin().is_terminal() {
        return Err(NoHostData::Nothing);
    }
    host_data::read(stdin().lock())
}

fn serve(host_data: HostData) -> anyhow::Result<()> {
    // One thread: calls wait for NATS and Redis, not for each other, and waking threads costs more
    // than what a call needs.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(telemetry::during(&host_data, provider::run(&host_data)))
}

fn in_words(missing: &NoHostData) -> String {
    let hint = "kvredis is a wasmCloud capability provider: a host starts it and sends its data to \
                standard input.\nStart it with `wash start provider <image> kvredis` or \
                `wash app deploy wadm.yaml`; see `kvredis --help`.";
    match missing {
        NoHostData::Nothing => format!("kvredis: there is no host data on standard input.\n{hint}"),
        NoHostData::Unreadable(error) => {
            format!("kvredis: cannot read the host data from standard input: {error}")
        }
        NoHostData::Malformed(what) => {
            format!("kvredis: what is on standard input is no host data: {what}.\n{hint}")
        }
    }
}
