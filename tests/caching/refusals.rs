//! Servers without client tracking: nothing is cached, the log gives the reason, and all results are
//! correct.

// Guarantees: G37

use test_support::proxy::Disconnect;
use test_support::redis::Redis;
use test_support::test_env::TestEnv;
use test_support::wait::eventually;

use crate::CACHED;
use crate::behind_a_proxy;

const WARNING: &str = "cache disabled: client tracking is unavailable";

/// Checks that Redis serves every read, and that the log says so once.
async fn assert_cache_disabled(env: &mut TestEnv, reason: &str) {
    let c = &env.client;
    c.set("", "k", b"0").await.unwrap();
    let before = env.redis.calls("get").await;
    for round in 1..=20_u64 {
        assert_eq!(
            c.get("", "k").await,
            Ok(Some((round - 1).to_string().into_bytes()))
        );
        let () = env.redis.command(&["SET", "k", &round.to_string()]).await;
    }
    assert_eq!(c.get("", "missing").await, Ok(None));
    assert_eq!(c.increment("", "k", 1).await, Ok(21));
    assert_eq!(env.redis.calls("get").await, before + 21);
    env.provider.wait_for_log(&["WARN", WARNING, reason]).await;
    assert_eq!(env.provider.stop_and_count_log(&[WARNING]).await, 1);
}

/// An environment with a user who lacks these permissions.
async fn without_permissions(permissions: &[&str]) -> TestEnv {
    let redis = Redis::start().await;
    let mut user = vec!["ACL", "SETUSER", "ann", "on", ">secret", "~*", "+@all"];
    user.extend(permissions);
    let () = redis.command(&user).await;
    TestEnv::builder()
        .redis(redis)
        .config(CACHED)
        .config(&[("USERNAME", "ann"), ("PASSWORD", "secret")])
        .start()
        .await
}

#[tokio::test]
async fn the_cache_is_disabled_without_permission_for_client_tracking() {
    // Redis 6.2 can allow single subcommands, but not deny them.
    let mut env = without_permissions(&["-client", "+client|setname"]).await;
    assert_cache_disabled(&mut env, "NOPERM").await;
}

#[tokio::test]
async fn the_cache_is_disabled_without_permission_for_client_caching() {
    let mut env = without_permissions(&["-client|caching"]).await;
    assert_cache_disabled(&mut env, "NOPERM").await;
}

#[tokio::test]
async fn the_cache_is_disabled_without_permission_for_pttl() {
    let mut env = without_permissions(&["-pttl"]).await;
    assert_cache_disabled(&mut env, "PTTL").await;
}

/// Servers that speak only RESP2, such as Redis before 6.
#[tokio::test]
async fn the_cache_is_disabled_on_servers_without_resp3() {
    let redis = Redis::with_arguments(&["--rename-command", "HELLO", ""]).await;
    let mut env = TestEnv::builder().redis(redis).config(CACHED).start().await;
    assert_cache_disabled(&mut env, "HELLO").await;
}

/// Checks that reads are cached once Redis replies, and that the log never reported otherwise.
async fn assert_caches(env: &mut TestEnv) {
    eventually("calls succeed", async || {
        env.client.set("", "k", b"v").await.is_ok()
    })
    .await;
    // The lease of the connection may end meanwhile when the machine stalls.
    eventually("reads are served from the cache", async || {
        let before = env.redis.calls("get").await;
        for _ in 0..5 {
            assert_eq!(env.client.get("", "k").await, Ok(Some(b"v".to_vec())));
        }
        env.redis.calls("get").await - before <= 1
    })
    .await;
    assert_eq!(env.provider.stop_and_count_log(&[WARNING]).await, 0);
}

#[tokio::test]
async fn a_disconnect_during_hello_does_not_disable_the_cache() {
    let (mut env, proxy) = behind_a_proxy(|builder| builder).await;
    // The connection is up, and its own HELLO has succeeded.
    env.client.exists("", "k").await.unwrap();
    proxy.disconnect_on("HELLO", Disconnect::BeforeFirstCommand);
    let before = proxy.command_count("HELLO");
    proxy.disconnect_all();
    eventually("HELLO is sent again", async || {
        proxy.command_count("HELLO") == before + 2
    })
    .await;
    assert_caches(&mut env).await;
}

#[tokio::test]
async fn repeated_disconnects_during_hello_disable_the_cache() {
    let (mut env, proxy) = behind_a_proxy(|builder| builder).await;
    env.client.exists("", "k").await.unwrap();
    proxy.disconnect_on("HELLO", Disconnect::BeforeCommand);
    proxy.disconnect_all();
    env.provider.wait_for_log(&["WARN", WARNING, "HELLO"]).await;
    env.client.set("", "k", b"v").await.unwrap();
    assert_eq!(env.client.get("", "k").await, Ok(Some(b"v".to_vec())));
    assert_eq!(env.provider.stop_and_count_log(&[WARNING]).await, 1);
}

#[tokio::test]
async fn maxclients_errors_do_not_disable_the_cache() {
    let redis = Redis::start().await;
    let mut only = redis.connect(0).await.unwrap();
    let mut room_for = async |clients: &str| {
        let mut config = redis::cmd("CONFIG");
        config.arg(&["SET", "maxclients", clients]);
        config.query_async::<()>(&mut only).await.unwrap();
    };
    room_for("1").await;
    let world = TestEnv::builder().redis(redis).config(CACHED);
    let mut env = world.start().await;
    env.provider
        .wait_for_log(&["WARN", "max number of clients"])
        .await;
    room_for("1000").await;
    assert_caches(&mut env).await;
}

#[tokio::test]
async fn busy_errors_do_not_disable_the_cache() {
    let redis = Redis::with_arguments(&["--lua-time-limit", "5"]).await;
    let url = redis.url();
    let script = tokio::spawn(async move {
        let client = redis::Client::open(url).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let mut eval = redis::cmd("EVAL");
        eval.arg("while true do end").arg(0);
        let _: redis::RedisResult<()> = eval.query_async(&mut connection).await;
    });
    let client = redis::Client::open(redis.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    eventually("Redis is busy", async || {
        let result: redis::RedisResult<()> = redis::cmd("PING").query_async(&mut connection).await;
        result.is_err_and(|error| error.code() == Some("BUSY"))
    })
    .await;
    let mut env = TestEnv::builder().redis(redis).config(CACHED).start().await;
    env.provider
        .wait_for_log(&["WARN", "cannot connect", "BUSY"])
        .await;
    let kill = ["SCRIPT", "KILL"];
    let () = redis::cmd(kill[0])
        .arg(kill[1])
        .query_async(&mut connection)
        .await
        .unwrap();
    script.abort();
    assert_caches(&mut env).await;
}

// Guarantees: G26
#[tokio::test]
async fn the_documented_acl_permissions_are_sufficient() {
    let redis = Redis::start().await;
    let permissions = [
        "ACL",
        "SETUSER",
        "ann",
        "on",
        ">secret",
        "~*",
        "-@all",
        "+ping",
        "+client|setname",
        "+get",
        "+set",
        "+del",
        "+exists",
        "+scan",
        "+client|tracking",
        "+client|caching",
        "+pttl",
    ];
    let () = redis.command(&permissions).await;
    let env = TestEnv::builder()
        .redis(redis)
        .config(CACHED)
        .config(&[("USERNAME", "ann"), ("PASSWORD", "secret")])
        .start()
        .await;
    env.client.set("", "k", b"v").await.unwrap();
    for _ in 0..5 {
        assert_eq!(env.client.get("", "k").await, Ok(Some(b"v".to_vec())));
    }
    assert_eq!(env.redis.calls("get").await, 1);
}

/// An authentication error has the same text as without a cache.
#[tokio::test]
async fn authentication_errors_carry_the_message_of_redis() {
    let redis = Redis::with_password("right").await;
    let env = TestEnv::builder()
        .redis(redis)
        .config(CACHED)
        .config(&[("PASSWORD", "wrong")])
        .start()
        .await;
    let error = test_support::client::other_error(env.client.get("", "k").await);
    assert!(error.contains("WRONGPASS"), "{error}");
}
