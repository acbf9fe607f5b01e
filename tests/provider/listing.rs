//! `list-keys`: complete, with few commands, and stateless.

// Guarantees: G7

use std::collections::BTreeSet;

use test_support::client::{Client, Error};
use test_support::host::Link;
use test_support::keyvalue::Page;
use test_support::provider::ProviderProcess;
use test_support::redis::Redis;
use test_support::test_env::{COMPONENT, TestEnv};
use test_support::wait::eventually_eq;

/// The number of keys that one `SCAN` may return beyond its `COUNT`: it never splits a hash bucket, and
/// Valkey's buckets hold seven keys, and more while the table grows.
const LARGEST_BUCKETS: usize = 30;

#[tokio::test]
async fn an_empty_bucket_has_one_empty_page() {
    let env = TestEnv::start().await;
    let nothing = Page {
        keys: vec![],
        cursor: None,
    };
    assert_eq!(env.client.list_keys("", None).await, Ok(nothing.clone()));
    assert_eq!(env.client.list_keys("named", None).await, Ok(nothing));
}

#[tokio::test]
async fn a_few_keys_fit_into_one_page() {
    let env = TestEnv::start().await;
    env.client
        .set_many("", &[("a", b""), ("b", b""), ("c", b"")])
        .await
        .unwrap();
    let mut page = env.client.list_keys("", None).await.unwrap();
    page.keys.sort();
    assert_eq!(page.keys, ["a", "b", "c"]);
    assert_eq!(page.cursor, None);
}

#[tokio::test]
async fn pages_contain_every_key_and_are_about_scan_count_long() {
    let env = TestEnv::start().await;
    let expected = create_keys(&env.redis, "key", 5_000).await;
    for count in [10, 100, 1_000, 3_000] {
        let name = format!("by{count}");
        let client = env
            .link(COMPONENT, &name, &[("SCAN_COUNT", &count.to_string())])
            .await;
        let scans = env.redis.calls("scan").await;
        let pages = client.pages("").await.unwrap();
        let scans = env.redis.calls("scan").await - scans;
        let largest = pages.iter().map(|page| page.keys.len()).max().unwrap();
        assert!(
            largest < count + count.max(LARGEST_BUCKETS),
            "a page of {largest} where SCAN_COUNT is {count}"
        );
        // The last page of Redis may be empty.
        assert!(
            scans <= pages.len() as u64 + 1,
            "{scans} pages of Redis in {} pages",
            pages.len()
        );
        assert!(
            pages.len() <= 2 * 5_000 / count + 2,
            "{} pages of {count}",
            pages.len()
        );
        assert_no_empty_page(&pages);
        assert_eq!(keys_of(&pages), expected, "SCAN_COUNT {count}");
    }
}

#[tokio::test]
async fn scan_count_defaults_to_a_thousand() {
    let env = TestEnv::start().await;
    create_keys(&env.redis, "key", 10_000).await;
    let pages = env.client.pages("").await.unwrap();
    assert!(
        (6..=20).contains(&pages.len()),
        "10,000 keys came in {} pages",
        pages.len()
    );
}

#[tokio::test]
async fn sparse_keys_are_listed_without_empty_pages() {
    let env = TestEnv::start().await;
    create_keys(&env.redis, "foreign:", 20_000).await;
    env.client
        .set_many("own", &[("a", b""), ("b", b""), ("c", b"")])
        .await
        .unwrap();
    let pages = env.client.pages("own").await.unwrap();
    assert_no_empty_page(&pages);
    assert_eq!(keys_of(&pages), ["a", "b", "c"].map(str::to_owned).into());
    assert_eq!(
        env.client.pages("none").await.unwrap().len(),
        1,
        "an empty listing has one page"
    );
}

#[tokio::test]
async fn stable_keys_are_listed_during_concurrent_changes() {
    let env = TestEnv::with(&[("SCAN_COUNT", "50")]).await;
    let staying = create_keys(&env.redis, "stays", 2_000).await;
    let mut pages = vec![env.client.list_keys("", None).await.unwrap()];
    let mut round = 0;
    while let Some(cursor) = pages.last().unwrap().cursor {
        // Enough to make Redis's table grow and shrink during the listing.
        let prefix = format!("passing{}-", round % 3);
        if round % 2 == 0 {
            create_keys(&env.redis, &prefix, 1_000).await;
        } else {
            remove(&env.redis, &prefix, 1_000).await;
        }
        round += 1;
        pages.push(env.client.list_keys("", Some(cursor)).await.unwrap());
    }
    let listed = keys_of(&pages);
    let lost: Vec<_> = staying.difference(&listed).collect();
    assert!(
        lost.is_empty(),
        "{} stable keys were not listed",
        lost.len()
    );
}

#[tokio::test]
async fn keys_that_are_not_utf8_are_skipped_and_logged() {
    let mut env = TestEnv::start().await;
    for key in [&b"\xff\xfe"[..], b"half\xc3", b"b:\x80"] {
        let () = env.redis.query(redis::cmd("SET").arg(key).arg("v")).await;
    }
    env.client.set("", "good", b"v").await.unwrap();
    env.client.set("b", "good", b"v").await.unwrap();
    assert_eq!(env.client.keys("").await.unwrap(), ["b:good", "good"]);
    assert_eq!(env.client.keys("b").await.unwrap(), ["good"]);
    assert!(
        env.provider.stop_and_count_log(&["WARN", "UTF-8"]).await >= 1,
        "the skipped key is not logged"
    );
}

// Guarantees: G2
#[tokio::test]
async fn bucket_names_and_prefixes_are_matched_literally() {
    for prefix in ["", "*", "p?[x]\\"] {
        let env = TestEnv::with(&[("PREFIX", prefix)]).await;
        let buckets = [
            "a", "b", "ab", "*", "?", "a*", "[ab]", "[^a]", "\\", "\\*", "a\\", "x*y",
        ];
        for bucket in buckets {
            env.client
                .set(bucket, &format!("of {bucket}"), b"v")
                .await
                .unwrap();
        }
        // Keys that the prefix would match as a pattern.
        for key in ["x*:foreign", "py[x]:foreign", "pyx:foreign"] {
            let () = env.redis.command(&["SET", key, "v"]).await;
        }
        for bucket in buckets {
            let keys = env.client.keys(bucket).await.unwrap();
            assert_eq!(
                keys,
                [format!("of {bucket}")],
                "PREFIX {prefix:?}, bucket {bucket:?}"
            );
        }
    }
}

#[tokio::test]
async fn an_invalid_cursor_returns_a_page_or_a_clear_error() {
    let env = TestEnv::start().await;
    create_keys(&env.redis, "key", 3_000).await;
    let half = i64::MAX as u64;
    let mut cursors = vec![
        0,
        1,
        2,
        17,
        4_095,
        1 << 32,
        1 << 48,
        half,
        half + 1,
        u64::MAX,
    ];
    cursors.extend((0..64).map(|bit| 1 << bit));
    for cursor in cursors {
        match env.client.list_keys("", Some(cursor)).await {
            Ok(_) => {}
            Err(Error::Other(text)) => {
                assert!(
                    text.to_lowercase().contains("cursor"),
                    "cursor {cursor}: {text}"
                );
            }
            result => panic!("cursor {cursor}: {result:?}"),
        }
    }
    let invented: Result<_, _> = env.client.list_keys("none", Some(u64::MAX)).await;
    assert!(!matches!(invented, Err(Error::Call(_))), "{invented:?}");
    assert_eq!(
        env.client.keys("").await.unwrap().len(),
        3_000,
        "a listing failed afterwards"
    );
}

// Guarantees: G11
#[tokio::test]
async fn a_listing_continues_in_another_process() {
    let mut env = TestEnv::with(&[("SCAN_COUNT", "100")]).await;
    let expected = create_keys(&env.redis, "key", 2_000).await;
    let mut pages = first_pages(&env.client, 3).await;
    env.provider.kill();
    let host = env.host.second_host();
    env.provider = ProviderProcess::start(&host.data());
    env.host = host;
    env.host.ready().await;
    env.link(COMPONENT, "default", &[("SCAN_COUNT", "100")])
        .await;
    while let Some(cursor) = pages.last().unwrap().cursor {
        pages.push(env.client.list_keys("", Some(cursor)).await.unwrap());
    }
    assert_eq!(keys_of(&pages), expected);
}

// Guarantees: G11
#[tokio::test]
async fn each_page_of_a_listing_may_come_from_another_process() {
    let env = TestEnv::with(&[("SCAN_COUNT", "100")]).await;
    let host = env.host.second_host();
    let _second = ProviderProcess::start(&host.data());
    env.host.ready_processes(2).await;
    let link =
        Link::new("lister", "default").config(&[("URL", &env.redis.url()), ("SCAN_COUNT", "100")]);
    env.host.put(&link).await;
    host.put(&link).await;
    let client = env.client.component("lister", "default");
    eventually_eq("both processes are linked", 2, async || {
        let names = env.redis.kvredis_client_names().await;
        names
            .iter()
            .filter(|name| *name == "kvredis:lister:default")
            .count()
    })
    .await;
    let expected = create_keys(&env.redis, "key", 3_000).await;
    let pages = client.pages("").await.unwrap();
    assert_eq!(keys_of(&pages), expected);
}

/// Creates keys in Redis, and returns their names.
async fn create_keys(redis: &Redis, prefix: &str, count: usize) -> BTreeSet<String> {
    let keys: BTreeSet<String> = (0..count).map(|i| format!("{prefix}{i}")).collect();
    let mut pipeline = redis::pipe();
    for key in &keys {
        pipeline.set(key, "v").ignore();
    }
    redis.run_pipeline(&pipeline).await;
    keys
}

async fn remove(redis: &Redis, prefix: &str, count: usize) {
    let mut pipeline = redis::pipe();
    for i in 0..count {
        pipeline.del(format!("{prefix}{i}")).ignore();
    }
    redis.run_pipeline(&pipeline).await;
}

async fn first_pages(client: &Client, count: usize) -> Vec<Page> {
    let mut pages = vec![client.list_keys("", None).await.unwrap()];
    while pages.len() < count {
        let cursor = pages.last().unwrap().cursor;
        assert!(
            cursor.is_some(),
            "there are more pages than {}",
            pages.len()
        );
        pages.push(client.list_keys("", cursor).await.unwrap());
    }
    pages
}

fn keys_of(pages: &[Page]) -> BTreeSet<String> {
    pages
        .iter()
        .flat_map(|page| page.keys.iter().cloned())
        .collect()
}

fn assert_no_empty_page(pages: &[Page]) {
    let empty = pages
        .iter()
        .filter(|page| page.keys.is_empty() && page.cursor.is_some())
        .count();
    assert_eq!(empty, 0, "empty pages with a cursor, of {}", pages.len());
}
