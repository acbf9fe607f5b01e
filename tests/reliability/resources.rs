//! Resource usage of a process, as reported by the kernel.
//!
//! Memory is returned to the system late: mimalloc retains pages for a while, and releases them on later
//! allocations. Flat memory is therefore compared when it has [`settled`].

use std::fs;
use std::time::Duration;

use test_support::test_env::TestEnv;
use tokio::time::{Instant, sleep};

/// A value whose buffers the allocator maps and unmaps separately.
const LARGE: usize = 3 << 20;
/// The interval between measurements while memory settles.
const INTERVAL: Duration = Duration::from_millis(250);

/// The resources that the provider holds.
#[derive(Clone, Copy, Debug)]
pub struct ResourceUsage {
    /// Resident memory in KiB.
    pub resident: u64,
    /// Open file descriptors.
    pub files: usize,
    /// Open connections to Redis.
    pub connections: usize,
}

/// The peak resident memory since the start or the last [`reset_peak`], in KiB.
pub fn peak(env: &TestEnv) -> u64 {
    kibibytes(env, "VmHWM:")
}

/// The current resident memory, in KiB.
pub fn resident(env: &TestEnv) -> u64 {
    kibibytes(env, "VmRSS:")
}

/// Resets the peak to the current resident memory.
pub fn reset_peak(env: &TestEnv) {
    fs::write(format!("/proc/{}/clear_refs", env.provider.id()), "5")
        .expect("a child's file is writable");
}

/// The usage of an idle provider: the least memory seen until it is at most `enough`, or for the
/// time `limit`.
///
/// After large values, `allocate_large` makes a call with one: the allocator releases large blocks on later
/// allocations, not while idle.
pub async fn settled(
    env: &TestEnv,
    enough: u64,
    test_timeout: Duration,
    allocate_large: bool,
) -> ResourceUsage {
    let deadline = Instant::now() + test_timeout;
    let mut minimum = resident(env);
    let value = vec![b'x'; if allocate_large { LARGE } else { 1 }];
    while minimum > enough && Instant::now() < deadline {
        sleep(INTERVAL).await;
        env.client
            .set("", "settle", &value)
            .await
            .expect("Redis is running");
        minimum = minimum.min(resident(env));
    }
    ResourceUsage {
        resident: minimum,
        files: env.provider.open_files(),
        connections: env.redis.connections().await,
    }
}

/// KiB as text in MiB.
pub fn mebibytes(kibibytes: u64) -> String {
    format!("{}.{} MiB", kibibytes / 1024, kibibytes % 1024 * 10 / 1024)
}

fn kibibytes(env: &TestEnv, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", env.provider.id()))
        .expect("the process is running");
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.expect("the field exists").parse().expect("a number")
}
