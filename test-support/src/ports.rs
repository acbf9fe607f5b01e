//! Port allocation for the servers.
//!
//! Ports are below the kernel's range of ephemeral ports, so that a stopped server finds its port
//! free when it restarts. A test process allocates each port once. Another process may still take
//! the port, so starting a server is retried.

use std::net::{Ipv4Addr, TcpListener};
use std::process;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

const FIRST: u32 = 12_000;
const COUNT: u32 = 20_000;

/// Concurrent test processes start at different offsets.
static NEXT: LazyLock<AtomicU32> =
    LazyLock::new(|| AtomicU32::new(process::id().wrapping_mul(211)));

/// A free port.
pub fn free() -> u16 {
    (0..COUNT)
        .map(|_| FIRST + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT)
        .map(|port| u16::try_from(port).expect("the range is within u16"))
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .expect("no free port")
}
