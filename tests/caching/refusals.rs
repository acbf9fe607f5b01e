//! Servers that do not tell of changes: nothing is kept, the log says why, and all answers are
//! right.

use test_support::proxy::Disconnect;
use test_support::redis::Redis;
use test_support::test_env::TestEnv;
use test_support::wait::eventually;

use crate::CACHED;
use crate::behind_a_proxy;

const WARNING: &str = "nothing that is read is kept in memory";

/// Checks that everything is answered by Redis itself, and that the log says so once.
async fn keeps_nothing(env: &mut TestEnv, reason: &str) {
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

/// A world with a user who may do everything but this.
async fn without(rights: &[&str]) -> TestEnv {
    let redis = Redis::start().await;
    let mut user = vec!["ACL", "SETUSER", "ann", "on", ">secret", "~*", "+@all"];
    user.extend(rights);
    let () = redis.command(&user).await;
    TestEnv::builder()
        .redis(redis)
        .config(CACHED)
        .config(&[("USERNAME", "ann"), ("PASSWORD", "secret")])
        .start()
        .await
}

#[tokio::test]
async fn an_acl_may_forbid_tracking() {
    // Redis 6.2 can allow single subcommands, but not forbid them.
    let mut env = without(&["-client", "+client|setname"]).await;
    keeps_nothing(&mut env, "NOPERM").await;
}

#[tokio::test]
async fn an_acl_may_forbid_to_say_what_is_kept() {
    let mut env = without(&["-client|caching"]).await;
    keeps_nothing(&mut env, "NOPERM").await;
}

#[tokio::test]
async fn an_acl_may_forbid_to_ask_how_long_a_key_lives() {
    let mut env = without(&["-pttl"]).await;
    keeps_nothing(&mut env, "PTTL").await;
}

/// As Redis before 6, and whatever else speaks only RESP2.
#[tokio::test]
async fn a_server_may_not_know_the_protocol() {
    let redis = Redis::with_arguments(&["--rename-command", "HELLO", ""]).await;
    let mut env = TestEnv::builder().redis(redis).config(CACHED).start().await;
    keeps_nothing(&mut env, "HELLO").await;
}

/// Checks that what is read is kept once Redis answers, and that the log never said otherwise.
async fn keeps(env: &mut TestEnv) {
    eventually("the link is back", async || {
        env.client.set("", "k", b"v").await.is_ok()
    })
    .await;
    let before = env.redis.calls("get").await;
    for _ in 0..5 {
        assert_eq!(env.client.get("", "k").await, Ok(Some(b"v".to_vec())));
    }
    // One, unless the machine stood still for as long as an answer is vouched for.
    let asked = env.redis.calls("get").await - before;
    assert!((1..4).contains(&asked), "{asked} of 5 reads asked Redis");
    assert_eq!(env.provider.stop_and_count_log(&[WARNING]).await, 0);
}

#[tokio::test]
async fn a_connection_that_breaks_at_hello_is_no_refusal() {
    let (mut env, proxy) = behind_a_proxy(|builder| builder).await;
    // The connection is there, and its own HELLO is over.
    env.client.exists("", "k").await.unwrap();
    proxy.disconnect_on("HELLO", Disconnect::BeforeFirstCommand);
    let before = proxy.command_count("HELLO");
    proxy.disconnect_all();
    eventually("it is said again", async || {
        proxy.command_count("HELLO") == before + 2
    })
    .await;
    keeps(&mut env).await;
}

#[tokio::test]
async fn who_always_hangs_up_at_hello_is_spoken_to_without() {
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
async fn a_redis_without_room_for_a_client_refuses_nothing_for_good() {
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
    keeps(&mut env).await;
}

#[tokio::test]
async fn a_redis_that_is_busy_refuses_nothing_for_good() {
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
        let answer: redis::RedisResult<()> = redis::cmd("PING").query_async(&mut connection).await;
        answer.is_err_and(|error| error.code() == Some("BUSY"))
    })
    .await;
    let mut env = TestEnv::builder().redis(redis).config(CACHED).start().await;
    env.provider
        .wait_for_log(&["WARN", "no connection", "BUSY"])
        .await;
    let kill = ["SCRIPT", "KILL"];
    let () = redis::cmd(kill[0])
        .arg(kill[1])
        .query_async(&mut connection)
        .await
        .unwrap();
    script.abort();
    keeps(&mut env).await;
}

#[tokio::test]
async fn the_rights_that_the_readme_names_are_enough() {
    let redis = Redis::start().await;
    let rights = [
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
    let () = redis.command(&rights).await;
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

/// What is wrong with the log-in is said as without a cache.
#[tokio::test]
async fn wrong_credentials_are_answered_in_the_words_of_redis() {
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
