//! Two providers on a Redis in trouble: what each function is answered while it lasts, by a host that
//! waits long and by one that does not.
//!
//! Which troubles there are is for `refusals`.

use std::time::Duration;

use futures_util::future::join_all;
use test_support::client::{Error, other_error};
use test_support::host::Link;
use test_support::redis::Redis;
use test_support::test_env::TestEnv;
use test_support::wait::test_timeout;
use tokio::time::{Instant, sleep, timeout};

use crate::scale::{Row, record};
use crate::stopwatch::s;

/// What the host waits in worlds where a trouble passes in time, and where it does not.
pub const LONG: Duration = Duration::from_secs(15);
pub const SHORT: Duration = Duration::from_secs(1);
/// Redis is left in trouble for so long that calls have asked it several times.
pub const TROUBLE: Duration = Duration::from_secs(2);
/// What a machine that is busy with other tests may add to the time of a call.
pub const BUSY_MACHINE: Duration = Duration::from_secs(1);

/// Two providers on one Redis: one whose host is patient, one whose host is not.
pub struct Pair {
    pub redis: Redis,
    pub patient: TestEnv,
    hasty: TestEnv,
}

/// What Redis refuses.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    All,
    /// A listing is about no key in particular.
    Keys,
    Writes,
}

impl Pair {
    /// Two providers on this Redis, with two links each.
    pub async fn new(redis: Redis) -> Self {
        let world = async |limit: Duration| {
            let milliseconds = u64::try_from(limit.as_millis()).unwrap();
            let builder = TestEnv::builder().unlinked();
            builder.rpc_timeout_ms(Some(milliseconds)).start().await
        };
        let (patient, hasty) = tokio::join!(world(LONG), world(SHORT));
        for env in [&patient, &hasty] {
            for link in links(&redis) {
                env.add_link(&link).await;
            }
        }
        Self {
            redis,
            patient,
            hasty,
        }
    }

    /// Redis is in trouble, until `end`: a call whose time is up before is answered in Redis's words,
    /// one that has the time waits and succeeds.
    pub async fn refuses(&self, code: &str, refused: Refused, end: impl AsyncFnOnce(&Redis)) {
        let begun = Instant::now();
        let patient = async {
            let answers = timeout(LONG, calls(&self.patient)).await;
            (answers.expect("a host waits so long"), begun.elapsed())
        };
        let hasty = async {
            let answers = timeout(SHORT + BUSY_MACHINE, calls(&self.hasty)).await;
            answers.expect("a host waits so long")
        };
        let ending = async {
            sleep(TROUBLE).await;
            end(&self.redis).await;
        };
        let ((patient, took), hasty, ()) = tokio::join!(patient, hasty, ending);
        let mut refusals = 0;
        for (function, answer) in hasty {
            let answered = match refused {
                Refused::All => &[][..],
                Refused::Keys => &["list-keys"],
                Refused::Writes => &["get", "exists", "get-many", "list-keys"],
            };
            if answered.contains(&function) {
                assert_eq!(answer, Ok(()), "{function}");
                continue;
            }
            let error = other_error(answer);
            // A replica refuses writes because it is one, before anything else. And when the time
            // is up just while Redis is asked again, it may yet count.
            let expected = error.starts_with(code)
                || (code == "MASTERDOWN" && error.starts_with("READONLY"))
                || (function == "increment" && error.contains("may or may not"));
            assert!(expected, "{function}: {error}");
            refusals += 1;
        }
        for (function, answer) in &patient {
            assert_eq!(*answer, Ok(()), "{function}");
        }
        assert!(took >= TROUBLE, "{code} had passed after {took:?}");
        // Each increment was counted once.
        for key in ["lasting", "passing"] {
            let sum: u64 = self.redis.command(&["GET", key]).await;
            assert_eq!(sum, 1, "{key}");
        }
        report(
            code,
            "9 functions, with and without TTL_MS",
            patient.len(),
            refusals,
            took,
        );
    }
}

/// Two links, of which one writes with a time to live, in transactions.
pub fn links(redis: &Redis) -> [Link; 2] {
    let url = redis.url();
    [
        Link::new("lasting", "default").config(&[("URL", &url)]),
        Link::new("passing", "default").config(&[("URL", &url), ("TTL_MS", "500000")]),
    ]
}

/// Every function at once, over each of the links.
async fn calls(env: &TestEnv) -> Vec<(&'static str, Result<(), Error>)> {
    let of_link = ["lasting", "passing"].map(async |name| {
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

/// Writes a row of what was waited out.
pub fn report(code: &str, load: &str, waited: usize, refused: usize, took: Duration) {
    let mut counted = format!("{waited} calls, 0 errors, completed after {}", s(took));
    if refused > 0 {
        counted +=
            &format!("; with a timeout of 1 s, {refused} failed in time with Redis's message");
    }
    record(&Row {
        fault: code,
        load,
        promised: "retried within the call's timeout, each call executed once",
        counted,
    });
}
