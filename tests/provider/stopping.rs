//! Shutdown by the host and by signals, with and without calls in flight.

// Guarantees: G53

use std::time::Duration;

use rustix::process::Signal;
use test_support::client::{CallFailure, Client, Error};
use test_support::host::Link;
use test_support::provider::ProviderProcess;
use test_support::proxy::Proxy;
use test_support::test_env::{COMPONENT, TestEnv};
use test_support::wait::{eventually, eventually_eq, test_timeout};
use tokio::task::JoinHandle;

#[tokio::test]
async fn a_shutdown_message_ends_the_process() {
    let mut env = TestEnv::start().await;
    env.client.set("", "k", b"v").await.unwrap();
    // A host kills the process after 300 ms; a busy machine gets more time here.
    let result = env
        .host
        .shutdown_as(env.host.host_id(), test_timeout() / 20)
        .await;
    assert!(result.is_some(), "no reply to the host in time");
    assert_eq!(env.provider.wait().await.code(), Some(0));
    env.wait_for_no_connections().await;
    assert_eq!(
        env.client.get("", "k").await,
        Err(Error::Call(CallFailure::NoResponders)),
        "a call after the shutdown"
    );
}

#[tokio::test]
async fn shutdown_messages_of_other_hosts_are_ignored() {
    let env = TestEnv::start().await;
    let limit = Duration::from_millis(300);
    assert_eq!(
        env.host
            .shutdown_as(env.host.second_host().host_id(), limit)
            .await,
        None
    );
    assert_eq!(env.host.shutdown_as("", limit).await, None);
    assert!(env.host.health().await.unwrap().healthy);
    env.client.set("", "k", b"v").await.unwrap();
}

#[tokio::test]
async fn sigterm_and_sigint_end_the_process() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut env = TestEnv::start().await;
        env.client.set("", "k", b"v").await.unwrap();
        env.provider.signal(signal);
        assert_eq!(env.provider.wait().await.code(), Some(0), "{signal:?}");
        env.wait_for_no_connections().await;
    }
}

#[tokio::test]
async fn calls_in_flight_complete_before_the_host_gets_its_reply() {
    let mut env = TestEnv::builder()
        .rpc_timeout_ms(Some(60_000))
        .start()
        .await;
    let proxy = Proxy::start(env.redis.port()).await;
    let call = held_call(&env, &proxy).await;
    let shutdown = env.host.shutdown();
    let release = async {
        // New calls are not accepted any more, which shows that the shutdown has started.
        eventually("new calls are not accepted", async || {
            let client = env.client.timeout(Duration::from_millis(500));
            client.probe().await == Err(Error::Call(CallFailure::NoResponders))
        })
        .await;
        assert!(!call.is_finished());
        proxy.release();
        assert_eq!(call.await.unwrap(), Ok(Some(b"v".to_vec())));
    };
    let (result, ()) = tokio::join!(shutdown, release);
    assert!(result.is_some());
    assert_eq!(env.provider.wait().await.code(), Some(0));
}

#[tokio::test]
async fn calls_in_flight_complete_after_a_signal() {
    let mut env = TestEnv::builder()
        .rpc_timeout_ms(Some(60_000))
        .start()
        .await;
    let proxy = Proxy::start(env.redis.port()).await;
    let call = held_call(&env, &proxy).await;
    env.provider.signal(Signal::TERM);
    eventually("new calls are not accepted", async || {
        let client = env.client.timeout(Duration::from_millis(500));
        client.probe().await == Err(Error::Call(CallFailure::NoResponders))
    })
    .await;
    assert_eq!(env.provider.try_wait(), None);
    proxy.release();
    assert_eq!(call.await.unwrap(), Ok(Some(b"v".to_vec())));
    assert_eq!(env.provider.wait().await.code(), Some(0));
}

#[tokio::test]
async fn accepted_calls_are_not_lost_on_shutdown() {
    for _ in 0..3 {
        let mut env = TestEnv::start().await;
        let callers: Vec<_> = (0..16).map(|_| call_until_refused(&env.client)).collect();
        eventually("calls are made", async || count(&env).await > 100).await;
        assert!(env.host.shutdown().await.is_some());
        assert_eq!(env.provider.wait().await.code(), Some(0));
        let mut counted = 0;
        for caller in callers {
            let (served, end) = caller.await.unwrap();
            assert_eq!(
                end,
                Error::Call(CallFailure::NoResponders),
                "a call failed after it was accepted"
            );
            counted += served;
        }
        assert_eq!(count(&env).await, counted);
    }
}

// Guarantees: G11
#[tokio::test]
async fn stopping_one_of_two_processes_fails_no_call() {
    let env = TestEnv::builder().unlinked().start().await;
    let host = env.host.second_host();
    let mut second = ProviderProcess::start(&host.data());
    env.host.ready_processes(2).await;
    let link = Link::new(COMPONENT, "default").config(&[("URL", &env.redis.url())]);
    env.host.put(&link).await;
    host.put(&link).await;
    eventually_eq("both processes have connected", 2, async || {
        env.redis.connections().await
    })
    .await;
    let callers: Vec<_> = (0..16).map(|_| call_until_refused(&env.client)).collect();
    eventually("calls are made", async || count(&env).await > 100).await;
    assert!(host.shutdown().await.is_some());
    assert_eq!(second.wait().await.code(), Some(0));
    let before = count(&env).await;
    eventually("the other process serves all calls", async || {
        count(&env).await > before + 100
    })
    .await;
    assert!(callers.iter().all(|caller| !caller.is_finished()));
    env.host.shutdown().await.unwrap();
    for caller in callers {
        assert_eq!(
            caller.await.unwrap().1,
            Error::Call(CallFailure::NoResponders)
        );
    }
}

#[tokio::test]
async fn hanging_calls_do_not_delay_the_shutdown() {
    let mut env = TestEnv::builder()
        .rpc_timeout_ms(Some(600_000))
        .start()
        .await;
    let proxy = Proxy::start(env.redis.port()).await;
    let call = held_call(&env, &proxy).await;
    // Calls in flight get 5 s.
    assert!(
        env.host
            .shutdown_as(env.host.host_id(), test_timeout())
            .await
            .is_some()
    );
    assert_eq!(env.provider.wait().await.code(), Some(0));
    let result = call.await.unwrap();
    assert!(
        !matches!(result, Err(Error::Call(_))),
        "the hanging call did not fail with an error: {result:?}"
    );
}

#[tokio::test]
async fn the_shutdown_does_not_wait_for_connection_attempts() {
    let mut env = TestEnv::start().await;
    let down = test_support::redis::Redis::stopped();
    env.link(COMPONENT, "down", &[("URL", &down.url())]).await;
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", silent.local_addr().unwrap());
    env.link(COMPONENT, "mute", &[("URL", &url)]).await;
    assert!(
        env.host
            .shutdown_as(env.host.host_id(), Duration::from_secs(4))
            .await
            .is_some()
    );
    assert_eq!(env.provider.wait().await.code(), Some(0));
}

/// Increments until calls are not accepted; returns the number of increments and the final error.
fn call_until_refused(client: &Client) -> JoinHandle<(u64, Error)> {
    let client = client.clone();
    tokio::spawn(async move {
        let mut served = 0;
        loop {
            match client.increment("", "n", 1).await {
                Ok(_) => served += 1,
                Err(end) => return (served, end),
            }
        }
    })
}

/// The value that those calls have reached.
async fn count(env: &TestEnv) -> u64 {
    env.redis
        .command::<Option<u64>>(&["GET", "n"])
        .await
        .unwrap_or(0)
}

/// A call whose reply from Redis is held back by the proxy.
async fn held_call(env: &TestEnv, proxy: &Proxy) -> JoinHandle<Result<Option<Vec<u8>>, Error>> {
    let config = [
        ("URL", &*proxy.url()),
        ("BACKEND_RESPONSE_TIMEOUT_MS", "60000"),
    ];
    let client: Client = env.link(COMPONENT, "held", &config).await;
    client.set("", "k", b"v").await.unwrap();
    proxy.hold_replies();
    let call = tokio::spawn(async move { client.get("", "k").await });
    eventually("the call is with Redis", async || {
        proxy.command_count("GET") == 1
    })
    .await;
    call
}
