//! The length and the report of a scenario.
//!
//! `KVREDIS_SOAK` names the file that `make soak` collects rows in; without it scenarios are short.

use std::env;
use std::fs::OpenOptions;
use std::io::Write as _;

/// A promise and the results of its scenario.
pub struct Row<'a> {
    /// The fault or load on kvredis or its servers.
    pub fault: &'a str,
    /// The concurrent callers.
    pub load: &'a str,
    /// The promised behavior.
    pub promised: &'a str,
    /// The results, in numbers.
    pub counted: String,
}

/// The short form of a parameter, or the long one with `make soak`.
pub fn pick<T>(short: T, long: T) -> T {
    if env::var_os("KVREDIS_SOAK").is_some() {
        long
    } else {
        short
    }
}

/// Prints a row, and appends it to the file of `make soak`.
pub fn record(row: &Row<'_>) {
    let Row {
        fault,
        load,
        promised,
        counted,
    } = row;
    let line = format!("| {fault} | {load} | {promised} | {counted} |");
    println!("{line}");
    if let Some(file) = env::var_os("KVREDIS_SOAK") {
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(file)
            .expect("the file that KVREDIS_SOAK names can be written");
        writeln!(file, "{line}").expect("a line can be appended");
    }
}
