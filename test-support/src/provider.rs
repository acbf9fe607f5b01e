//! The provider process, started as a wasmCloud host starts it: the real binary, an empty environment,
//! and the base64-encoded host data with a line end on standard input.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::process::Signal;
use wasmcloud_provider_sdk::HostData;

use crate::process::Process;
use crate::wait::eventually;

/// A provider process; killed when dropped.
pub struct ProviderProcess {
    process: Process,
}

impl ProviderProcess {
    /// Starts the process; [`crate::host::Host::ready`] waits until it serves.
    pub fn start(data: &HostData) -> Self {
        Self::with_faults(data, "")
    }

    /// Starts the process with faults in it, as `src/fault_injection.rs` describes them.
    pub fn with_faults(data: &HostData, faults: &str) -> Self {
        let json = serde_json::to_vec(data).expect("host data serializes to JSON");
        let input = format!("{}\r\n", STANDARD.encode(json));
        Self::spawn(input.into(), faults)
    }

    /// Starts the process with arbitrary bytes on its standard input.
    pub fn with_input(input: Vec<u8>) -> Self {
        Self::spawn(input, "")
    }

    fn spawn(input: Vec<u8>, faults: &str) -> Self {
        let program = kvredis_binary();
        // The restart history stays in the target folder.
        let temporary = program.with_file_name("test-tmp");
        fs::create_dir_all(&temporary).expect("the target folder is writable");
        let mut command = Command::new(program);
        command.env_clear();
        command.env("TMPDIR", temporary);
        command.env("KVREDIS_FAULTS", faults);
        Self {
            process: Process::start("kvredis", command, input),
        }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Kills the process, as a host does after its shutdown timeout.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// The exit status, once the process has ended.
    pub fn try_wait(&mut self) -> Option<ExitStatus> {
        self.process.try_wait()
    }

    /// Waits until the process has ended.
    pub async fn wait(&mut self) -> ExitStatus {
        self.process.wait().await
    }

    /// All log lines so far.
    pub fn log(&self) -> Vec<String> {
        self.process.output()
    }

    /// Waits for a log line that contains all of `parts`.
    pub async fn wait_for_log(&self, parts: &[&str]) {
        eventually(&format!("a log line contains {parts:?}"), async || {
            self.log().iter().any(|line| contains_all(line, parts))
        })
        .await;
    }

    /// Stops the process, which completes the log, and counts the lines that contain all of `parts`.
    pub async fn stop_and_count_log(&mut self, parts: &[&str]) -> usize {
        if self.try_wait().is_none() {
            self.signal(Signal::TERM);
            self.wait().await;
        }
        self.log()
            .iter()
            .filter(|line| contains_all(line, parts))
            .count()
    }

    /// The number of open file descriptors.
    pub fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.id()))
            .expect("the process is running")
            .count()
    }
}

/// The path of the kvredis binary that Cargo built for the running test program.
///
/// Only test programs themselves have the compile-time variable `CARGO_BIN_EXE_kvredis`. Cargo sets
/// it at run time since 1.94, and cargo-nextest sets both. Older versions of Cargo, and a test program
/// that is started by hand, leave only the layout of the target folder: the binary is next to the
/// `deps` folder that contains the test program.
pub fn kvredis_binary() -> PathBuf {
    let set = ["CARGO_BIN_EXE_kvredis", "NEXTEST_BIN_EXE_kvredis"]
        .iter()
        .find_map(env::var_os)
        .map(PathBuf::from);
    let binary = set.unwrap_or_else(|| {
        let test_program = env::current_exe().expect("the test program has a path");
        let deps = test_program.parent().expect("a program is in a folder");
        deps.with_file_name("kvredis")
    });
    assert!(
        binary.is_file(),
        "the kvredis binary is missing at {}: build it with `cargo build`",
        binary.display()
    );
    binary
}

fn contains_all(line: &str, parts: &[&str]) -> bool {
    parts.iter().all(|part| line.contains(part))
}
