//! Progress lines with the time since the start, for people who wait and for reading test output
//! afterwards.

use std::fmt::Display;
use std::time::Instant;

/// Prints what happens, with the seconds since it was made.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    start: Instant,
}

impl Progress {
    /// Starts the clock.
    #[must_use]
    pub fn start() -> Self {
        Self {
            start: Instant::now(),
        }
    }

    /// Prints one line.
    pub fn say(&self, line: impl Display) {
        println!("[{:6.1} s] {line}", self.start.elapsed().as_secs_f32());
    }
}
