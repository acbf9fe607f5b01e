//! Settings: precedence of sources, and how names and values are parsed.

use test_support::client::Error::AccessDenied;
use test_support::client::other_error;
use test_support::host::Link;
use test_support::redis::Redis;
use test_support::test_env::{COMPONENT, TestEnv};
use test_support::wait::eventually;

// Guarantees: G18
#[tokio::test]
async fn link_secrets_precede_link_config_provider_secrets_and_provider_config() {
    let redis = Redis::start().await;
    redis.number_databases().await;
    let [one, two, three, four] = [1, 2, 3, 4].map(|database| redis.url_of(database));
    let config = [("URL", four.as_str())];
    let plain = TestEnv::builder()
        .unlinked()
        .provider_config(&config)
        .redis(redis)
        .start()
        .await;
    let client = plain.add_link(&Link::new("c", "0")).await;
    assert_eq!(client.database().await, "4", "the provider's configuration");

    let env = TestEnv::builder()
        .unlinked()
        .provider_config(&config)
        .provider_secrets(&[("URL", &three)])
        .redis(Redis::stopped())
        .start()
        .await;
    let link = Link::new("c", "1");
    let client = env.add_link(&link).await;
    assert_eq!(client.database().await, "3", "the provider's secret");
    let link = Link::new("c", "2").config(&[("URL", &two)]);
    let client = env.add_link(&link).await;
    assert_eq!(client.database().await, "2", "the link's configuration");
    let link = Link::new("c", "3")
        .config(&[("URL", &two)])
        .secrets(&[("URL", &one)]);
    let client = env.add_link(&link).await;
    assert_eq!(client.database().await, "1", "the link's secret");
}

// Guarantees: G18
#[tokio::test]
async fn precedence_applies_to_each_setting_separately() {
    let env = TestEnv::builder()
        .unlinked()
        .provider_config(&[
            ("PREFIX", "pc:"),
            ("BUCKET_LAYOUT", "flat"),
            ("TTL_MS", "3600000"),
        ])
        .provider_secrets(&[("PREFIX", "ps:"), ("BUCKET_LAYOUT", "prefix-all")])
        .start()
        .await;
    let url = [("URL", &*env.redis.url())];
    let link = Link::new(COMPONENT, "default")
        .config(&url)
        .config(&[("PREFIX", "lc:")])
        .secrets(&[("PREFIX", "ls:")]);
    env.add_link(&link).await.set("b", "k", b"v").await.unwrap();
    let ttl: i64 = env.redis.command(&["PTTL", "ls:b:k"]).await;
    assert!(ttl > 0, "settings of three sources are not combined: {ttl}");
}

// Guarantees: G19
#[tokio::test]
async fn names_are_case_insensitive_and_end_at_a_dot() {
    let env = TestEnv::builder().unlinked().start().await;
    let url = env.redis.url();
    for (link, prefix) in [
        (
            Link::new("c", "1").config(&[("prefix", "1:"), ("url", &url)]),
            "1:",
        ),
        (
            Link::new("c", "2").config(&[("PREFIX.mine", "2:"), ("Url.of.mine", &url)]),
            "2:",
        ),
        (
            Link::new("c", "3").secrets(&[("Prefix.x", "3:"), ("URL.c-3", &url)]),
            "3:",
        ),
    ] {
        env.add_link(&link)
            .await
            .set("", "k", prefix)
            .await
            .unwrap();
        let stored: Option<String> = env.redis.command(&["GET", &format!("{prefix}k")]).await;
        assert_eq!(stored.as_deref(), Some(prefix));
    }
}

// Guarantees: G19
#[tokio::test]
async fn secrets_are_accepted_as_text_and_bytes() {
    let env = TestEnv::builder().unlinked().start().await;
    let link = Link::new("c", "1").secret_bytes("URL", env.redis.url_of(1).as_bytes());
    env.add_link(&link).await.set("", "k", b"v").await.unwrap();
    assert_eq!(env.redis.command_in::<String>(1, &["GET", "k"]).await, "v");
    let link = Link::new("c", "2").secret_bytes("URL", b"redis://\xff\xfe");
    let error = other_error(env.add_link(&link).await.get("", "k").await);
    assert!(error.contains("URL"), "{error}");
}

// Guarantees: G20
#[tokio::test]
async fn undecryptable_secrets_make_the_link_invalid() {
    let env = TestEnv::builder().unlinked().start().await;
    let link = Link::new("c", "default").secrets(&[("URL", &env.redis.url())]);
    // Encrypted by a host that the provider does not know, and for another provider.
    let mut definition = env.host.definition(&link);
    definition.target_secrets = env.host.second_host().definition(&link).target_secrets;
    let client = env.client.component("c", "default");
    let unlinked = client.probe().await;
    env.host.put_definition(&definition).await;
    eventually("the provider has the link", async || {
        client.probe().await != unlinked
    })
    .await;
    let error = other_error(client.get("", "k").await);
    assert!(error.to_lowercase().contains("secret"), "{error}");

    // The unreadable settings are not replaced by another URL that is configured.
    let follows = env.add_link(&Link::new("c", "follows")).await;
    env.host.update_config(&[("URL", &env.redis.url())]).await;
    eventually("the provider's configuration is in effect", async || {
        follows.get("", "k").await.is_ok()
    })
    .await;
    assert_eq!(other_error(client.get("", "k").await), error);
}

// Guarantees: G18
#[tokio::test]
async fn the_default_connection_can_be_disabled() {
    for (value, disabled) in [
        ("true", true),
        ("1", true),
        ("", true),
        ("TRUE", true),
        ("false", false),
        ("0", false),
    ] {
        let redis = Redis::start().await;
        let config = [
            ("URL", &*redis.url()),
            ("DISABLE_DEFAULT_CONNECTION", value),
        ];
        let env = TestEnv::builder()
            .unlinked()
            .provider_config(&config)
            .redis(redis)
            .start()
            .await;
        let client = env.add_link(&Link::new("c", "default")).await;
        if disabled {
            let error = other_error(client.set("", "k", b"v").await);
            assert!(error.contains("URL"), "{error}");
            assert!(error.contains("DISABLE_DEFAULT_CONNECTION"), "{error}");
            assert_eq!(env.redis.connections().await, 0);
        } else {
            client.set("", "k", b"v").await.unwrap();
        }
        let own = Link::new("c", "own").config(&[("URL", &env.redis.url())]);
        env.add_link(&own).await.set("", "k", b"v").await.unwrap();
    }
}

// Guarantees: G19
#[tokio::test]
async fn booleans_accept_words_digits_and_empty_text() {
    let env = TestEnv::start().await;
    for (value, expected) in [
        ("true", Err(AccessDenied)),
        ("1", Err(AccessDenied)),
        ("", Err(AccessDenied)),
        ("false", Ok(())),
        ("0", Ok(())),
    ] {
        let name = format!("read-only-{value}");
        let client = env.link(COMPONENT, &name, &[("READ_ONLY", value)]).await;
        assert_eq!(
            client.set("", "k", b"v").await,
            expected,
            "READ_ONLY={value:?}"
        );
    }
}
