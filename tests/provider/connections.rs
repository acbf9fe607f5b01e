//! The connections of links as Redis lists them: their number, their names, and their end.

// Guarantees: G15

use std::time::Duration;

use futures_util::future::join_all;
use test_support::host::Link;
use test_support::proxy::Proxy;
use test_support::test_env::{COMPONENT, TestEnv};
use test_support::wait::{eventually, eventually_eq};

#[tokio::test]
async fn a_link_has_one_connection_with_its_name() {
    let env = TestEnv::start().await;
    env.link("another", "second", &[])
        .await
        .exists("", "k")
        .await
        .unwrap();
    join_all((0..64).map(|i| env.client.increment("", "n", i))).await;
    let names = ["kvredis:another:second", "kvredis:counter:default"];
    assert_eq!(env.redis.kvredis_client_names().await, names);
    assert_eq!(
        env.redis.connections().await,
        2,
        "connections without a name"
    );
    for client in env.redis.kvredis_clients().await {
        // Redis 7.2 and Valkey list the client library.
        if let Some(library) = client.get("lib-name") {
            assert!(library.contains("kvredis"), "{library}");
        }
    }
}

#[tokio::test]
async fn names_that_redis_rejects_are_adapted() {
    let env = TestEnv::start().await;
    for name in [
        "with space",
        "zwölf",
        "tab\tbed",
        "a:b",
        &"long".repeat(100),
    ] {
        let client = env.link(COMPONENT, name, &[]).await;
        client.set("", name, name).await.unwrap();
        assert_eq!(
            client.get("", name).await,
            Ok(Some(name.as_bytes().to_vec()))
        );
    }
}

#[tokio::test]
async fn idle_connections_are_kept_alive() {
    let env = TestEnv::start().await;
    env.client.exists("", "k").await.unwrap();
    let clients = env.redis.kvredis_clients().await;
    let (_, port) = clients[0]["addr"].rsplit_once(':').unwrap();
    let port: u16 = port.parse().unwrap();
    // The kernel lists the active timer of each socket: 02 is keepalive.
    let local = format!(":{port:04X}");
    eventually("the socket has a keepalive timer", async || {
        let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
        sockets.lines().any(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            fields[1].ends_with(&local) && fields[5].starts_with("02:")
        })
    })
    .await;
}

// Guarantees: G13
#[tokio::test]
async fn calls_in_flight_complete_on_their_connection() {
    let env = TestEnv::builder()
        .rpc_timeout_ms(Some(60_000))
        .start()
        .await;
    let proxy = Proxy::start(env.redis.port()).await;
    let patient = ("BACKEND_RESPONSE_TIMEOUT_MS", "60000");
    let () = env.redis.command(&["SET", "k", "old"]).await;
    let () = env.redis.command_in(1, &["SET", "k", "new"]).await;
    let client = env
        .link(COMPONENT, "moved", &[("URL", &proxy.url()), patient])
        .await;
    assert_eq!(client.get("", "k").await, Ok(Some(b"old".to_vec())));
    proxy.hold_replies();
    let before = proxy.command_count("GET");
    let call = tokio::spawn({
        let client = client.clone();
        async move { client.get("", "k").await }
    });
    eventually("the call is with Redis", async || {
        proxy.command_count("GET") > before
    })
    .await;
    let config = [("URL", &*env.redis.url_of(1)), patient];
    env.host
        .put(&Link::new(COMPONENT, "moved").config(&config))
        .await;
    // A call that still uses the old connection is abandoned.
    let hasty = client.timeout(Duration::from_millis(200));
    eventually("new calls go to the new connection", async || {
        hasty.get("", "k").await == Ok(Some(b"new".to_vec()))
    })
    .await;
    assert!(!call.is_finished());
    proxy.release();
    assert_eq!(call.await.unwrap(), Ok(Some(b"old".to_vec())));
    eventually_eq("the old connection is closed", 2, async || {
        env.redis.connections().await
    })
    .await;
}

#[tokio::test]
async fn deleting_the_last_link_closes_all_connections() {
    let env = TestEnv::start().await;
    env.link(COMPONENT, "second", &[])
        .await
        .set("", "k", b"v")
        .await
        .unwrap();
    env.unlink(COMPONENT, "second").await;
    env.unlink(COMPONENT, "default").await;
    env.wait_for_no_connections().await;
}

#[tokio::test]
async fn adding_and_deleting_links_leaks_no_connection_or_file() {
    let env = TestEnv::start().await;
    env.client.set("", "k", b"v").await.unwrap();
    let files = env.provider.open_files();
    for round in 0..30 {
        let name = format!("passing{}", round % 3);
        let client = env.link(COMPONENT, &name, &[]).await;
        if round % 2 == 0 {
            client.exists("", "k").await.unwrap();
        }
        env.unlink(COMPONENT, &name).await;
    }
    eventually_eq("one connection is left", 1, async || {
        env.redis.connections().await
    })
    .await;
    eventually_eq("no file descriptor is leaked", files, async || {
        env.provider.open_files()
    })
    .await;
}

#[tokio::test]
async fn links_have_separate_connections_by_default() {
    let env = TestEnv::builder().unlinked().start().await;
    let first = env.link("first", "default", &[]).await;
    let second = env.link("second", "default", &[]).await;
    first.set("", "k", b"v").await.unwrap();
    second.set("", "k", b"v").await.unwrap();
    assert_eq!(env.redis.connections().await, 2);
}

#[tokio::test]
async fn shared_connections_close_with_their_last_link() {
    let env = TestEnv::builder().unlinked().start().await;
    let share = ("SHARE_CONNECTIONS_BY_URL", "true");
    let mut clients = Vec::new();
    for (name, prefix) in [("first", "1:"), ("second", "2:"), ("third", "3:")] {
        clients.push(
            env.link(name, "default", &[share, ("PREFIX", prefix)])
                .await,
        );
    }
    for client in &clients {
        client.set("", "k", b"v").await.unwrap();
    }
    assert_eq!(env.redis.connections().await, 1);
    assert_eq!(
        env.redis.command::<u64>(&["DBSIZE"]).await,
        3,
        "each link applies its own settings"
    );
    env.unlink("first", "default").await;
    clients[1].set("", "k", b"w").await.unwrap();
    env.unlink("third", "default").await;
    assert_eq!(clients[1].get("", "k").await, Ok(Some(b"w".to_vec())));
    assert_eq!(env.redis.connections().await, 1);
    env.unlink("second", "default").await;
    env.wait_for_no_connections().await;
    let again = env.link("first", "default", &[share]).await;
    again.set("", "k", b"v").await.unwrap();
    assert_eq!(
        env.redis.connections().await,
        1,
        "a new connection opens after the last was closed"
    );
}

#[tokio::test]
async fn links_with_different_addresses_or_credentials_do_not_share() {
    let env = TestEnv::builder()
        .unlinked()
        .provider_config(&[("SHARE_CONNECTIONS_BY_URL", "true")])
        .start()
        .await;
    let () = env
        .redis
        .command(&["ACL", "SETUSER", "app", "on", ">pw", "~*", "+@all"])
        .await;
    let () = env
        .redis
        .command(&["ACL", "SETUSER", "api", "on", ">pw", "~*", "+@all"])
        .await;
    let one = env.redis.url_of(1);
    let app = [("USERNAME", "app"), ("PASSWORD", "pw")];
    let api = [("USERNAME", "api"), ("PASSWORD", "pw")];
    for (name, config) in [
        ("plain", &[][..]),
        ("plain too", &[]),
        ("database", &[("URL", &*one)]),
        ("app", &app),
        ("app too", &app),
        ("api", &api),
    ] {
        env.link(name, "default", config)
            .await
            .exists("", "k")
            .await
            .unwrap();
    }
    assert_eq!(env.redis.connections().await, 4);
    let mut users: Vec<_> = env.redis.kvredis_clients().await;
    users.sort_by_key(|client| client["user"].clone());
    let users: Vec<_> = users.iter().map(|client| client["user"].as_str()).collect();
    assert_eq!(users, ["api", "app", "default", "default"]);
}
