//! The errors that components receive when Redis fails.

// Guarantees: G46

use std::time::Duration;

use test_support::client::{Error, other_error};
use test_support::host::Link;
use test_support::redis::Redis;
use test_support::test_env::{COMPONENT, TestEnv};
use test_support::wait::eventually;
use tokio::time::Instant;

#[tokio::test]
async fn connection_refused_names_the_address() {
    let env = TestEnv::builder().rpc_timeout_ms(Some(1_000)).start().await;
    let down = Redis::stopped();
    let client = env.link(COMPONENT, "down", &[("URL", &down.url())]).await;
    let expected = format!(
        "cannot reach redis://127.0.0.1:{}: connection refused",
        down.port()
    );
    for error in [
        other_error(client.get("", "k").await),
        other_error(client.set("", "k", b"v").await),
        other_error(client.list_keys("", None).await),
    ] {
        assert!(error.to_lowercase().contains(&expected), "{error}");
    }
}

#[tokio::test]
async fn an_unknown_host_is_named() {
    let env = TestEnv::builder().rpc_timeout_ms(Some(1_000)).start().await;
    let url = "redis://no-such-host.invalid:6379";
    let client = env.link(COMPONENT, "nowhere", &[("URL", url)]).await;
    let error = other_error(client.get("", "k").await);
    assert!(error.contains(url), "{error}");
}

#[tokio::test]
async fn a_missing_unix_socket_is_named() {
    let env = TestEnv::builder().rpc_timeout_ms(Some(1_000)).start().await;
    let url = "redis+unix:///no/such/redis.sock";
    let client = env.link(COMPONENT, "nowhere", &[("URL", url)]).await;
    let error = other_error(client.get("", "k").await);
    assert!(error.contains("/no/such/redis.sock"), "{error}");
}

#[tokio::test]
async fn authentication_errors_are_returned_at_once_with_redis_message() {
    let env = TestEnv::builder()
        .unlinked()
        .redis(Redis::with_password("right-password").await)
        .rpc_timeout_ms(Some(30_000))
        .start()
        .await;
    let url = env.redis.url();
    for (name, secrets, code) in [
        ("none", &[][..], "NOAUTH"),
        ("wrong", &[("PASSWORD", "hunter2")], "WRONGPASS"),
        (
            "nobody",
            &[("USERNAME", "nobody"), ("PASSWORD", "hunter2")],
            "WRONGPASS",
        ),
    ] {
        let link = Link::new("c", name)
            .config(&[("URL", &url)])
            .secrets(secrets);
        let client = env.add_link(&link).await;
        let started = Instant::now();
        let error = other_error(client.get("", "k").await);
        assert!(error.contains(code), "{name}: {error}");
        assert!(!error.contains("hunter2"), "{error}");
        let took = started.elapsed();
        assert!(
            took < Duration::from_secs(10),
            "{name} failed only after {took:?}"
        );
    }
}

// Guarantees: G14
#[tokio::test]
async fn credentials_that_become_valid_need_no_new_link() {
    let env = TestEnv::builder()
        .unlinked()
        .rpc_timeout_ms(Some(1_000))
        .start()
        .await;
    let link = Link::new("c", "default")
        .config(&[("URL", &env.redis.url())])
        .secrets(&[("USERNAME", "app"), ("PASSWORD", "pw")]);
    let client = env.add_link(&link).await;
    other_error(client.get("", "k").await);
    let () = env
        .redis
        .command(&["ACL", "SETUSER", "app", "on", ">pw", "~*", "+@all"])
        .await;
    eventually("the link works", async || {
        client.set("", "k", b"v").await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn an_unknown_database_is_returned_with_redis_message() {
    let env = TestEnv::builder()
        .rpc_timeout_ms(Some(30_000))
        .start()
        .await;
    let client = env
        .link(COMPONENT, "far", &[("URL", &env.redis.url_of(99))])
        .await;
    let started = Instant::now();
    let error = other_error(client.get("", "k").await);
    assert!(error.to_lowercase().contains("db index"), "{error}");
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "{:?}",
        started.elapsed()
    );
}

// Guarantees: G26
#[tokio::test]
async fn commands_denied_by_the_acl_are_access_denied() {
    let env = TestEnv::builder().unlinked().start().await;
    let rules = [
        "ACL", "SETUSER", "app", "on", ">pw", "~own:*", "+@all", "-del", "-unlink",
    ];
    let () = env.redis.command(&rules).await;
    let link = Link::new("c", "default")
        .config(&[("URL", &env.redis.url())])
        .secrets(&[("USERNAME", "app"), ("PASSWORD", "pw")]);
    let client = env.add_link(&link).await;
    client.set("own", "k", b"1").await.unwrap();
    assert_eq!(client.increment("own", "k", 1).await, Ok(2));
    assert_eq!(
        client.delete("own", "k").await,
        Err(Error::AccessDenied),
        "a command"
    );
    assert_eq!(
        client.delete_many("own", &["k"]).await,
        Err(Error::AccessDenied)
    );
    assert_eq!(client.get("", "k").await, Err(Error::AccessDenied), "a key");
    assert_eq!(client.set("", "k", b"v").await, Err(Error::AccessDenied));
    assert_eq!(client.increment("", "k", 1).await, Err(Error::AccessDenied));
    assert_eq!(client.exists("", "k").await, Err(Error::AccessDenied));
    assert_eq!(client.get_many("", &["k"]).await, Err(Error::AccessDenied));
    assert_eq!(
        client.set_many("", &[("k", b"v")]).await,
        Err(Error::AccessDenied)
    );
}

// Guarantees: G26
#[tokio::test]
async fn partially_denied_functions_are_access_denied() {
    let env = TestEnv::builder().unlinked().start().await;
    let rules = [
        "ACL", "SETUSER", "app", "on", ">pw", "~own:*", "+@all", "-incrby",
    ];
    let () = env.redis.command(&rules).await;
    let credentials = [("USERNAME", "app"), ("PASSWORD", "pw")];
    let url = env.redis.url();
    let lasting = Link::new("c", "lasting").config(&[("URL", &url)]);
    let passing = Link::new("c", "passing").config(&[("URL", &url), ("TTL_MS", "500000")]);
    for link in [lasting.secrets(&credentials), passing.secrets(&credentials)] {
        let client = env.add_link(&link).await;
        client.set("own", "k", b"1").await.unwrap();
        let results = [
            client.set_many("foreign", &[("k", b"v")]).await,
            client.set_many("own", &[("k", b"1"), ("l", b"2")]).await,
            client.increment("own", "k", 1).await.map(drop),
        ];
        let denied = Err(Error::AccessDenied);
        assert_eq!(results, [denied.clone(), Ok(()), denied], "{}", link.name());
    }
}

/// Redis rejects the end of such a transaction with `EXECABORT` instead of `NOPERM`.
// Guarantees: G26
#[tokio::test]
async fn a_transaction_denied_by_the_acl_is_access_denied() {
    let env = TestEnv::builder().unlinked().start().await;
    let rules = ["ACL", "SETUSER", "app", "on", ">pw", "~*", "+@all", "-exec"];
    let () = env.redis.command(&rules).await;
    let link = Link::new("c", "default")
        .config(&[("URL", &env.redis.url()), ("TTL_MS", "500000")])
        .secrets(&[("USERNAME", "app"), ("PASSWORD", "pw")]);
    let client = env.add_link(&link).await;
    let pairs: [(&str, &[u8]); 2] = [("k", b"1"), ("l", b"2")];
    assert_eq!(client.set_many("", &pairs).await, Err(Error::AccessDenied));
}

#[tokio::test]
async fn a_username_without_a_password_does_not_fall_back_to_the_default_user() {
    let env = TestEnv::builder().unlinked().start().await;
    let () = env
        .redis
        .command(&["ACL", "SETUSER", "guest", "on", "nopass", "~*", "+@all"])
        .await;
    let link =
        Link::new("c", "default").config(&[("URL", &env.redis.url()), ("USERNAME", "guest")]);
    let client = env.add_link(&link).await;
    match client.get("", "k").await {
        Ok(_) => assert_eq!(env.redis.kvredis_clients().await[0]["user"], "guest"),
        Err(Error::Other(text)) => assert!(text.contains("PASSWORD"), "{text}"),
        result => panic!("{result:?}"),
    }
}

#[tokio::test]
async fn oom_errors_are_returned_with_redis_message() {
    let env = TestEnv::builder()
        .rpc_timeout_ms(Some(30_000))
        .start()
        .await;
    env.client.set("", "k", b"v").await.unwrap();
    let () = env
        .redis
        .command(&["CONFIG", "SET", "maxmemory", "1"])
        .await;
    let passing = env
        .link(COMPONENT, "passing", &[("TTL_MS", "500000")])
        .await;
    let started = Instant::now();
    for error in [
        other_error(passing.set("", "k", b"v").await),
        other_error(passing.set_many("", &[("k", b"v")]).await),
        other_error(env.client.set("", "k", b"v").await),
        other_error(env.client.set_many("", &[("k", b"v")]).await),
        other_error(env.client.increment("", "n", 1).await),
    ] {
        assert!(error.contains("OOM"), "{error}");
    }
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(
        env.client.get("", "k").await,
        Ok(Some(b"v".to_vec())),
        "reads still succeed"
    );
}

#[tokio::test]
async fn a_server_of_another_protocol_is_an_error() {
    let env = TestEnv::builder().rpc_timeout_ms(Some(1_000)).start().await;
    let url = env.nats.url().replace("nats://", "redis://");
    let client = env.link(COMPONENT, "nats", &[("URL", &url)]).await;
    let error = other_error(client.get("", "k").await);
    assert!(error.contains(&url), "{error}");
    env.client.set("", "k", b"v").await.unwrap();
}
