//! Ctrl-C and other signals: running processes are stopped before the program ends.

use std::io;
use std::process;

use tokio::select;
use tokio::signal::unix::{SignalKind, signal};

/// Waits for Ctrl-C, SIGTERM or SIGHUP, and returns its name.
pub async fn wait_for_signal() -> io::Result<&'static str> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(select! {
        _ = interrupt.recv() => "Ctrl-C",
        _ = terminate.recv() => "SIGTERM",
        _ = hangup.recv() => "SIGHUP",
    })
}

/// Runs `work`. On a signal, `work` is dropped, which stops the processes that it has started, and the
/// program exits: otherwise the test harness would continue with the next test.
pub async fn exit_on_signal<T>(work: impl Future<Output = T>) -> T {
    // The block drops `work` before the program exits.
    let name = {
        let work = std::pin::pin!(work);
        select! {
            result = work => return result,
            name = wait_for_signal() => name,
        }
    };
    match name {
        Ok(name) => eprintln!("interrupted by {name}"),
        Err(error) => eprintln!("cannot listen for signals: {error}"),
    }
    process::exit(130)
}
