//! Ctrl-C and SIGTERM: what was started is stopped first, then the program ends.

use std::io;
use std::process;

use tokio::select;
use tokio::signal::unix::{SignalKind, signal};

/// Waits for Ctrl-C, SIGTERM or SIGHUP, and names it.
pub async fn signalled() -> io::Result<&'static str> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(select! {
        _ = interrupt.recv() => "Ctrl-C",
        _ = terminate.recv() => "SIGTERM",
        _ = hangup.recv() => "SIGHUP",
    })
}

/// Runs `work`. On a signal it is dropped, which stops what it had started, and the program ends:
/// a test harness that went on to the next test would not look interrupted.
pub async fn guard<T>(work: impl Future<Output = T>) -> T {
    // The block ends the borrow of `work`: it is dropped before the program ends.
    let name = {
        let work = std::pin::pin!(work);
        select! {
            result = work => return result,
            name = signalled() => name,
        }
    };
    match name {
        Ok(name) => eprintln!("stopped by {name}"),
        Err(error) => eprintln!("cannot listen for signals: {error}"),
    }
    process::exit(130)
}
