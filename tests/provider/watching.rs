//! Watching: the changes that a component receives, with their keys and values.

// Guarantees: G38

use redis::Cmd;
use test_support::component::Component;
use test_support::redis::Redis;
use test_support::test_env::TestEnv;
use test_support::wait::{eventually, eventually_eq};

pub const WATCHER: &str = "watcher-component";
const ALL: [(&str, &str); 1] = [("WATCH", "SET@*,DEL@*")];

/// An environment with keyspace notifications and a component that watches with this `config`.
pub async fn watching(config: &[(&str, &str)]) -> (TestEnv, Component) {
    let env = TestEnv::builder().unlinked().start().await;
    notify(&env.redis).await;
    let component = env.component(WATCHER).await;
    env.watch(WATCHER, "default", config).await;
    (env, component)
}

/// Enables all keyspace notifications.
pub async fn notify(redis: &Redis) {
    let () = redis
        .command(&["CONFIG", "SET", "notify-keyspace-events", "AKE"])
        .await;
}

/// Runs commands given as words.
pub async fn run(redis: &Redis, commands: &[&[&str]]) {
    for words in commands {
        let _: redis::Value = redis.command(words).await;
    }
}

/// Waits until the component has received exactly these calls, in this order. A final change of the
/// key `end` shows that nothing else follows: its lane may differ, but Redis publishes it last.
async fn expect_calls(env: &TestEnv, component: &Component, expected: &[(&str, &str, &str)]) {
    let () = env.redis.command(&["SET", "end", "end"]).await;
    component.wait_for_call("end").await;
    let expected: Vec<_> = expected
        .iter()
        .map(|(function, key, value)| {
            let texts = [*function, *key, *value].map(str::to_owned);
            let [function, key, value] = texts;
            (function, key, value)
        })
        .collect();
    eventually_eq("the component receives the calls", expected, async || {
        let mut received = component.call_summaries();
        received.retain(|(_, key, _)| key != "end");
        received
    })
    .await;
    component.clear_calls();
}

#[tokio::test]
async fn every_command_that_sets_a_string_is_notified() {
    let (env, component) = watching(&[("WATCH", "SET@k,SET@end")]).await;
    let dump = {
        run(&env.redis, &[&["SET", "source", "dumped"]]).await;
        let dump: Vec<u8> = env.redis.command(&["DUMP", "source"]).await;
        dump
    };
    for (before, command, value) in [
        (None, &["SET", "k", "1"][..], "1"),
        (None, &["SET", "k", "2", "EX", "100"], "2"),
        (None, &["SET", "k", "3", "NX"], "3"),
        (None, &["SETNX", "k", "4"], "4"),
        (None, &["SETEX", "k", "100", "5"], "5"),
        (None, &["PSETEX", "k", "100000", "6"], "6"),
        (None, &["GETSET", "k", "7"], "7"),
        (None, &["SET", "k", "8", "GET"], "8"),
        (None, &["MSET", "other", "x", "k", "9"], "9"),
        (None, &["MSETNX", "k", "10"], "10"),
        (None, &["INCR", "k"], "1"),
        (None, &["INCRBY", "k", "5"], "5"),
        (None, &["DECR", "k"], "-1"),
        (None, &["DECRBY", "k", "2"], "-2"),
        (None, &["INCRBYFLOAT", "k", "1.5"], "1.5"),
        (None, &["APPEND", "k", "appended"], "appended"),
        (None, &["SETRANGE", "k", "0", "ranged"], "ranged"),
        (None, &["SETBIT", "k", "1", "1"], "@"),
        (None, &["BITFIELD", "k", "SET", "u8", "0", "65"], "A"),
        (None, &["BITOP", "OR", "k", "source"], "dumped"),
        (
            Some(["SET", "from", "renamed"]),
            &["RENAME", "from", "k"],
            "renamed",
        ),
        (
            Some(["SET", "from", "renamed"]),
            &["RENAMENX", "from", "k"],
            "renamed",
        ),
        (
            Some(["SET", "from", "copied"]),
            &["COPY", "from", "k"],
            "copied",
        ),
    ] {
        if let Some(before) = before {
            run(&env.redis, &[&before]).await;
        }
        run(&env.redis, &[&["DEL", "k"], command]).await;
        expect_calls(&env, &component, &[("on-set", "k", value)]).await;
    }
    let restore = Cmd::new()
        .arg("RESTORE")
        .arg("k")
        .arg(0)
        .arg(dump)
        .arg("REPLACE")
        .take();
    let () = env.redis.query(&restore).await;
    expect_calls(&env, &component, &[("on-set", "k", "dumped")]).await;
}

#[tokio::test]
async fn every_removal_of_a_key_is_notified() {
    let (env, component) = watching(&[("WATCH", "DEL@k,SET@end")]).await;
    for command in [
        &["DEL", "k"][..],
        &["UNLINK", "k"],
        &["GETDEL", "k"],
        &["RENAME", "k", "elsewhere"],
        &["MOVE", "k", "1"],
        &["PEXPIRE", "k", "1"],
        &["EXPIREAT", "k", "1"],
        &["GETEX", "k", "PX", "1"],
    ] {
        run(&env.redis, &[&["SET", "k", "v"], command]).await;
        // Redis may take a while to expire a key; access expires it at once.
        eventually("the key is gone", async || {
            !env.redis.command::<bool>(&["EXISTS", "k"]).await
        })
        .await;
        expect_calls(&env, &component, &[("on-delete", "k", "")]).await;
    }
    run(&env.redis, &[&["SET", "k", "v"]]).await;
    run(
        &env.redis,
        &[&["CONFIG", "SET", "maxmemory-policy", "allkeys-random"]],
    )
    .await;
    run(&env.redis, &[&["CONFIG", "SET", "maxmemory", "1"]]).await;
    eventually("the key is evicted", async || {
        !env.redis.command::<bool>(&["EXISTS", "k"]).await
    })
    .await;
    run(&env.redis, &[&["CONFIG", "SET", "maxmemory", "0"]]).await;
    expect_calls(&env, &component, &[("on-delete", "k", "")]).await;
}

#[tokio::test]
async fn commands_that_change_no_string_are_not_notified() {
    let (env, component) = watching(&[("WATCH", "SET@k,DEL@k,SET@end")]).await;
    run(
        &env.redis,
        &[
            &["SET", "k", "v"],
            &["GET", "k"],
            &["EXPIRE", "k", "100"],
            &["PERSIST", "k"],
            &["SET", "k", "env", "NX"],
            &["SET", "k2", "x"],
        ],
    )
    .await;
    expect_calls(&env, &component, &[("on-set", "k", "v")]).await;
    // A list is not a value, but its removal is the removal of its key.
    run(
        &env.redis,
        &[&["DEL", "k"], &["RPUSH", "k", "a"], &["RPUSH", "l", "a"]],
    )
    .await;
    run(&env.redis, &[&["RENAME", "l", "k"]]).await;
    expect_calls(&env, &component, &[("on-delete", "k", "")]).await;
}

#[tokio::test]
async fn watch_patterns_match_keys_with_any_character() {
    let patterns = r"SET@a:b, SET@user:*:name, SET@li\*teral, SET@com\,ma, SET@sp ace, SET@zeile,
        SET@n[12], SET@q?, SET@back\\slash, SET@ünï, SET@me@home, SET@end";
    let patterns = patterns.replace("zeile", "two\nlines");
    let (env, component) = watching(&[("WATCH", &patterns)]).await;
    let watched_keys = [
        "a:b",
        "user:1:name",
        "user:a:b:name",
        "li*teral",
        "com,ma",
        "sp ace",
        "two\nlines",
        "n2",
        "qq",
        r"back\slash",
        "ünï",
        "me@home",
    ];
    let other_keys = [
        "a:bc",
        "xa:b",
        "user:1",
        "li1teral",
        "com",
        "n3",
        "q",
        "backslash",
        "A:B",
    ];
    for key in other_keys.iter().chain(&watched_keys) {
        run(&env.redis, &[&["SET", key, key]]).await;
        if watched_keys.contains(key) {
            expect_calls(&env, &component, &[("on-set", key, key)]).await;
        }
    }
}

#[tokio::test]
async fn a_change_is_notified_once_for_overlapping_patterns() {
    let config = [("WATCH", "SET@ab,SET@a*,SET@*,DEL@*b,DEL@ab,SET@ab")];
    let (env, component) = watching(&config).await;
    let commands: [&[&str]; 4] = [
        &["SET", "ab", "1"],
        &["DEL", "ab"],
        &["SET", "ab", "2"],
        &["DEL", "a"],
    ];
    for command in commands {
        run(&env.redis, &[command]).await;
        eventually(
            "the component receives the change, if it is one",
            async || component.call_count() >= 1 || command[1] == "a",
        )
        .await;
        let expected = match command {
            ["SET", key, value] => vec![("on-set", *key, *value)],
            [_, "ab"] => vec![("on-delete", "ab", "")],
            _ => Vec::new(),
        };
        expect_calls(&env, &component, &expected).await;
    }
}

#[tokio::test]
async fn calls_carry_the_bucket_of_the_link() {
    let env = TestEnv::builder().unlinked().start().await;
    notify(&env.redis).await;
    // The settings, the prefix of the key in Redis, and the database.
    for (number, (config, prefix)) in [
        (&[][..], ""),
        (&[("WATCH_BUCKET", "b")], "b:"),
        (&[("WATCH_BUCKET", "b"), ("BUCKET_LAYOUT", "flat")], ""),
        (&[("BUCKET_LAYOUT", "prefix-all")], "default:"),
        (
            &[
                ("WATCH_BUCKET", "b*"),
                ("BUCKET_LAYOUT", "prefix-all"),
                ("PREFIX", "[p]?\\"),
            ],
            "[p]?\\b*:",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let database = u32::try_from(number).unwrap() * 3;
        let id = format!("component-{number}");
        let component = env.component(&id).await;
        let url = env.redis.url_of(database);
        let config: Vec<_> = config
            .iter()
            .copied()
            .chain(ALL)
            .chain([("URL", &*url)])
            .collect();
        env.watch(&id, "default", &config).await;
        let key = format!("{prefix}k:1");
        for other in ["zzz", "bb:k:1", "p?\\b*:k", "[p]?\\bc:k"] {
            if !prefix.is_empty() {
                let () = env.redis.command_in(database, &["SET", other, "no"]).await;
            }
            let () = env
                .redis
                .command_in(database + 1, &["SET", &key, "no"])
                .await;
        }
        let () = env.redis.command_in(database, &["SET", &key, "v"]).await;
        let received = component.wait_for_call("k:1").await;
        assert_eq!(
            (received.bucket.as_str(), received.value.as_deref()),
            ("0", Some(&b"v"[..]))
        );
        let _: u64 = env.redis.command_in(database, &["DEL", &key]).await;
        eventually("the component receives the deletion", async || {
            component.call_count() >= 2
        })
        .await;
        let received = component.wait_for_call("k:1").await;
        assert_eq!(
            (received.bucket.as_str(), received.function.as_str()),
            ("0", "on-delete")
        );
        assert_eq!(
            component.call_count(),
            2,
            "{:?}",
            component.call_summaries()
        );
    }
}

#[tokio::test]
async fn values_may_be_arbitrary_bytes_of_any_size() {
    let (env, component) = watching(&[("WATCH", "SET@*")]).await;
    for (number, size) in [0, 1, 40_000, 1 << 20, 5 << 20].into_iter().enumerate() {
        let key = format!("k{number}");
        let value: Vec<u8> = (0..size).map(|byte: u32| byte as u8).collect();
        let set = Cmd::new().arg("SET").arg(&key).arg(&value).take();
        let () = env.redis.query(&set).await;
        let received = component.wait_for_call(&key).await;
        assert!(received.value.unwrap() == value, "{size} bytes");
    }
    component.clear_calls();
    // A key that is not UTF-8 cannot be named in a call; later changes still arrive.
    let set = Cmd::new().arg("SET").arg(&b"\xff\xfe"[..]).arg("v").take();
    let () = env.redis.query(&set).await;
    expect_calls(&env, &component, &[]).await;
    env.provider.wait_for_log(&["changes=1", "not UTF-8"]).await;
}

#[tokio::test]
async fn writes_of_one_component_are_notified_to_another() {
    let (env, component) = watching(&ALL).await;
    let client = env.link("writer", "default", &[]).await;
    component.clear_calls();
    client.set("", "k", b"v").await.unwrap();
    client.increment("", "n", 7).await.unwrap();
    client.delete("", "k").await.unwrap();
    eventually("three calls have arrived", async || {
        component.call_count() == 3
    })
    .await;
    let mut received = component.call_summaries();
    received.sort();
    let gone_or_set = |received: &(String, String, String)| received.1 == "k";
    assert!(
        received.iter().filter(|t| gone_or_set(t)).count() == 2,
        "{received:?}"
    );
    assert_eq!(component.wait_for_call("n").await.value.unwrap(), b"7");
}
