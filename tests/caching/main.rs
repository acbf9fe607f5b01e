//! Contract §2 "Cache": answers from memory that are never wrong. The real binary between real
//! servers; what does not reach Redis is seen in Redis's own statistics or in a proxy before it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod changes;
mod hits;
mod losses;
mod races;
mod refusals;
mod several_nodes;
mod writes;

use test_support::proxy::Proxy;
use test_support::redis::Redis;
use test_support::test_env::{TestEnv, TestEnvBuilder};

/// Settings under which nothing is forgotten but for a reason.
const CACHED: &[(&str, &str)] = &[
    ("CACHE_MAX_ENTRIES", "100000"),
    ("CACHE_TTL_MS", "3600000"),
    ("BACKEND_RESPONSE_TIMEOUT_MS", "8000"),
];

/// A world whose link keeps what it reads.
async fn cached() -> TestEnv {
    TestEnv::with(CACHED).await
}

/// The same, with a proxy before its Redis, and what else is to be different.
async fn behind_a_proxy(adjust: impl FnOnce(TestEnvBuilder) -> TestEnvBuilder) -> (TestEnv, Proxy) {
    let redis = Redis::start().await;
    let proxy = Proxy::start(redis.port()).await;
    let builder = TestEnv::builder()
        .redis(redis)
        .config(CACHED)
        .config(&[("URL", &proxy.url())]);
    (adjust(builder).start().await, proxy)
}
