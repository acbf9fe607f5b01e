//! The client-side cache never returns a stale value. Real processes throughout: Redis's own
//! statistics or a proxy in front of it show which reads reach Redis.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod changes;
mod cluster_maps;
mod hits;
mod losses;
mod races;
mod refusals;
mod several_nodes;
mod writes;

use test_support::proxy::Proxy;
use test_support::redis::Redis;
use test_support::test_env::{TestEnv, TestEnvBuilder};

/// Settings with which entries leave the cache only on invalidation.
const CACHED: &[(&str, &str)] = &[
    ("CACHE_MAX_ENTRIES", "100000"),
    ("CACHE_TTL_MS", "3600000"),
    ("BACKEND_RESPONSE_TIMEOUT_MS", "8000"),
];

/// An environment whose link caches.
async fn cached() -> TestEnv {
    TestEnv::with(CACHED).await
}

/// The same with a proxy in front of Redis, and further adjustments.
async fn behind_a_proxy(adjust: impl FnOnce(TestEnvBuilder) -> TestEnvBuilder) -> (TestEnv, Proxy) {
    let redis = Redis::start().await;
    let proxy = Proxy::start(redis.port()).await;
    let builder = TestEnv::builder()
        .redis(redis)
        .config(CACHED)
        .config(&[("URL", &proxy.url())]);
    (adjust(builder).start().await, proxy)
}
