//! How long a scenario is, and what it reports.
//!
//! `KVREDIS_SOAK` names the file that `make soak` collects rows in; without it scenarios are short.

use std::env;
use std::fs::OpenOptions;
use std::io::Write as _;

/// What a scenario promised, and what was counted.
pub struct Row<'a> {
    /// What was done to kvredis or its servers.
    pub fault: &'a str,
    /// Who called meanwhile.
    pub load: &'a str,
    /// What the contract says.
    pub promised: &'a str,
    /// What came of it, in numbers.
    pub counted: String,
}

/// The short form of something, or with `make soak` the long one.
pub fn pick<T>(short: T, long: T) -> T {
    if env::var_os("KVREDIS_SOAK").is_some() {
        long
    } else {
        short
    }
}

/// Prints a row, and adds it to the page of `make soak`.
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
        writeln!(file, "{line}").expect("a line can be added");
    }
}
