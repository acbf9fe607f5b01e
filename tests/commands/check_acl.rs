//! `kvredis check`: missing ACL permissions, keyspace notifications that are off, and writes that Redis
//! rejects from every user.

// Guarantees: G57

use test_support::redis::Redis;

use crate::run::{CheckResult, check};

/// A server with the user `app`, which has these ACL rules.
async fn with_user(rules: &[&str]) -> Redis {
    let redis = Redis::start().await;
    let words = [&["ACL", "SETUSER", "app", "reset", "on", ">pw"], rules].concat();
    let () = redis.command(&words).await;
    redis
}

async fn check_as_user(redis: &Redis, settings: &[&str]) -> CheckResult {
    let url = redis.url();
    let words = [&[url.as_str(), "USERNAME=app", "PASSWORD=pw"], settings].concat();
    check(&words).await
}

fn missing(found: &CheckResult) -> Vec<&str> {
    let failed = found
        .all("acl")
        .into_iter()
        .find(|finding| finding["status"] == "failed");
    let missing = failed.map(|finding| finding["details"]["missing"].as_array().unwrap());
    let missing = missing.into_iter().flatten();
    missing
        .map(|right| right["rule"].as_str().unwrap())
        .collect()
}

/// The documented ACL rules are sufficient, and each of them is necessary.
// Guarantees: G26
#[tokio::test]
async fn the_documented_acl_rules_are_sufficient_and_necessary() {
    let links: [(&[&str], &[&str]); 4] = [
        (
            &[],
            &[
                "get", "set", "del", "exists", "scan", "evalsha", "eval", "incrby", "mget", "mset",
            ],
        ),
        (
            &["TTL_MS=5000"],
            &[
                "get", "set", "del", "exists", "scan", "evalsha", "eval", "incrby", "pttl",
                "pexpire", "mget", "multi", "exec",
            ],
        ),
        (&["READ_ONLY=true"], &["get", "exists", "scan", "mget"]),
        (
            &["WATCH=SET@a", "WATCH_ONCE=1", "WATCH_CONFIGURE_REDIS=1"],
            &[
                "get",
                "eval",
                "set",
                "pttl",
                "psubscribe",
                "config|get",
                "config|set",
            ],
        ),
    ];
    for (settings, commands) in links {
        let allowed: Vec<String> = commands
            .iter()
            .map(|command| format!("+{command}"))
            .collect();
        let mut rules = vec![
            "~own:*",
            "&__keyspace@0__:own:a",
            "+ping",
            "+client|setname",
        ];
        rules.extend(allowed.iter().map(String::as_str));
        let redis = with_user(&rules).await;
        let words = [&["PREFIX=own:"], settings].concat();
        check_as_user(&redis, &words).await.fails(&[]);
        for command in commands {
            let () = redis
                .command(&["ACL", "SETUSER", "app", &format!("-{command}")])
                .await;
            let found = check_as_user(&redis, &words).await;
            let () = redis
                .command(&["ACL", "SETUSER", "app", &format!("+{command}")])
                .await;
            if *command == "config|get" {
                // Without this permission watching works and the check warns.
                assert_eq!(found.status("notifications"), "warning", "{}", found.text);
                continue;
            }
            assert_eq!(found.code, Some(1), "without {command}: {}", found.text);
            let is_named = found.text.contains(&format!("+{command}"));
            assert!(is_named, "without {command}: {}", found.text);
        }
        let () = redis.command(&["ACL", "SETUSER", "app", "-ping"]).await;
        let found = check_as_user(&redis, &words).await;
        found.fails(&[]);
        assert_eq!(found.status("acl"), "warning", "{}", found.text);
    }
}

#[tokio::test]
async fn missing_write_permissions_fail_with_advice() {
    let redis = with_user(&["~*", "+@read", "+ping", "+client", "+info", "+acl|whoami"]).await;
    let found = check_as_user(&redis, &[]).await;
    found.fails(&["acl"]);
    let writes = ["+del", "+eval", "+evalsha", "+incrby", "+mset", "+set"];
    assert_eq!(missing(&found), writes, "{}", found.text);
    found.says("acl", &["ACL SETUSER app +del +eval", "READ_ONLY=true"]);
    assert_eq!(found.one("login")["details"]["user"], "app");
    check_as_user(&redis, &["READ_ONLY=true"]).await.fails(&[]);
}

#[tokio::test]
async fn missing_key_permissions_fail_with_advice() {
    let redis = with_user(&["~own:*", "+@all"]).await;
    check_as_user(&redis, &["PREFIX=own:"]).await.fails(&[]);
    let found = check_as_user(&redis, &["PREFIX=own:", "BUCKETS=a,default"]).await;
    found.fails(&[]);
    let found = check_as_user(&redis, &["BUCKETS=own,carts"]).await;
    found.fails(&["acl"]);
    assert_eq!(missing(&found), ["~carts:*"], "{}", found.text);
    assert!(!found.text.contains("or set"), "{}", found.text);
    let found = check_as_user(&redis, &[]).await;
    assert_eq!(missing(&found), ["~*"], "{}", found.text);
    found.says("acl", &["or set BUCKETS (or PREFIX)"]);
    let found = check_as_user(&redis, &["BUCKET_LAYOUT=flat"]).await;
    found.says("acl", &["or set PREFIX"]);
}

#[tokio::test]
async fn missing_tracking_permissions_disable_the_cache() {
    let redis = with_user(&["~*", "+@all", "-client|tracking"]).await;
    let cache = ["CACHE_MAX_ENTRIES=10", "READ_ONLY=true"];
    let found = check_as_user(&redis, &cache).await;
    found.fails(&["cache"]);
    found.says("cache", &["NOPERM", "+client|tracking"]);
    let () = redis
        .command(&["ACL", "SETUSER", "app", "+client|tracking"])
        .await;
    let found = check_as_user(&redis, &cache).await;
    found.fails(&[]);
    assert_eq!(found.status("cache"), "ok");
    let () = redis.command(&["ACL", "SETUSER", "app", "-pttl"]).await;
    let found = check_as_user(&redis, &cache).await;
    found.fails(&["acl"]);
    assert_eq!(missing(&found), ["+pttl"], "{}", found.text);
    check_as_user(&redis, &[]).await.fails(&[]);
}

#[tokio::test]
async fn disabled_keyspace_notifications_fail_with_advice() {
    let redis = Redis::start().await;
    let url = redis.url();
    let watch = [url.as_str(), "WATCH=SET@orders:*,DEL@orders:*"];
    let found = check(&watch).await;
    found.fails(&["notifications"]);
    let command = "CONFIG SET notify-keyspace-events K$gxe";
    found.says("notifications", &[command, "WATCH_CONFIGURE_REDIS"]);
    assert_eq!(found.one("notifications")["details"]["command"], command);
    check(&[&watch[..], &["WATCH_CONFIGURE_REDIS=true"]].concat())
        .await
        .fails(&[]);
    let flags: Vec<String> = redis
        .command(&["CONFIG", "GET", "notify-keyspace-events"])
        .await;
    assert_eq!(flags[1], "", "the check changed the configuration");

    let () = redis
        .command(&["CONFIG", "SET", "notify-keyspace-events", "KEA"])
        .await;
    let found = check(&watch).await;
    found.fails(&[]);
    found.says("subscription", &["__keyspace@0__:orders:*"]);
    let found = check(&[&watch[..], &["BUCKETS=a"]].concat()).await;
    found.fails(&["subscription"]);
    found.says("subscription", &["WATCH_BUCKET"]);
}

#[tokio::test]
async fn missing_channel_permissions_fail_with_advice() {
    // Redis compares the channel pattern literally.
    let redis = with_user(&["~*", "resetchannels", "&__keyspace@*", "+@all"]).await;
    let () = redis
        .command(&["CONFIG", "SET", "notify-keyspace-events", "KEA"])
        .await;
    let found = check_as_user(&redis, &["WATCH=SET@a*"]).await;
    found.fails(&["subscription"]);
    let channel = "&__keyspace@0__:a*";
    found.says("subscription", &["NOPERM", channel]);
    let () = redis.command(&["ACL", "SETUSER", "app", channel]).await;
    check_as_user(&redis, &["WATCH=SET@a*"]).await.fails(&[]);
    // Quoted, because redis-cli would interpret the apostrophe.
    let found = check_as_user(&redis, &["WATCH=SET@it's*"]).await;
    found.says("subscription", &["\"&__keyspace@0__:it's*\""]);
}

#[tokio::test]
async fn renamed_commands_fail_with_advice() {
    let redis = Redis::with_arguments(&["--rename-command", "EVAL", ""]).await;
    let found = check(&[&redis.url()]).await;
    found.fails(&["acl"]);
    found.says("acl", &["no command eval", "rename-command"]);
}

#[tokio::test]
async fn writes_rejected_for_every_user_fail() {
    let redis = Redis::with_arguments(&["--maxmemory", "1"]).await;
    let found = check(&[&redis.url()]).await;
    found.fails(&["writes"]);
    found.says("writes", &["OOM", "maxmemory"]);
    check(&[&redis.url(), "READ_ONLY=true"]).await.fails(&[]);
}
