//! A child process: its output is collected, and printed when a test panics; the process is killed
//! when dropped.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use rustix::process::{Pid, Signal, kill_process};

use crate::wait::eventually_some;

/// The number of output lines that are printed after a panic.
const SHOWN: usize = 300;

/// A running or ended process.
pub struct Process {
    name: &'static str,
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    readers: Vec<JoinHandle<()>>,
}

impl Process {
    /// Starts `command` and writes `input` to its standard input.
    pub fn start(name: &'static str, mut command: Command, input: Vec<u8>) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {:?}: {error}", command.get_program()));
        let mut stdin = child.stdin.take().expect("standard input is a pipe");
        // The child may never read its input, and a pipe holds only so much: the write may block.
        thread::spawn(move || stdin.write_all(&input).and_then(|()| stdin.flush()));
        let lines = Arc::default();
        let readers = vec![
            collect(
                child.stdout.take().expect("standard output is a pipe"),
                &lines,
            ),
            collect(
                child.stderr.take().expect("standard error is a pipe"),
                &lines,
            ),
        ];
        Self {
            name,
            child,
            lines,
            readers,
        }
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// All lines printed so far, on both outputs.
    pub fn output(&self) -> Vec<String> {
        self.lines.lock().expect("the lock is not poisoned").clone()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the process takes signals");
    }

    /// The exit status, once the process has ended.
    pub fn try_wait(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// Waits until the process has ended and all its output has been read.
    pub async fn wait(&mut self) -> ExitStatus {
        let what = format!("{} has ended", self.name);
        let status = eventually_some(&what, async || self.try_wait()).await;
        for reader in self.readers.drain(..) {
            reader.join().expect("the reader thread does not panic");
        }
        status
    }

    /// Kills the process and reaps it.
    pub fn kill(&mut self) {
        // Fails when the process has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            for reader in self.readers.drain(..) {
                let _ = reader.join();
            }
            let lines = self.output();
            let from = lines.len().saturating_sub(SHOWN);
            eprintln!("--- {} ({}), last {SHOWN} lines:", self.name, self.id());
            for line in &lines[from..] {
                eprintln!("{line}");
            }
        }
    }
}

/// Collects lines in a thread of its own until the pipe is closed.
fn collect(from: impl Read + Send + 'static, lines: &Arc<Mutex<Vec<String>>>) -> JoinHandle<()> {
    let lines = Arc::clone(lines);
    thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        while matches!(from.read_until(b'\n', &mut line), Ok(1..)) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            lines.lock().expect("the lock is not poisoned").push(text);
            line.clear();
        }
    })
}
