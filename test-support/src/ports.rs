//! Ports for the servers.
//!
//! They come from below the range that the kernel gives to outgoing connections, so that a server
//! which is stopped for a while finds its port free when it starts again, and each is given out
//! once in a test process. Another process may still take one: whoever starts a server tries again.

use std::net::{Ipv4Addr, TcpListener};
use std::process;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

const FIRST: u32 = 12_000;
const COUNT: u32 = 20_000;

/// Test processes that run side by side begin at different places.
static NEXT: LazyLock<AtomicU32> =
    LazyLock::new(|| AtomicU32::new(process::id().wrapping_mul(211)));

/// A port that nothing listens on.
pub fn free() -> u16 {
    (0..COUNT)
        .map(|_| FIRST + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT)
        .map(|port| u16::try_from(port).expect("the range is within u16"))
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .expect("no free port")
}
