//! NATS restarts, or is unreachable for a while. The provider recovers within two seconds, with all its
//! links, although no host puts them again.

// Guarantees: G49

use std::collections::BTreeMap;
use std::time::Duration;

use rustix::process::Signal;
use test_support::client::Client;
use test_support::host::{Host, Link};
use test_support::nats::Nats;
use test_support::provider::ProviderProcess;
use test_support::proxy::{Fault, Proxy};
use test_support::redis::Redis;
use test_support::test_env::{COMPONENT, TestEnv};
use test_support::wait::{eventually, test_timeout};
use tokio::time::{Instant, sleep, timeout};

use crate::latency::s;
use crate::scenario::{Row, pick, record};

/// The time limit of a recovery.
const RECOVERY_LIMIT: Duration = Duration::from_secs(2);

const LOAD: &str = "3 links: from the host data, put, put with secrets";

/// Three links that reach the provider in three ways: in the host data, by a put, and by a put with
/// secrets.
struct ThreeLinks {
    clients: Vec<Client>,
    /// The number of increments over each link.
    rounds: u64,
    /// The ids of the provider's connections in Redis, by client name.
    connections: BTreeMap<String, String>,
}

#[tokio::test]
async fn the_provider_recovers_from_repeated_nats_restarts() {
    let mut env = start_env().await;
    let mut links = ThreeLinks::new(&env).await;
    let rounds = pick(3, 20);
    let mut slowest = Duration::ZERO;
    for _ in 0..rounds {
        env.nats.restart().await;
        slowest = slowest.max(links.wait_until_serving().await);
    }
    links.assert_redis_connections_unchanged(&env).await;
    assert_receives_host_messages(&mut env).await;
    report(&format!("NATS restarted, {rounds} times"), slowest);
}

#[tokio::test]
async fn the_provider_recovers_from_a_nats_outage() {
    let mut env = start_env().await;
    let mut links = ThreeLinks::new(&env).await;
    let outage = Duration::from_secs(10);
    env.nats.stop();
    sleep(outage).await;
    env.nats.restart().await;
    let took = links.wait_until_serving().await;
    links.assert_redis_connections_unchanged(&env).await;
    assert_receives_host_messages(&mut env).await;
    report(&format!("NATS down for {outage:?}"), took);
}

#[tokio::test]
async fn the_provider_recovers_from_an_unreachable_nats() {
    let (nats, redis) = tokio::join!(Nats::start(), Redis::start());
    let proxy = Proxy::opaque(nats.port()).await;
    let mut env = start_env_at(nats, redis, proxy.address("nats")).await;
    let mut links = ThreeLinks::new(&env).await;
    let outage = Duration::from_secs(pick(10, 60));
    proxy.inject(Fault::Stall);
    sleep(outage).await;
    proxy.release();
    let took = links.wait_until_serving().await;
    links.assert_redis_connections_unchanged(&env).await;
    assert_receives_host_messages(&mut env).await;
    report(&format!("NATS unreachable for {outage:?}"), took);
}

#[tokio::test]
async fn the_provider_recovers_from_a_silently_dropped_nats_connection() {
    let (nats, redis) = tokio::join!(Nats::start(), Redis::start());
    let proxy = Proxy::opaque(nats.port()).await;
    let mut env = start_env_at(nats, redis, proxy.address("nats")).await;
    let mut links = ThreeLinks::new(&env).await;
    proxy.inject(Fault::StallForever);
    let on_dropped_connection = env.client.timeout(Duration::from_millis(200));
    assert!(on_dropped_connection.get("", "k").await.is_err());
    proxy.release();
    // Both ends consider it open until three pings, 4 s apart, have no reply and the next is due.
    let took = links.wait_until_serving().await;
    links.assert_redis_connections_unchanged(&env).await;
    assert_receives_host_messages(&mut env).await;
    assert!(took < Duration::from_secs(pick(23, 20)), "{took:?}");
    record(&Row {
        fault: "connection to NATS silently dropped by the network",
        load: LOAD,
        promised: "service resumes without a restart, no link or connection to Redis is lost",
        counted: format!("all 3 links serve after {}", s(took)),
    });
}

#[tokio::test]
async fn a_hanging_nats_reconnect_ends_the_process() {
    let (nats, redis) = tokio::join!(Nats::start(), Redis::start());
    let proxy = Proxy::opaque(nats.port()).await;
    let mut env = start_env_at(nats, redis, proxy.address("nats")).await;
    let before = proxy.connect_times().len();
    proxy.inject(Fault::StallForever);
    proxy.disconnect_all();
    eventually("the provider tries to connect", async || {
        proxy.connect_times().len() > before
    })
    .await;
    // The attempt never completes: after 15 s the process ends, and the host restarts it.
    let started = Instant::now();
    assert_eq!(env.provider.wait().await.code(), Some(1));
    let took = started.elapsed();
    assert_eq!(
        env.provider
            .stop_and_count_log(&["does not complete", "restarts kvredis"])
            .await,
        1
    );
    assert!(took < Duration::from_secs(pick(23, 20)), "{took:?}");
    env.wait_for_no_connections().await;
    record(&Row {
        fault: "NATS accepts the reconnect and sends no INFO",
        load: "none",
        promised: "the process exits, so that the host restarts it with all links",
        counted: format!("exited after {}", s(took)),
    });
}

// Guarantees: G53
#[tokio::test]
async fn the_provider_stops_during_a_nats_outage() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut env = TestEnv::start().await;
        env.client.set("", "k", b"v").await.unwrap();
        env.nats.stop();
        env.provider.signal(signal);
        let started = Instant::now();
        let status = env.provider.wait().await;
        assert_eq!(status.code(), Some(0), "{signal:?}");
        // 5 s for calls in flight, of which there are none, and an allowance for busy machines.
        let took = started.elapsed();
        assert!(took < Duration::from_secs(10), "{signal:?}: {took:?}");
        env.wait_for_no_connections().await;
    }
}

// Guarantees: G52
#[tokio::test]
async fn the_provider_waits_for_nats_at_startup() {
    let mut nats = Nats::start().await;
    let redis = Redis::start().await;
    let host = Host::new(nats.connect().await, nats.url());
    nats.stop();
    let provider = ProviderProcess::start(&host.data());
    provider.wait_for_log(&["cannot connect to NATS yet"]).await;
    nats.restart().await;
    host.ready().await;
    let client = client(&host).await;
    let env = TestEnv {
        client,
        host,
        provider,
        redis,
        nats,
    };
    let late = env.link("late", "default", &[]).await;
    late.set("", "k", b"v").await.unwrap();
}

/// An environment whose provider connects to NATS directly.
async fn start_env() -> TestEnv {
    let (nats, redis) = tokio::join!(Nats::start(), Redis::start());
    let url = nats.url();
    start_env_at(nats, redis, url).await
}

/// An environment whose provider connects to `url` and has one link in the host data.
async fn start_env_at(nats: Nats, redis: Redis, url: String) -> TestEnv {
    let host = Host::new(nats.connect().await, url);
    let mut data = host.data();
    let link = Link::new(COMPONENT, "default").config(&[("URL", &redis.url())]);
    data.link_definitions = vec![host.definition(&link)];
    let provider = ProviderProcess::start(&data);
    host.ready().await;
    TestEnv {
        client: client(&host).await,
        host,
        provider,
        redis,
        nats,
    }
}

async fn client(host: &Host) -> Client {
    let nats = host.nats().clone();
    let (lattice, provider) = (host.lattice(), host.provider_id());
    Client::new(nats, lattice, provider, COMPONENT, "default").await
}

impl ThreeLinks {
    async fn new(env: &TestEnv) -> Self {
        let rules = ["ACL", "SETUSER", "app", "on", ">pw", "~*", "+@all"];
        let () = env.redis.command(&rules).await;
        let with_secrets = Link::new("sealed", "default")
            .config(&[("URL", &env.redis.url())])
            .secrets(&[("USERNAME", "app"), ("PASSWORD", "pw")]);
        let mut links = Self {
            clients: vec![
                env.client.clone(),
                env.link("put", "named", &[("PREFIX", "p:")]).await,
                env.add_link(&with_secrets).await,
            ],
            rounds: 0,
            connections: BTreeMap::new(),
        };
        links.wait_until_serving().await;
        links.connections = connections(&env.redis).await;
        assert_eq!(links.connections.len(), 3);
        links
    }

    /// Waits until all links serve; returns the time taken.
    async fn wait_until_serving(&mut self) -> Duration {
        let started = Instant::now();
        let all = async {
            for (i, client) in self.clients.iter().enumerate() {
                // The call fails by its own timeout when it is not accepted.
                let client = client.timeout(Duration::from_millis(200));
                let key = format!("rounds{i}");
                let round = self.rounds.to_string();
                while client.set("", &key, &round).await.is_err() {}
                let value = client.timeout(test_timeout()).get("", &key).await;
                assert_eq!(value, Ok(Some(round.into_bytes())), "link {i}");
            }
        };
        timeout(test_timeout(), all)
            .await
            .expect("all links serve again");
        self.rounds += 1;
        started.elapsed()
    }

    /// Asserts that the NATS fault has not affected the connections to Redis.
    async fn assert_redis_connections_unchanged(&self, env: &TestEnv) {
        assert_eq!(connections(&env.redis).await, self.connections);
    }
}

async fn connections(redis: &Redis) -> BTreeMap<String, String> {
    let clients = redis.kvredis_clients().await;
    clients
        .into_iter()
        .map(|mut client| {
            let mut field = |name| client.remove(name).expect("CLIENT LIST has the field");
            (field("name"), field("id"))
        })
        .collect()
}

/// Asserts that all subscriptions exist: health, links and deletions, configuration, shutdown.
async fn assert_receives_host_messages(env: &mut TestEnv) {
    env.host.ready().await;
    let late = env.link("late", "default", &[]).await;
    late.set("", "k", b"v").await.unwrap();
    env.unlink("late", "default").await;
    env.host.update_config(&[("SCAN_COUNT", "10")]).await;
    env.provider
        .wait_for_log(&["configuration has changed"])
        .await;
    assert!(env.host.shutdown().await.is_some());
    assert_eq!(env.provider.wait().await.code(), Some(0));
}

fn report(fault: &str, took: Duration) {
    // Other tests run beside the short form.
    let allowed = RECOVERY_LIMIT + Duration::from_secs(pick(3, 0));
    assert!(took <= allowed, "{fault}: served again after {took:?}");
    record(&Row {
        fault,
        load: LOAD,
        promised: "service resumes within 2 s, no link or connection is lost",
        counted: format!(
            "all 3 links serve after {}, 0 connections replaced",
            s(took)
        ),
    });
}
