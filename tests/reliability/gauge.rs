//! What a process uses, as the kernel tells it.
//!
//! Memory is given back to the system late: mimalloc keeps pages for a while, and returns them on
//! later allocations. So what must be flat is compared when it has [`settled`].

use std::fs;
use std::time::Duration;

use test_support::test_env::TestEnv;
use tokio::time::{Instant, sleep};

/// A value whose buffers the allocator takes from the system and returns to it.
const LARGE: usize = 3 << 20;
/// How often memory is looked at while it settles.
const PAUSE: Duration = Duration::from_millis(250);

/// What the provider holds.
#[derive(Clone, Copy, Debug)]
pub struct Holdings {
    /// Resident memory in KiB.
    pub resident: u64,
    /// Files and sockets.
    pub files: usize,
    /// Connections that Redis has from it.
    pub connections: usize,
}

/// The most memory that the provider has had since its start or the last [`forget_peak`], in KiB.
pub fn peak(env: &TestEnv) -> u64 {
    kibibytes(env, "VmHWM:")
}

/// The memory that the provider has now, in KiB.
pub fn resident(env: &TestEnv) -> u64 {
    kibibytes(env, "VmRSS:")
}

/// Lets the peak begin anew at what there is.
pub fn forget_peak(env: &TestEnv) {
    fs::write(format!("/proc/{}/clear_refs", env.provider.id()), "5").expect("one's own child");
}

/// What the provider holds when it is left alone: the least memory seen until it is no more than
/// `enough`, or for `test_timeout`.
///
/// After large values, `stir` it with one: the allocator returns large blocks when it is asked for
/// others, not when it is left alone.
pub async fn settled(env: &TestEnv, enough: u64, test_timeout: Duration, stir: bool) -> Holdings {
    let deadline = Instant::now() + test_timeout;
    let mut least = resident(env);
    let value = vec![b'x'; if stir { LARGE } else { 1 }];
    while least > enough && Instant::now() < deadline {
        sleep(PAUSE).await;
        env.client
            .set("", "stir", &value)
            .await
            .expect("Redis is there");
        least = least.min(resident(env));
    }
    Holdings {
        resident: least,
        files: env.provider.open_files(),
        connections: env.redis.connections().await,
    }
}

/// KiB as the rows have them.
pub fn mebibytes(kibibytes: u64) -> String {
    format!("{}.{} MiB", kibibytes / 1024, kibibytes % 1024 * 10 / 1024)
}

fn kibibytes(env: &TestEnv, field: &str) -> u64 {
    let status =
        fs::read_to_string(format!("/proc/{}/status", env.provider.id())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.expect("the field").parse().expect("a number")
}
