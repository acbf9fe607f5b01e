//! Response times during a fault: steady calls over a link, and steady health checks, each timed by the
//! caller.
//!
//! A busy machine delays everything, so a link beside a faulty one is compared with the same load on a
//! separate provider at the same time.

use std::time::Duration;

use futures_util::future::join_all;
use test_support::client::Client;
use test_support::host::Host;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// The response times, sorted.
pub struct Latencies(Vec<Duration>);

impl Latencies {
    /// The number of responses.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The 99th percentile.
    pub fn p99(&self) -> Duration {
        self.0[(self.0.len() * 99).div_ceil(100) - 1]
    }

    /// The maximum.
    pub fn longest(&self) -> Duration {
        *self.0.last().expect("at least one response was measured")
    }
}

impl From<Vec<Duration>> for Latencies {
    fn from(mut times: Vec<Duration>) -> Self {
        times.sort();
        Self(times)
    }
}

/// A time in milliseconds, for reports.
pub fn ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

/// A time in seconds, for reports.
pub fn s(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

/// Four callers that read back their writes, some 800 calls per second, and check every result.
pub async fn steady_calls(client: &Client, until: Instant) -> Latencies {
    let callers = (0..4).map(async |caller| {
        let key = format!("steady{caller}");
        client.set("", &key, &key).await.unwrap();
        let mut times = Vec::new();
        let mut pace = interval(Duration::from_millis(5));
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while Instant::now() < until {
            pace.tick().await;
            let started = Instant::now();
            let value = client.get("", &key).await;
            times.push(started.elapsed());
            assert_eq!(value, Ok(Some(key.clone().into_bytes())));
        }
        times
    });
    Latencies::from(join_all(callers).await.concat())
}

/// Twenty health checks per second; each must get a reply.
pub async fn health(host: &Host, until: Instant) -> Latencies {
    let mut times = Vec::new();
    let mut pace = interval(Duration::from_millis(50));
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while Instant::now() < until {
        pace.tick().await;
        let started = Instant::now();
        assert!(host.health().await.is_some(), "a health check got no reply");
        times.push(started.elapsed());
    }
    Latencies::from(times)
}
