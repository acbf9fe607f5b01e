//! How long answers take while something goes wrong: steady calls over a link, and steady questions
//! for the health, each timed from outside.
//!
//! A machine that is busy with other tests is late for everybody, so that a link beside a broken one
//! is held against the same load on a provider of its own, at the same time.

use std::time::Duration;

use futures_util::future::join_all;
use test_support::client::Client;
use test_support::host::Host;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// How long the answers took that were waited for, in order of length.
pub struct Times(Vec<Duration>);

impl Times {
    /// How many there were.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The time that 99 of 100 answers did not exceed.
    pub fn p99(&self) -> Duration {
        self.0[(self.0.len() * 99).div_ceil(100) - 1]
    }

    /// The longest.
    pub fn longest(&self) -> Duration {
        *self.0.last().expect("something was measured")
    }
}

impl From<Vec<Duration>> for Times {
    fn from(mut times: Vec<Duration>) -> Self {
        times.sort();
        Self(times)
    }
}

/// In milliseconds, for rows.
pub fn ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

/// In seconds, for rows.
pub fn s(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

/// Four callers that read what they wrote, some 800 calls a second; every answer has to be right.
pub async fn steady_calls(client: &Client, until: Instant) -> Times {
    let callers = (0..4).map(async |caller| {
        let key = format!("steady{caller}");
        client.set("", &key, &key).await.unwrap();
        let mut times = Vec::new();
        let mut pace = interval(Duration::from_millis(5));
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while Instant::now() < until {
            pace.tick().await;
            let begun = Instant::now();
            let value = client.get("", &key).await;
            times.push(begun.elapsed());
            assert_eq!(value, Ok(Some(key.clone().into_bytes())));
        }
        times
    });
    Times::from(join_all(callers).await.concat())
}

/// Twenty questions a second for the health; every one has to be answered.
pub async fn health(host: &Host, until: Instant) -> Times {
    let mut times = Vec::new();
    let mut pace = interval(Duration::from_millis(50));
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while Instant::now() < until {
        pace.tick().await;
        let begun = Instant::now();
        assert!(host.health().await.is_some(), "health is always answered");
        times.push(begun.elapsed());
    }
    Times::from(times)
}
