//! Errors and warnings for settings that are invalid, unknown or insecure.

use test_support::client::other_error;
use test_support::host::Link;
use test_support::redis::Redis;
use test_support::test_env::{COMPONENT, TestEnv};
use test_support::wait::eventually;

/// A setting, an invalid value, and further words of the error.
type WrongValue = (&'static str, &'static str, &'static [&'static str]);

const NUMBER: &[&str] = &["number"];

const BOOLEAN: &[&str] = &["true", "false"];

const WRONG_VALUES: &[WrongValue] = &[
    ("URL", "10.0.0.7:6379", &["redis://10.0.0.7:6379"]),
    ("URL", "cache.example", &["redis://cache.example"]),
    ("URL", "localhost", &["redis://localhost"]),
    ("URL", "http://10.0.0.7", &["redis://"]),
    ("URL", "redis://10.0.0.7:99999", &["port"]),
    ("URL", "redis://10.0.0.7/orders", &["database"]),
    ("URL", "redis://10.0.0.7/-1", &["database"]),
    ("URL", "redis://", &[]),
    ("URL", "redis:///3", &[]),
    ("URL", "redis+unix://", &["path"]),
    ("URL", "", &["redis://"]),
    ("BACKEND_CONNECTION_TIMEOUT_MS", "soon", NUMBER),
    ("BACKEND_CONNECTION_TIMEOUT_MS", "-1", NUMBER),
    ("BACKEND_CONNECTION_TIMEOUT_MS", "", NUMBER),
    ("BACKEND_CONNECTION_TIMEOUT_MS", "0", NUMBER),
    ("BACKEND_RESPONSE_TIMEOUT_MS", "1.5", NUMBER),
    (
        "BACKEND_RESPONSE_TIMEOUT_MS",
        "99999999999999999999",
        NUMBER,
    ),
    ("BACKEND_RECONNECT_NUM_RETRIES", "many", NUMBER),
    ("BACKEND_RECONNECT_NUM_RETRIES", "-3", NUMBER),
    ("BACKEND_RECONNECT_MAX_DELAY_MS", "1s", NUMBER),
    ("DISABLE_DEFAULT_CONNECTION", "yes", BOOLEAN),
    ("SHARE_CONNECTIONS_BY_URL", "maybe", BOOLEAN),
    (
        "BUCKET_LAYOUT",
        "nested",
        &["prefix-named", "prefix-all", "flat"],
    ),
    ("BUCKET_LAYOUT", "", &["prefix-named", "prefix-all", "flat"]),
    ("READ_ONLY", "2", BOOLEAN),
    ("READ_ONLY", "on", BOOLEAN),
    ("TTL_MS", "forever", NUMBER),
    ("TTL_MS", "0", NUMBER),
    ("TTL_MS", "-5", NUMBER),
    ("SCAN_COUNT", "lots", NUMBER),
    ("SCAN_COUNT", "0", NUMBER),
    ("MAX_IN_FLIGHT", "none", NUMBER),
    ("MAX_IN_FLIGHT", "0", NUMBER),
    ("MAX_WAITING", "-1", NUMBER),
    ("MAX_WAIT_MS", "0", NUMBER),
    ("MAX_VALUE_BYTES", "64MB", NUMBER),
];

/// The value in errors: a part of a URL that is not recognized can be a password.
fn shown(value: &'static str) -> &'static str {
    match value {
        "redis://10.0.0.7:99999" => "redis://10.0.0.7:***",
        "redis://10.0.0.7/orders" | "redis://10.0.0.7/-1" => "redis://10.0.0.7/***",
        value => value,
    }
}

// Guarantees: G20
#[tokio::test]
async fn an_invalid_value_is_returned_and_logged_with_its_setting_and_expectation() {
    let mut env = TestEnv::start().await;
    for (i, (setting, value, expected)) in WRONG_VALUES.iter().enumerate() {
        let client = env
            .link(COMPONENT, &format!("wrong{i}"), &[(setting, value)])
            .await;
        for error in [
            other_error(client.get("", "k").await),
            other_error(client.set("", "k", b"v").await),
            other_error(client.delete("", "k").await),
            other_error(client.exists("", "k").await),
            other_error(client.list_keys("", None).await),
            other_error(client.increment("", "k", 1).await),
            other_error(client.get_many("", &["k"]).await),
            other_error(client.set_many("", &[("k", b"v")]).await),
            other_error(client.delete_many("", &["k"]).await),
        ] {
            let words = [&[*setting, shown(value)][..], expected].concat();
            for word in words {
                assert!(
                    error.contains(word),
                    "{setting}={value:?}, no {word:?} in: {error}"
                );
            }
            assert!(!error.contains('\n'), "{error}");
        }
    }
    env.client.set("", "k", b"v").await.unwrap();
    for (i, (setting, value, _)) in WRONG_VALUES.iter().enumerate() {
        let parts = ["ERROR", setting, shown(value), &format!("wrong{i}")];
        assert_eq!(
            env.provider.stop_and_count_log(&parts).await,
            1,
            "{setting}={value:?} in the log"
        );
    }
}

// Guarantees: G20, G51
#[tokio::test]
async fn an_invalid_secret_value_is_not_shown() {
    let mut env = TestEnv::builder().unlinked().start().await;
    for (setting, value) in [
        ("URL", "hunter2.example:6379"),
        ("URL", "hunter2://x"),
        ("URL", "redis://user:hunter2@h:99999"),
        ("SCAN_COUNT", "hunter2"),
        ("READ_ONLY", "hunter2"),
        ("BUCKET_LAYOUT", "hunter2"),
    ] {
        let link = Link::new("c", &format!("{setting} {value:?}").replace("hunter2", "x"))
            .config(&[("URL", &env.redis.url())])
            .secrets(&[(setting, value)]);
        let error = other_error(env.add_link(&link).await.get("", "k").await);
        assert!(error.contains(setting), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
    assert_eq!(env.provider.stop_and_count_log(&["hunter2"]).await, 0);
}

// Guarantees: G20
#[tokio::test]
async fn an_invalid_provider_setting_fails_the_links_that_use_it() {
    let mut env = TestEnv::builder()
        .unlinked()
        .provider_config(&[("SCAN_COUNT", "lots"), ("MAX_BYTES_IN_FLIGHT", "plenty")])
        .start()
        .await;
    let url = [("URL", &*env.redis.url())];
    let client = env.add_link(&Link::new("c", "takes")).await;
    let error = other_error(client.get("", "k").await);
    assert!(
        error.contains("SCAN_COUNT") && error.contains("lots"),
        "{error}"
    );
    let own = Link::new("c", "has")
        .config(&url)
        .config(&[("SCAN_COUNT", "10")]);
    env.add_link(&own).await.set("", "k", b"v").await.unwrap();
    let parts = ["ERROR", "MAX_BYTES_IN_FLIGHT", "plenty"];
    assert_eq!(env.provider.stop_and_count_log(&parts).await, 1);
}

// Guarantees: G20
#[tokio::test]
async fn an_invalid_link_works_after_a_valid_put() {
    let env = TestEnv::start().await;
    let client = env
        .link(COMPONENT, "mended", &[("SCAN_COUNT", "lots")])
        .await;
    other_error(client.get("", "k").await);
    let link = Link::new(COMPONENT, "mended").config(&[("URL", &env.redis.url())]);
    env.host.put(&link).await;
    eventually("the link works", async || client.get("", "k").await.is_ok()).await;
}

// Guarantees: G21
#[tokio::test]
async fn an_unknown_setting_causes_one_warning_with_a_suggestion() {
    let mut env = TestEnv::builder()
        .unlinked()
        .provider_config(&[("REDONLY", "true"), ("MAX_BYTES_INFLIGHT", "1")])
        .start()
        .await;
    let config = [("SCAN_CONT", "10"), ("flat", "x")];
    let link = Link::new(COMPONENT, "default")
        .config(&[("URL", &env.redis.url())])
        .config(&config)
        .secrets(&[("PASWORD", "hunter2")]);
    let client = env.add_link(&link).await;
    for _ in 0..10 {
        client.set("", "k", b"v").await.unwrap();
    }
    env.link("another", "default", &[])
        .await
        .set("", "k", b"v")
        .await
        .unwrap();
    for (unknown, nearest) in [
        ("SCAN_CONT", "SCAN_COUNT"),
        ("PASWORD", "PASSWORD"),
        ("REDONLY", "READ_ONLY"),
        ("MAX_BYTES_INFLIGHT", "MAX_BYTES_IN_FLIGHT"),
    ] {
        let count = env
            .provider
            .stop_and_count_log(&["WARN", unknown, nearest])
            .await;
        assert_eq!(count, 1, "{unknown}");
    }
    assert_eq!(env.provider.stop_and_count_log(&["hunter2"]).await, 0);
}

/// Warnings are not remembered for a deleted link, so that changing links do not leak memory.
// Guarantees: G21
#[tokio::test]
async fn a_recreated_link_causes_the_warning_again() {
    let mut env = TestEnv::builder().unlinked().start().await;
    let calls = [("REDONLY", "true")];
    let watches = [("WATCH", "SET@k"), ("WATCHONCE", "true")];
    for _ in 0..2 {
        env.link("c", "default", &calls).await;
        env.watch("c", "default", &watches).await;
        env.unlink("c", "default").await;
        env.host.delete_watch("c", "default").await;
        env.wait_for_watchers("c", "default", 0).await;
    }
    for (way, unknown) in [("of", "REDONLY"), ("to", "WATCHONCE")] {
        let count = env
            .provider
            .stop_and_count_log(&["WARN", way, unknown])
            .await;
        assert_eq!(count, 2, "{unknown}");
    }
}

// Guarantees: G21
#[tokio::test]
async fn settings_of_the_sdk_are_not_unknown() {
    let names = [
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "otel_exporter_otlp_traces_endpoint",
        "OTEL_TRACES_SAMPLER",
        "FLAMEGRAPH_PATH",
    ];
    // An invalid path would fail in the SDK; only the names matter here.
    let config: Vec<_> = names[..3].iter().map(|name| (*name, "x")).collect();
    let mut env = TestEnv::builder()
        .provider_config(&config)
        .config(&[(names[3], "x")])
        .start()
        .await;
    env.client.set("", "k", b"v").await.unwrap();
    for name in names {
        assert_eq!(
            env.provider.stop_and_count_log(&["WARN", name]).await,
            0,
            "{name}"
        );
    }
}

// Guarantees: G21
#[tokio::test]
async fn a_password_in_plain_configuration_causes_one_warning() {
    let mut env = TestEnv::builder()
        .unlinked()
        .redis(Redis::with_password("plain-password").await)
        .start()
        .await;
    let url = env
        .redis
        .url()
        .replace("redis://", "redis://:plain-password@");
    let plain = [("PASSWORD", "plain-password")];
    for link in [
        Link::new("c", "by-setting")
            .config(&[("URL", &env.redis.url())])
            .config(&plain),
        Link::new("c", "by-url").config(&[("URL", &url)]),
        Link::new("c", "by-secret")
            .config(&[("URL", &env.redis.url())])
            .secrets(&plain),
        Link::new("c", "by-secret-url").secrets(&[("URL", &url)]),
    ] {
        let client = env.add_link(&link).await;
        for _ in 0..5 {
            client.set("", "k", b"v").await.unwrap();
        }
    }
    let warnings = env
        .provider
        .stop_and_count_log(&["WARN", "contains a password"])
        .await;
    assert_eq!(
        warnings, 2,
        "one for PASSWORD, one for URL, none for secrets"
    );
    assert_eq!(
        env.provider.stop_and_count_log(&["plain-password"]).await,
        0
    );
}
