//! Shutdown by the host, by SIGTERM and by SIGINT with calls in flight: every call completes. A second
//! signal ends the process at once, and so does a first one without NATS.

// Guarantees: G53

use std::time::Duration;

use rustix::process::Signal;
use test_support::client::{CallFailure, Client, Error};
use test_support::proxy::Proxy;
use test_support::test_env::{COMPONENT, TestEnv};
use test_support::wait::{eventually, test_timeout};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::scenario::{Row, pick, record};

/// Longer than anything here takes, so that no call reaches its timeout.
const LONG_TIMEOUT_MS: u64 = 60_000;
const LONG_RESPONSE_TIMEOUT: (&str, &str) = ("BACKEND_RESPONSE_TIMEOUT_MS", "60000");
/// The 5 s for calls in flight, with an allowance for busy machines.
const DRAIN_LIMIT: Duration = Duration::from_secs(12);
/// "At once" on a busy machine: less than the 5 s for calls in flight.
const IMMEDIATE_EXIT_LIMIT: Duration = Duration::from_secs(3);

#[derive(Clone, Copy, Debug)]
enum Trigger {
    Host,
    Signal(Signal),
}

/// The totals over the callers of a shutdown.
#[derive(Default)]
struct Tally {
    completed: u64,
    held: usize,
    exited_after: Duration,
}

#[tokio::test]
async fn a_shutdown_by_the_host_completes_calls_in_flight() {
    shut_down_repeatedly("shutdown by the host", Trigger::Host).await;
}

#[tokio::test]
async fn sigterm_completes_calls_in_flight() {
    shut_down_repeatedly("SIGTERM", Trigger::Signal(Signal::TERM)).await;
}

#[tokio::test]
async fn sigint_completes_calls_in_flight() {
    shut_down_repeatedly("SIGINT", Trigger::Signal(Signal::INT)).await;
}

async fn shut_down_repeatedly(fault: &str, trigger: Trigger) {
    let rounds = pick(1, 10);
    let callers = pick(64, 256);
    let mut sum = Tally::default();
    for _ in 0..rounds {
        let tally = shut_down_with_calls_in_flight(trigger, callers).await;
        sum.completed += tally.completed;
        sum.held += tally.held;
        sum.exited_after = sum.exited_after.max(tally.exited_after);
    }
    record(&Row {
        fault,
        load: &format!(
            "{callers} callers that increment, {} calls pending in Redis, {rounds} repetitions",
            sum.held / rounds
        ),
        promised: "no new calls are accepted, calls in flight complete, exit code 0",
        counted: format!(
            "{} calls completed, {} of them held until after the shutdown started; 0 lost, 0 applied twice; exit code 0 within {:.1?}",
            sum.completed + sum.held as u64,
            sum.held,
            sum.exited_after
        ),
    });
}

/// Ends a provider with calls in flight on two links: one is busy; the replies to the other are held
/// back until the provider accepts no more calls.
async fn shut_down_with_calls_in_flight(trigger: Trigger, callers: usize) -> Tally {
    let mut env = TestEnv::builder()
        .rpc_timeout_ms(Some(LONG_TIMEOUT_MS))
        .start()
        .await;
    let proxy = Proxy::start(env.redis.port()).await;
    let slow = slow_link(&env, &proxy).await;
    let held = hold_calls(&slow, &proxy, callers).await;
    let busy: Vec<_> = (0..callers)
        .map(|_| increment_until_error(&env.client))
        .collect();
    eventually("calls are made", async || {
        count(&env).await > 4 * callers as u64
    })
    .await;
    let started = Instant::now();
    let host = match trigger {
        Trigger::Host => Some(&env.host),
        Trigger::Signal(signal) => {
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
    let release_calls = async {
        wait_until_calls_are_rejected(&env.client).await;
        assert!(held.iter().all(|call| !call.is_finished()));
        proxy.release();
    };
    let (acknowledged, ()) = tokio::join!(shutdown, release_calls);
    assert!(acknowledged, "no reply to the host");
    for call in &mut { held } {
        assert_eq!(call.await.unwrap(), Ok(Some(b"v".to_vec())));
    }
    assert_eq!(env.provider.wait().await.code(), Some(0), "{trigger:?}");
    let exited_after = started.elapsed();
    assert!(exited_after < DRAIN_LIMIT, "it took {exited_after:?}");
    let mut completed = 0;
    for caller in busy {
        let (served, end) = caller.await.unwrap();
        assert_eq!(end, Error::Call(CallFailure::NoResponders), "{trigger:?}");
        completed += served;
    }
    assert_eq!(
        count(&env).await,
        completed,
        "successful increments differ from the stored sum"
    );
    env.wait_for_no_connections().await;
    Tally {
        completed,
        held: callers,
        exited_after,
    }
}

#[tokio::test]
async fn a_second_signal_ends_the_process_at_once() {
    let pairs = [
        (Signal::TERM, Signal::TERM, 143),
        (Signal::INT, Signal::INT, 130),
        (Signal::TERM, Signal::INT, 130),
    ];
    let mut slowest = Duration::ZERO;
    for (first, second, code) in pairs {
        let mut env = TestEnv::builder()
            .rpc_timeout_ms(Some(LONG_TIMEOUT_MS))
            .start()
            .await;
        let proxy = Proxy::start(env.redis.port()).await;
        let slow = slow_link(&env, &proxy).await;
        let held = hold_calls(&slow, &proxy, 8).await;
        env.provider.signal(first);
        wait_until_calls_are_rejected(&env.client).await;
        assert_eq!(env.provider.try_wait(), None, "calls are in flight");
        let started = Instant::now();
        env.provider.signal(second);
        assert_eq!(env.provider.wait().await.code(), Some(code));
        let took = started.elapsed();
        assert!(took < IMMEDIATE_EXIT_LIMIT, "it took {took:?}");
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
async fn a_signal_ends_the_process_without_nats() {
    let mut env = TestEnv::start().await;
    env.client.set("", "k", b"v").await.unwrap();
    env.nats.stop();
    env.provider
        .wait_for_log(&["lost the connection to NATS"])
        .await;
    let started = Instant::now();
    env.provider.signal(Signal::TERM);
    assert_eq!(env.provider.wait().await.code(), Some(0));
    let took = started.elapsed();
    assert!(took < DRAIN_LIMIT, "it took {took:?}");
    env.wait_for_no_connections().await;
    record(&Row {
        fault: "SIGTERM while NATS is unavailable",
        load: "none",
        promised: "connections are closed, exit code 0",
        counted: format!("exit code 0 after {took:.1?}, 0 connections open"),
    });
}

/// After the restart, the client has delivered more messages than the server has sent since, which
/// must not end the subscription early.
#[tokio::test]
async fn a_signal_ends_the_process_after_nats_restarted() {
    let mut env = TestEnv::builder()
        .rpc_timeout_ms(Some(LONG_TIMEOUT_MS))
        .start()
        .await;
    for _ in 0..300 {
        env.client.increment("", "before", 1).await.unwrap();
    }
    env.nats.restart().await;
    eventually("the provider serves again", async || {
        let client = env.client.timeout(Duration::from_millis(200));
        client.get("", "before").await.is_ok()
    })
    .await;
    let proxy = Proxy::start(env.redis.port()).await;
    let slow = slow_link(&env, &proxy).await;
    let held = hold_calls(&slow, &proxy, 8).await;
    let callers = pick(64, 256);
    let busy: Vec<_> = (0..callers)
        .map(|_| increment_until_error(&env.client))
        .collect();
    eventually("calls are made", async || count(&env).await > 4 * callers).await;
    env.provider.signal(Signal::TERM);
    wait_until_calls_are_rejected(&env.client).await;
    proxy.release();
    for call in held {
        assert_eq!(call.await.unwrap(), Ok(Some(b"v".to_vec())));
    }
    assert_eq!(env.provider.wait().await.code(), Some(0));
    for caller in busy {
        caller.abort();
    }
}

/// A link to Redis through the proxy.
async fn slow_link(env: &TestEnv, proxy: &Proxy) -> Client {
    let client = env
        .link(
            COMPONENT,
            "slow",
            &[("URL", &proxy.url()), LONG_RESPONSE_TIMEOUT],
        )
        .await;
    client.set("", "k", b"v").await.unwrap();
    client.timeout(Duration::from_millis(LONG_TIMEOUT_MS))
}

/// Calls whose replies from Redis are held back by the proxy.
async fn hold_calls(
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

async fn wait_until_calls_are_rejected(client: &Client) {
    eventually("new calls are not accepted", async || {
        let client = client.timeout(Duration::from_millis(500));
        client.probe().await == Err(Error::Call(CallFailure::NoResponders))
    })
    .await;
}

/// Increments until calls are not accepted; returns the number of increments and the final error.
fn increment_until_error(client: &Client) -> JoinHandle<(u64, Error)> {
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
