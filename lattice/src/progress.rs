//! Progress lines with the time since the start.

use std::fmt::Display;
use std::time::Instant;

/// Prints lines with the seconds since it was created.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    start: Instant,
}

impl Progress {
    /// Starts measuring the time.
    #[must_use]
    pub fn start() -> Self {
        Self {
            start: Instant::now(),
        }
    }

    /// Prints one line.
    pub fn print(&self, line: impl Display) {
        println!("[{:6.1} s] {line}", self.start.elapsed().as_secs_f32());
    }
}
