//! Users, passwords that change, and the minimal permissions of kvredis.

use std::collections::BTreeSet;
use std::fs;

use tempfile::TempDir;
use test_support::client::{Client, other_error};
use test_support::host::Link;
use test_support::redis_node::RedisNode;
use test_support::test_env::TestEnv;
use test_support::wait::eventually;

use crate::all_functions::exercise_all_functions;
use crate::load::Load;

/// The permissions of a user, by docs/topologies.md. `+ping` and `+client|setname` serve health probes
/// and the operator who lists connections.
const PERMISSIONS: &str = "~* +ping +client|setname +info +get +set +del +exists +scan \
                      +evalsha +eval +incrby +pttl +pexpire +mget +mset +multi +exec";

/// Every command that kvredis may send. All are in Redis 6.2 and Valkey 7.2 except `CLIENT SETINFO`,
/// whose rejection is ignored.
const COMMANDS: &[&str] = &[
    "auth",
    "client|setinfo",
    "client|setname",
    "cluster|slots",
    "del",
    "eval",
    "evalsha",
    "exec",
    "exists",
    "get",
    "info",
    "mget",
    "mset",
    "multi",
    "ping",
    "readonly",
    "asking",
    "role",
    "scan",
    "select",
    "sentinel|get-master-addr-by-name",
    "sentinel|replicas",
    "set",
    // Inside the script of `increment`.
    "incrby",
    "pttl",
    "pexpire",
];

async fn link(env: &TestEnv, config: &[(&str, &str)]) -> Client {
    env.add_link(&Link::new("u", "default").config(config))
        .await
}

async fn set_user(server: &RedisNode, rules: &str) {
    let mut words = vec!["ACL", "SETUSER", "app"];
    words.extend(rules.split_whitespace());
    let _: String = server.command(&words).await.unwrap();
}

// Guarantees: G26
#[tokio::test]
async fn the_documented_permissions_are_sufficient() {
    let redis = RedisNode::start(&[]).await;
    set_user(&redis, &format!("on >pw {PERMISSIONS}")).await;
    let env = TestEnv::builder().unlinked().start().await;
    let url = redis.url().replace("//", "//app:pw@");
    let client = link(&env, &[("URL", &url)]).await;
    exercise_all_functions(&client).await;
    env.unlink("u", "default").await;
    let client = link(
        &env,
        &[("URL", &url), ("TTL_MS", "60000"), ("PREFIX", "ttl/")],
    )
    .await;
    exercise_all_functions(&client).await;
    let mut denied: Vec<redis::Value> = redis.command(&["ACL", "LOG"]).await.unwrap();
    // CLIENT SETINFO may be rejected. Redis 7.0 does not know it; others log it: 6.2 without the
    // subcommand.
    denied.retain(|entry| {
        let entry = format!("{entry:?}");
        !["'\"client|setinfo\"'", "'\"client\"'"]
            .iter()
            .any(|object| entry.contains(object))
    });
    assert!(denied.is_empty(), "{denied:?}");
    let page = fs::read_to_string("docs/topologies.md").unwrap();
    for permission in PERMISSIONS
        .split_whitespace()
        .filter(|permission| *permission != "~*")
    {
        assert!(
            page.contains(permission),
            "docs/topologies.md does not name {permission}"
        );
    }
}

// Guarantees: G5
#[tokio::test]
async fn a_failed_increment_needs_no_further_permission_to_be_undone() {
    let redis = RedisNode::start(&[]).await;
    set_user(&redis, "on >pw ~* +ping +eval +evalsha +incrby").await;
    let _: String = redis.command(&["SET", "debt", "-10"]).await.unwrap();
    let env = TestEnv::builder().unlinked().start().await;
    let url = redis.url().replace("//", "//app:pw@");
    let client = link(&env, &[("URL", &url)]).await;
    for delta in [0, 3] {
        let error = other_error(client.increment("", "debt", delta).await);
        assert!(error.contains("negative"), "{error}");
    }
    let stored: String = redis.command(&["GET", "debt"]).await.unwrap();
    assert_eq!(stored, "-10");
}

// Guarantees: G26
#[tokio::test]
async fn only_listed_commands_are_sent() {
    let redis = RedisNode::start(&[]).await;
    let before = commands(&redis).await;
    let env = TestEnv::builder().unlinked().start().await;
    for config in [&[][..], &[("TTL_MS", "60000"), ("PREFIX", "ttl/")]] {
        let url = format!("{}/2", redis.url());
        let client = link(&env, &[&[("URL", url.as_str())], config].concat()).await;
        exercise_all_functions(&client).await;
        env.unlink("u", "default").await;
    }
    let own = ["info", "ping"];
    for command in commands(&redis).await.difference(&before) {
        assert!(
            COMMANDS.contains(&command.as_str()) || own.contains(&command.as_str()),
            "{command} is not in the list of commands"
        );
    }
}

async fn commands(redis: &RedisNode) -> BTreeSet<String> {
    let stats: String = redis.command(&["INFO", "commandstats"]).await.unwrap();
    stats
        .lines()
        .filter_map(|line| line.strip_prefix("cmdstat_"))
        .filter_map(|line| line.split(':').next())
        .map(str::to_owned)
        .collect()
}

// Guarantees: G29
#[tokio::test]
async fn password_file_rotation_fails_no_call() {
    let redis = RedisNode::start(&[]).await;
    set_user(&redis, "on >one +@all ~*").await;
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("password");
    fs::write(&file, "one\n").unwrap();
    let env = TestEnv::builder().unlinked().start().await;
    let url = redis.url().replace("//", "//app@");
    let path = file.to_str().unwrap();
    let client = link(&env, &[("URL", &url), ("PASSWORD_FILE", path)]).await;
    client.set("", "k", b"v").await.unwrap();
    let load = Load::start(&client, 8);
    let logins = async || {
        let stats: String = redis.command(&["INFO", "commandstats"]).await.unwrap();
        let line = stats
            .lines()
            .find(|line| line.starts_with("cmdstat_auth:calls="));
        line.map_or(0, |line| {
            let count = line.split(['=', ',']).nth(1).unwrap();
            count.parse::<u32>().unwrap()
        })
    };
    let before = logins().await;
    // Both passwords are valid during a rotation.
    set_user(&redis, ">two").await;
    fs::write(&file, "two\n").unwrap();
    eventually("kvredis authenticates again", async || {
        logins().await > before
    })
    .await;
    set_user(&redis, "<one").await;
    let calls = load.calls();
    eventually("calls go on", async || load.calls() > calls + 200).await;
    let outcome = load.finish().await;
    assert!(outcome.errors.is_empty(), "{:?}", outcome.errors.first());
    env.provider
        .wait_for_log(&["logged in with a new password"])
        .await;
    let log = env.provider.log().join("\n");
    assert!(
        !log.contains("two\"") && !log.contains(">two"),
        "the password is in the log"
    );
}

// Guarantees: G29
#[tokio::test]
async fn a_password_changed_first_in_redis_recovers_with_the_file() {
    let redis = RedisNode::start(&[]).await;
    set_user(&redis, "on >one +@all ~*").await;
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("password");
    fs::write(&file, "one").unwrap();
    let env = TestEnv::builder().unlinked().start().await;
    let url = redis.url().replace("//", "//app@");
    let client = link(
        &env,
        &[("URL", &url), ("PASSWORD_FILE", file.to_str().unwrap())],
    )
    .await;
    client.set("", "k", b"v").await.unwrap();
    set_user(&redis, "resetpass >two").await;
    let _: i64 = redis
        .command(&["CLIENT", "KILL", "USER", "app"])
        .await
        .unwrap();
    eventually("the old password is rejected", async || {
        let refused = client.get("", "k").await;
        refused.is_err_and(|error| error.to_string().contains("WRONGPASS"))
    })
    .await;
    fs::write(&file, "two").unwrap();
    eventually("the new password is accepted", async || {
        client.get("", "k").await.is_ok()
    })
    .await;
}

// Guarantees: G29
#[tokio::test]
async fn missing_and_empty_password_files_are_named() {
    let redis = RedisNode::start(&[]).await;
    let folder = TempDir::new().unwrap();
    let env = TestEnv::builder().unlinked().start().await;
    let missing = folder.path().join("missing");
    let empty = folder.path().join("empty");
    fs::write(&empty, "\n").unwrap();
    for (path, reason) in [(&missing, "no such file"), (&empty, "it is empty")] {
        let path = path.to_str().unwrap();
        let client = link(&env, &[("URL", &redis.url()), ("PASSWORD_FILE", path)]).await;
        let error = other_error(client.get("", "k").await).to_lowercase();
        assert!(
            error.contains("password_file") && error.contains(reason),
            "{error}"
        );
        assert!(error.contains(&path.to_lowercase()), "{error}");
        env.unlink("u", "default").await;
    }
    let client = link(
        &env,
        &[("URL", &redis.url()), ("PASSWORD_FILE", "relative")],
    )
    .await;
    let error = other_error(client.get("", "k").await);
    assert!(
        error.contains("PASSWORD_FILE") && error.contains("an absolute path"),
        "{error}"
    );
}
