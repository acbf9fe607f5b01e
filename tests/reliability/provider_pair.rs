//! Two providers on a faulty Redis: the results of each function during the fault, with a long RPC
//! timeout and with a short one.
//!
//! `refusals` causes the faults.

use std::time::Duration;

use futures_util::future::join_all;
use test_support::client::{Error, other_error};
use test_support::host::Link;
use test_support::redis::Redis;
use test_support::test_env::TestEnv;
use test_support::wait::test_timeout;
use tokio::time::{Instant, sleep, timeout};

use crate::latency::s;
use crate::scenario::{Row, record};

/// The RPC timeouts of the two hosts: longer and shorter than the fault.
pub const LONG_TIMEOUT: Duration = Duration::from_secs(15);
pub const SHORT_TIMEOUT: Duration = Duration::from_secs(1);
/// The duration of a fault, long enough for several attempts of a call.
pub const FAULT_DURATION: Duration = Duration::from_secs(2);
/// The allowance for a call's time on a busy machine.
pub const BUSY_MACHINE_ALLOWANCE: Duration = Duration::from_secs(1);

/// Two providers on one Redis, whose hosts have a long and a short RPC timeout.
pub struct ProviderPair {
    pub redis: Redis,
    pub long_timeout: TestEnv,
    short_timeout: TestEnv,
}

/// The calls that Redis rejects.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Rejected {
    All,
    /// All functions except `list-keys`, which has no key.
    Keys,
    Writes,
}

impl ProviderPair {
    /// Two providers on this Redis, with two links each.
    pub async fn new(redis: Redis) -> Self {
        let start_env = async |limit: Duration| {
            let milliseconds = u64::try_from(limit.as_millis()).unwrap();
            let builder = TestEnv::builder().unlinked();
            builder.rpc_timeout_ms(Some(milliseconds)).start().await
        };
        let (long_timeout, short_timeout) =
            tokio::join!(start_env(LONG_TIMEOUT), start_env(SHORT_TIMEOUT));
        for env in [&long_timeout, &short_timeout] {
            for link in links(&redis) {
                env.add_link(&link).await;
            }
        }
        Self {
            redis,
            long_timeout,
            short_timeout,
        }
    }

    /// Calls during a fault, which `end` ends: a call with the short timeout fails with Redis's message,
    /// one with the long timeout waits and succeeds.
    pub async fn assert_retried(
        &self,
        code: &str,
        rejected: Rejected,
        end: impl AsyncFnOnce(&Redis),
    ) {
        let started = Instant::now();
        let long_timeout = async {
            let results = timeout(LONG_TIMEOUT, call_all_functions(&self.long_timeout)).await;
            (
                results.expect("calls complete within the RPC timeout"),
                started.elapsed(),
            )
        };
        let short_timeout = async {
            let results = timeout(
                SHORT_TIMEOUT + BUSY_MACHINE_ALLOWANCE,
                call_all_functions(&self.short_timeout),
            )
            .await;
            results.expect("calls complete within the RPC timeout")
        };
        let ending = async {
            sleep(FAULT_DURATION).await;
            end(&self.redis).await;
        };
        let ((long_timeout, took), short_timeout, ()) =
            tokio::join!(long_timeout, short_timeout, ending);
        let mut rejections = 0;
        for (function, result) in short_timeout {
            let accepted = match rejected {
                Rejected::All => &[][..],
                Rejected::Keys => &["list-keys"],
                Rejected::Writes => &["get", "exists", "get-many", "list-keys"],
            };
            if accepted.contains(&function) {
                assert_eq!(result, Ok(()), "{function}");
                continue;
            }
            let error = other_error(result);
            // A replica rejects writes before it checks anything else. A call whose deadline passes
            // during a retry may have been executed.
            let expected = error.starts_with(code)
                || (code == "MASTERDOWN" && error.starts_with("READONLY"))
                || (function == "increment" && error.contains("may or may not"));
            assert!(expected, "{function}: {error}");
            rejections += 1;
        }
        for (function, result) in &long_timeout {
            assert_eq!(*result, Ok(()), "{function}");
        }
        assert!(took >= FAULT_DURATION, "{code} ended after only {took:?}");
        // Each increment was executed once.
        for key in ["persistent", "expiring"] {
            let sum: u64 = self.redis.command(&["GET", key]).await;
            assert_eq!(sum, 1, "{key}");
        }
        record_retried(
            code,
            "9 functions, with and without TTL_MS",
            long_timeout.len(),
            rejections,
            took,
        );
    }
}

/// Two links, one of which writes with a TTL, in transactions.
pub fn links(redis: &Redis) -> [Link; 2] {
    let url = redis.url();
    [
        Link::new("persistent", "default").config(&[("URL", &url)]),
        Link::new("expiring", "default").config(&[("URL", &url), ("TTL_MS", "500000")]),
    ]
}

/// Calls every function concurrently over each of the links.
async fn call_all_functions(env: &TestEnv) -> Vec<(&'static str, Result<(), Error>)> {
    let of_link = ["persistent", "expiring"].map(async |name| {
        let client = &env.client.component(name, "default").timeout(test_timeout());
        let pairs = [("k", b"v")];
        let (get, exists, get_many, list, set, delete, set_many, delete_many, increment) = tokio::join!(
            client.get("", "k"),
            client.exists("", "k"),
            client.get_many("", &["k"]),
            client.list_keys("", None),
            client.set("", "k", b"v"),
            client.delete("", "l"),
            client.set_many("", &pairs),
            client.delete_many("", &["l"]),
            client.increment("", name, 1),
        );
        vec![
            ("get", get.map(drop)),
            ("exists", exists.map(drop)),
            ("get-many", get_many.map(drop)),
            ("list-keys", list.map(drop)),
            ("set", set),
            ("delete", delete),
            ("set-many", set_many),
            ("delete-many", delete_many),
            ("increment", increment.map(drop)),
        ]
    });
    join_all(of_link).await.concat()
}

/// Records the calls that waited for the end of the fault.
pub fn record_retried(code: &str, load: &str, retried: usize, rejected: usize, took: Duration) {
    let mut counted = format!("{retried} calls, 0 errors, completed after {}", s(took));
    if rejected > 0 {
        counted +=
            &format!("; with a timeout of 1 s, {rejected} failed in time with Redis's message");
    }
    record(&Row {
        fault: code,
        load,
        promised: "retried within the call's timeout, each call executed once",
        counted,
    });
}
