//! Shutdown by the host, by SIGTERM and by SIGINT in the middle of calls: each of them is
//! answered. A second signal ends the process at once, and so does a first one without NATS.

use std::time::Duration;

use rustix::process::Signal;
use test_support::client::{CallFailure, Client, Error};
use test_support::proxy::Proxy;
use test_support::test_env::{COMPONENT, TestEnv};
use test_support::wait::{eventually, test_timeout};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::scale::{Row, pick, record};

/// Longer than anything here takes, so that no call ends because its time is up.
const LONG_MS: u64 = 60_000;
const PATIENT: (&str, &str) = ("BACKEND_RESPONSE_TIMEOUT_MS", "60000");
/// The 5 s that calls under way are given, and what a busy machine may add.
const DRAINED: Duration = Duration::from_secs(12);
/// What "at once" may be on a busy machine: less than the 5 s that calls would be given.
const AT_ONCE: Duration = Duration::from_secs(3);

#[derive(Clone, Copy, Debug)]
enum Ending {
    Host,
    Signal(Signal),
}

/// What the callers of one ending counted.
#[derive(Default)]
struct Tally {
    answered: u64,
    held: usize,
    ended_after: Duration,
}

#[tokio::test]
async fn the_host_ends_it() {
    ends("shutdown by the host", Ending::Host).await;
}

#[tokio::test]
async fn sigterm_ends_it() {
    ends("SIGTERM", Ending::Signal(Signal::TERM)).await;
}

#[tokio::test]
async fn sigint_ends_it() {
    ends("SIGINT", Ending::Signal(Signal::INT)).await;
}

async fn ends(fault: &str, ending: Ending) {
    let rounds = pick(1, 10);
    let callers = pick(64, 256);
    let mut sum = Tally::default();
    for _ in 0..rounds {
        let tally = end_in_the_middle(ending, callers).await;
        sum.answered += tally.answered;
        sum.held += tally.held;
        sum.ended_after = sum.ended_after.max(tally.ended_after);
    }
    record(&Row {
        fault,
        load: &format!(
            "{callers} callers that increment, {} calls pending in Redis, {rounds} repetitions",
            sum.held / rounds
        ),
        promised: "no new calls are accepted, calls in flight complete, exit code 0",
        counted: format!(
            "{} calls completed, {} of them held until after the shutdown began; 0 lost, 0 applied twice; exit code 0 within {:.1?}",
            sum.answered + sum.held as u64,
            sum.held,
            sum.ended_after
        ),
    });
}

/// Ends a provider with calls under way over two links: one is busy, Redis's answers to the other
/// are held back until the provider takes no more calls.
async fn end_in_the_middle(ending: Ending, callers: usize) -> Tally {
    let mut env = TestEnv::builder()
        .rpc_timeout_ms(Some(LONG_MS))
        .start()
        .await;
    let proxy = Proxy::start(env.redis.port()).await;
    let slow = slow_link(&env, &proxy).await;
    let held = hold(&slow, &proxy, callers).await;
    let busy: Vec<_> = (0..callers).map(|_| increment_on(&env.client)).collect();
    eventually("calls are made", async || {
        count(&env).await > 4 * callers as u64
    })
    .await;
    let begun = Instant::now();
    let host = match ending {
        Ending::Host => Some(&env.host),
        Ending::Signal(signal) => {
            env.provider.signal(signal);
            None
        }
    };
    let shutdown = async {
        match host {
            Some(host) => host.shutdown().await.is_some(),
            None => true,
        }
    };
    let middle = async {
        takes_no_calls(&env.client).await;
        assert!(held.iter().all(|call| !call.is_finished()));
        proxy.release();
    };
    let (answered, ()) = tokio::join!(shutdown, middle);
    assert!(answered, "the host is answered");
    for call in &mut { held } {
        assert_eq!(call.await.unwrap(), Ok(Some(b"v".to_vec())));
    }
    assert_eq!(env.provider.wait().await.code(), Some(0), "{ending:?}");
    let ended_after = begun.elapsed();
    assert!(ended_after < DRAINED, "it took {ended_after:?}");
    let mut answered = 0;
    for caller in busy {
        let (served, end) = caller.await.unwrap();
        assert_eq!(end, Error::Call(CallFailure::NoResponders), "{ending:?}");
        answered += served;
    }
    assert_eq!(count(&env).await, answered, "each answer is one increment");
    env.wait_for_no_connections().await;
    Tally {
        answered,
        held: callers,
        ended_after,
    }
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let pairs = [
        (Signal::TERM, Signal::TERM, 143),
        (Signal::INT, Signal::INT, 130),
        (Signal::TERM, Signal::INT, 130),
    ];
    let mut slowest = Duration::ZERO;
    for (first, second, code) in pairs {
        let mut env = TestEnv::builder()
            .rpc_timeout_ms(Some(LONG_MS))
            .start()
            .await;
        let proxy = Proxy::start(env.redis.port()).await;
        let slow = slow_link(&env, &proxy).await;
        let held = hold(&slow, &proxy, 8).await;
        env.provider.signal(first);
        takes_no_calls(&env.client).await;
        assert_eq!(env.provider.try_wait(), None, "calls are under way");
        let begun = Instant::now();
        env.provider.signal(second);
        assert_eq!(env.provider.wait().await.code(), Some(code));
        let took = begun.elapsed();
        assert!(took < AT_ONCE, "it took {took:?}");
        slowest = slowest.max(took);
        for call in held {
            call.abort();
        }
    }
    record(&Row {
        fault: "a second SIGTERM or SIGINT",
        load: "8 calls pending in Redis",
        promised: "exits immediately with 128 + the signal's number",
        counted: format!(
            "{} of {} exited so, within {slowest:.1?}",
            pairs.len(),
            pairs.len()
        ),
    });
}

#[tokio::test]
async fn a_signal_ends_it_without_nats() {
    let mut env = TestEnv::start().await;
    env.client.set("", "k", b"v").await.unwrap();
    env.nats.stop();
    env.provider
        .wait_for_log(&["lost the connection to NATS"])
        .await;
    let begun = Instant::now();
    env.provider.signal(Signal::TERM);
    assert_eq!(env.provider.wait().await.code(), Some(0));
    let took = begun.elapsed();
    assert!(took < DRAINED, "it took {took:?}");
    env.wait_for_no_connections().await;
    record(&Row {
        fault: "SIGTERM while NATS is unavailable",
        load: "none",
        promised: "connections are closed, exit code 0",
        counted: format!("exit code 0 after {took:.1?}, 0 connections open"),
    });
}

/// From then on the client has counted more calls than the server, which must not make the one end
/// the subscription before the other.
#[tokio::test]
async fn a_signal_ends_it_after_nats_has_restarted() {
    let mut env = TestEnv::builder()
        .rpc_timeout_ms(Some(LONG_MS))
        .start()
        .await;
    for _ in 0..300 {
        env.client.increment("", "before", 1).await.unwrap();
    }
    env.nats.restart().await;
    eventually("it is back", async || {
        let client = env.client.timeout(Duration::from_millis(200));
        client.get("", "before").await.is_ok()
    })
    .await;
    let proxy = Proxy::start(env.redis.port()).await;
    let slow = slow_link(&env, &proxy).await;
    let held = hold(&slow, &proxy, 8).await;
    let callers = pick(64, 256);
    let busy: Vec<_> = (0..callers).map(|_| increment_on(&env.client)).collect();
    eventually("calls are made", async || count(&env).await > 4 * callers).await;
    env.provider.signal(Signal::TERM);
    takes_no_calls(&env.client).await;
    proxy.release();
    for call in held {
        assert_eq!(call.await.unwrap(), Ok(Some(b"v".to_vec())));
    }
    assert_eq!(env.provider.wait().await.code(), Some(0));
    for caller in busy {
        caller.abort();
    }
}

/// A link whose Redis is behind the proxy.
async fn slow_link(env: &TestEnv, proxy: &Proxy) -> Client {
    let client = env
        .link(COMPONENT, "slow", &[("URL", &proxy.url()), PATIENT])
        .await;
    client.set("", "k", b"v").await.unwrap();
    client.timeout(Duration::from_millis(LONG_MS))
}

/// Calls that Redis has answered and the proxy keeps to itself.
async fn hold(
    client: &Client,
    proxy: &Proxy,
    calls: usize,
) -> Vec<JoinHandle<Result<Option<Vec<u8>>, Error>>> {
    proxy.hold_replies();
    let held = (0..calls)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.get("", "k").await })
        })
        .collect();
    eventually("the calls are with Redis", async || {
        proxy.command_count("GET") == calls
    })
    .await;
    held
}

async fn takes_no_calls(client: &Client) {
    eventually("it takes no calls", async || {
        let client = client.timeout(Duration::from_millis(500));
        client.probe().await == Err(Error::Call(CallFailure::NoResponders))
    })
    .await;
}

/// Increments until nobody takes calls; answers how often it was done and how it ended.
fn increment_on(client: &Client) -> JoinHandle<(u64, Error)> {
    let client = client.timeout(test_timeout());
    tokio::spawn(async move {
        let mut served = 0;
        loop {
            match client.increment("", "n", 1).await {
                Ok(_) => served += 1,
                Err(error) => return (served, error),
            }
        }
    })
}

async fn count(env: &TestEnv) -> u64 {
    env.redis
        .command::<Option<u64>>(&["GET", "n"])
        .await
        .unwrap_or(0)
}
