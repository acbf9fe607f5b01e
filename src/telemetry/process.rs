//! Resource usage of the process, read from `/proc` at each export; on Linux only.

/// Creates the instruments.
#[cfg(not(target_os = "linux"))]
pub(crate) fn observe() {}

#[cfg(target_os = "linux")]
pub(crate) use linux::observe;

#[cfg(target_os = "linux")]
mod linux {
    use std::time::Instant;

    use opentelemetry::KeyValue;
    use procfs::WithCurrentSystemInfo as _;
    use procfs::process::{Process, Stat};

    use crate::telemetry::scope::meter;

    /// Creates the instruments, which read `/proc` at each export.
    pub(crate) fn observe() {
        let started = Instant::now();
        let meter = meter();
        meter
            .f64_observable_counter("process.cpu.time")
            .with_description("Total CPU seconds.")
            .with_unit("s")
            .with_callback(|observer| {
                let Some(stat) = stat() else { return };
                for (mode, ticks) in [("user", stat.utime), ("system", stat.stime)] {
                    // An f64 holds the ticks of centuries exactly.
                    let seconds = ticks as f64 / procfs::ticks_per_second() as f64;
                    observer.observe(seconds, &[KeyValue::new("cpu.mode", mode)]);
                }
            })
            .build();
        meter
            .i64_observable_up_down_counter("process.memory.usage")
            .with_description("The amount of physical memory in use.")
            .with_unit("By")
            .with_callback(|observer| {
                if let Some(stat) = stat() {
                    observe_number(observer, stat.rss_bytes().get());
                }
            })
            .build();
        meter
            .i64_observable_up_down_counter("process.thread.count")
            .with_description("Process threads count.")
            .with_unit("{thread}")
            .with_callback(|observer| {
                if let Some(stat) = stat() {
                    observer.observe(stat.num_threads, &[]);
                }
            })
            .build();
        meter
            .i64_observable_up_down_counter("process.unix.file_descriptor.count")
            .with_description("Number of unix file descriptors in use by the process.")
            .with_unit("{file_descriptor}")
            .with_callback(|observer| {
                let count = Process::myself().and_then(|process| process.fd_count());
                if let Ok(count) = count {
                    observe_number(observer, count as u64);
                }
            })
            .build();
        meter
            .f64_observable_gauge("process.uptime")
            .with_description("The time the process has been running.")
            .with_unit("s")
            .with_callback(move |observer| observer.observe(started.elapsed().as_secs_f64(), &[]))
            .build();
    }

    fn stat() -> Option<Stat> {
        Process::myself().and_then(|process| process.stat()).ok()
    }

    fn observe_number(observer: &dyn opentelemetry::metrics::AsyncInstrument<i64>, number: u64) {
        if let Ok(number) = i64::try_from(number) {
            observer.observe(number, &[]);
        }
    }
}
