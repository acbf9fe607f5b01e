//! Callers that set, read back and increment continuously, and record the outcome.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use test_support::client::{Client, Error};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

/// Running callers.
pub struct Load {
    shared: Arc<LoadState>,
    callers: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct LoadState {
    stop: AtomicBool,
    calls: AtomicU64,
    errors: std::sync::Mutex<Vec<(Instant, String)>>,
    successes: std::sync::Mutex<Vec<Instant>>,
}

/// The outcome of a load.
pub struct LoadOutcome {
    /// The number of calls.
    pub calls: u64,
    /// The calls that failed, with their time.
    pub errors: Vec<(Instant, String)>,
    /// The times of successful calls.
    pub successes: Vec<Instant>,
}

impl Load {
    /// Starts callers, each with its own keys.
    pub fn start(client: &Client, callers: usize) -> Self {
        let shared = Arc::new(LoadState::default());
        let callers = (0..callers)
            .map(|caller| {
                let client = client.timeout(Duration::from_secs(30));
                tokio::spawn(call(client, caller, Arc::clone(&shared)))
            })
            .collect();
        Self { shared, callers }
    }

    /// The number of calls so far.
    pub fn calls(&self) -> u64 {
        self.shared.calls.load(Ordering::Relaxed)
    }

    /// The time of the latest successful call.
    pub fn latest_success(&self) -> Option<Instant> {
        self.shared.successes.lock().unwrap().last().copied()
    }

    /// Stops the callers.
    pub async fn finish(self) -> LoadOutcome {
        self.shared.stop.store(true, Ordering::Relaxed);
        for caller in self.callers {
            caller.await.expect("every caller reads correct values");
        }
        let shared = &self.shared;
        let mut successes = std::mem::take(&mut *shared.successes.lock().unwrap());
        successes.sort();
        LoadOutcome {
            calls: shared.calls.load(Ordering::Relaxed),
            errors: std::mem::take(&mut *shared.errors.lock().unwrap()),
            successes,
        }
    }
}

impl LoadOutcome {
    /// The longest period without a successful call.
    pub fn longest_gap(&self) -> Duration {
        let pairs = self.successes.windows(2);
        pairs
            .map(|pair| pair[1] - pair[0])
            .max()
            .unwrap_or_default()
    }
}

async fn call(client: Client, caller: usize, shared: Arc<LoadState>) {
    let mut round = 0_u64;
    while !shared.stop.load(Ordering::Relaxed) {
        round += 1;
        let key = format!("caller-{caller}-{}", round % 40);
        let value = round.to_be_bytes();
        if record(&shared, client.set("", &key, &value).await).await
            && let Ok(read) = client.get("", &key).await
        {
            assert_eq!(
                read.as_deref(),
                Some(&value[..]),
                "{key} does not hold the value that was set"
            );
        }
        record(
            &shared,
            client
                .increment("", &format!("count-{}", round % 10), 1)
                .await,
        )
        .await;
    }
}

async fn record<T>(shared: &LoadState, result: Result<T, Error>) -> bool {
    shared.calls.fetch_add(1, Ordering::Relaxed);
    match result {
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
            // An immediate error would otherwise be recorded thousands of times.
            sleep(Duration::from_millis(5)).await;
            false
        }
    }
}
