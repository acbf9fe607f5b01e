//! The cost of a call on the serving thread, counted in allocations. Unlike times, allocations are the
//! same on every machine, so that a test can bound them; `make bench` measures the rest.

// Guarantees: G50

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::HashMap;
use std::sync::Arc;

use test_support::client::Client;
use test_support::nats::Nats;
use test_support::redis::Redis;
use test_support::wait::test_timeout;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

const CALLS: u64 = 500;
const BATCH: usize = 100;

/// A server on the runtime of this thread, and its callers on another runtime.
struct ServerThread {
    inside: Runtime,
    outside: Runtime,
    client: Client,
    _redis: Redis,
    _nats: Nats,
}

impl ServerThread {
    fn start() -> Self {
        let inside = Builder::new_current_thread().enable_all().build().unwrap();
        let outside = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (nats, redis, client) = outside.block_on(async {
            let nats = Nats::start().await;
            let client = nats.connect().await;
            let client = Client::new(client, "lattice", "provider", "component", "default").await;
            (nats, Redis::start().await, client)
        });
        let config = HashMap::from([("URL".to_owned(), redis.url())]);
        inside.block_on(async {
            let nats = nats.connect().await;
            kvredis::testing::serve(nats, ("lattice", "provider"), "component", &config)
                .await
                .unwrap();
        });
        let caller = client.clone();
        let accepted = outside.spawn(async move { while caller.get("", "k").await.is_err() {} });
        inside
            .block_on(async { timeout(test_timeout(), accepted).await })
            .expect("calls are accepted before the timeout")
            .unwrap();
        Self {
            inside,
            outside,
            client,
            _redis: redis,
            _nats: nats,
        }
    }

    /// The allocations of the serving thread per call, over many sequential calls.
    fn allocations<F: Future<Output = ()> + Send>(
        &self,
        call: impl Fn(Client) -> F + Clone + Send + 'static,
    ) -> u64 {
        let run = |calls| {
            let (client, call) = (self.client.clone(), call.clone());
            let calls = self.outside.spawn(async move {
                for _ in 0..calls {
                    call(client.clone()).await;
                }
            });
            self.inside.block_on(calls).unwrap();
        };
        run(50);
        allocation_counter::measure(|| run(CALLS)).count_total / CALLS
    }
}

#[test]
fn allocations_per_call_stay_within_bounds() {
    let bench = ServerThread::start();
    let value = Arc::new(vec![7; 100]);
    let keys: Arc<Vec<String>> = Arc::new((0..BATCH).map(|key| format!("key-{key}")).collect());

    let set = {
        let value = Arc::clone(&value);
        bench.allocations(move |client| {
            let value = Arc::clone(&value);
            async move { client.set("", "k", value.as_slice()).await.unwrap() }
        })
    };
    let get = bench.allocations(|client| async move {
        assert!(client.get("", "k").await.unwrap().is_some());
    });
    let increment = bench.allocations(|client| async move {
        assert!(client.increment("", "n", 1).await.unwrap() > 0);
    });
    let written = Arc::clone(&keys);
    bench.allocations(move |client| {
        let keys = Arc::clone(&written);
        async move {
            let pairs: Vec<_> = keys.iter().map(|key| (key.as_str(), "v")).collect();
            client.set_many("", &pairs).await.unwrap();
        }
    });
    let get_many = bench.allocations(move |client| {
        let keys = Arc::clone(&keys);
        async move {
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            assert_eq!(client.get_many("", &keys).await.unwrap().len(), BATCH);
        }
    });
    println!("allocations: set {set}, get {get}, increment {increment}, get-many {get_many}");
    for (name, counted, bound) in [
        ("set", set, 26),
        ("get", get, 28),
        ("increment", increment, 26),
        ("get-many of 100 keys", get_many, 150),
    ] {
        assert!(
            counted <= bound,
            "{name}: {counted} allocations per call, at most {bound} expected"
        );
    }
}
