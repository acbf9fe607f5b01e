//! Callers that set, read back and increment without a pause, and count what comes of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use test_support::client::{Client, Error};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

/// Callers under way.
pub struct Load {
    shared: Arc<Shared>,
    callers: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    calls: AtomicU64,
    errors: std::sync::Mutex<Vec<(Instant, String)>>,
    successes: std::sync::Mutex<Vec<Instant>>,
}

/// What came of it.
pub struct Outcome {
    /// Calls in all.
    pub calls: u64,
    /// The calls that were answered with an error, and when.
    pub errors: Vec<(Instant, String)>,
    /// When calls succeeded.
    pub successes: Vec<Instant>,
}

impl Load {
    /// Starts callers, each with keys of its own.
    pub fn start(client: &Client, callers: usize) -> Self {
        let shared = Arc::new(Shared::default());
        let callers = (0..callers)
            .map(|caller| {
                let client = client.timeout(Duration::from_secs(30));
                tokio::spawn(call(client, caller, Arc::clone(&shared)))
            })
            .collect();
        Self { shared, callers }
    }

    /// How many calls there have been.
    pub fn calls(&self) -> u64 {
        self.shared.calls.load(Ordering::Relaxed)
    }

    /// When the latest call succeeded.
    pub fn latest_success(&self) -> Option<Instant> {
        self.shared.successes.lock().unwrap().last().copied()
    }

    /// Ends it.
    pub async fn finish(self) -> Outcome {
        self.shared.stop.store(true, Ordering::Relaxed);
        for caller in self.callers {
            caller.await.expect("a caller found a wrong answer");
        }
        let shared = &self.shared;
        let mut successes = std::mem::take(&mut *shared.successes.lock().unwrap());
        successes.sort();
        Outcome {
            calls: shared.calls.load(Ordering::Relaxed),
            errors: std::mem::take(&mut *shared.errors.lock().unwrap()),
            successes,
        }
    }
}

impl Outcome {
    /// The longest time in which no call succeeded.
    pub fn longest_gap(&self) -> Duration {
        let pairs = self.successes.windows(2);
        pairs
            .map(|pair| pair[1] - pair[0])
            .max()
            .unwrap_or_default()
    }
}

async fn call(client: Client, caller: usize, shared: Arc<Shared>) {
    let mut round = 0_u64;
    while !shared.stop.load(Ordering::Relaxed) {
        round += 1;
        let key = format!("caller-{caller}-{}", round % 40);
        let value = round.to_be_bytes();
        if note(&shared, client.set("", &key, &value).await).await
            && let Ok(read) = client.get("", &key).await
        {
            assert_eq!(
                read.as_deref(),
                Some(&value[..]),
                "{key} is not what was set"
            );
        }
        note(
            &shared,
            client
                .increment("", &format!("count-{}", round % 10), 1)
                .await,
        )
        .await;
    }
}

async fn note<T>(shared: &Shared, answer: Result<T, Error>) -> bool {
    shared.calls.fetch_add(1, Ordering::Relaxed);
    match answer {
        Ok(_) => {
            shared.successes.lock().unwrap().push(Instant::now());
            true
        }
        Err(error) => {
            shared
                .errors
                .lock()
                .unwrap()
                .push((Instant::now(), error.to_string()));
            // An error that comes at once would otherwise come thousands of times.
            sleep(Duration::from_millis(5)).await;
            false
        }
    }
}
