//! Errors of Redis. Transient errors are retried within the call's timeout until they pass; permanent
//! ones are returned at once with Redis's message.
//!
//! All errors come from Redis itself. Credentials that are wrong from the start, NOPERM and OOM are in
//! `tests/provider/errors.rs`.

// Guarantees: G46

use std::time::Duration;

use test_support::client::{Client, Error, other_error};
use test_support::host::Link;
use test_support::redis::Redis;
use test_support::test_env::TestEnv;
use test_support::wait::eventually;
use tokio::time::{Instant, sleep};

use crate::latency::s;
use crate::provider_pair::{FAULT_DURATION, ProviderPair, Rejected, record_retried};
use crate::scenario::{Row, record};

/// The time limit of an immediate error, on a machine that runs other tests, too.
const IMMEDIATE_LIMIT: Duration = Duration::from_secs(3);

#[tokio::test]
async fn loading_errors_are_retried() {
    let mut pair = ProviderPair::new(Redis::start().await).await;
    let keys: Vec<String> = (0..4_000).map(|i| format!("filler{i}")).collect();
    let mut fill = redis::pipe();
    for key in &keys {
        fill.set(key, key).ignore();
    }
    pair.redis.run_pipeline(&fill).await;
    pair.redis.command::<()>(&["SAVE"]).await;
    // As in Redis's own tests: 4,000 keys take 4 s to load, and Redis serves clients in between.
    let slow = ["--key-load-delay", "1000"];
    let serve_clients = ["--loading-process-events-interval-bytes", "1024"];
    pair.redis
        .restart_with(&[slow, serve_clients].concat())
        .await;
    pair.assert_retried("LOADING", Rejected::All, async |_| {})
        .await;
}

#[tokio::test]
async fn readonly_errors_are_retried_until_the_promotion() {
    let primary = Redis::start().await;
    let pair = ProviderPair::new(Redis::start().await).await;
    let port = primary.port().to_string();
    let follow = ["REPLICAOF", "127.0.0.1", &port];
    pair.redis.command::<()>(&follow).await;
    eventually("the replica is in sync", async || {
        let info: String = pair.redis.command(&["INFO", "replication"]).await;
        info.contains("master_link_status:up")
    })
    .await;
    let promote = async |redis: &Redis| redis.command::<()>(&["REPLICAOF", "NO", "ONE"]).await;
    pair.assert_retried("READONLY", Rejected::Writes, promote)
        .await;
}

#[tokio::test]
async fn masterdown_errors_are_retried() {
    let pair = ProviderPair::new(Redis::start().await).await;
    let mut primary = Redis::stopped();
    let stale = ["CONFIG", "SET", "replica-serve-stale-data", "no"];
    pair.redis.command::<()>(&stale).await;
    let port = primary.port().to_string();
    let follow = ["REPLICAOF", "127.0.0.1", &port];
    pair.redis.command::<()>(&follow).await;
    let restore_primary = async |redis: &Redis| {
        primary.restart().await;
        let at_once = ["CONFIG", "SET", "repl-diskless-sync-delay", "0"];
        primary.command::<()>(&at_once).await;
        eventually("the replica is in sync", async || {
            let info: String = redis.command(&["INFO", "replication"]).await;
            info.contains("master_link_status:up")
        })
        .await;
        // Writes succeed once it is a primary itself.
        redis.command::<()>(&["REPLICAOF", "NO", "ONE"]).await;
    };
    pair.assert_retried("MASTERDOWN", Rejected::All, restore_primary)
        .await;
}

// Guarantees: G30
#[tokio::test]
async fn clusterdown_errors_are_retried() {
    let redis = Redis::with_arguments(&["--cluster-enabled", "yes"]).await;
    let pair = ProviderPair::new(redis).await;
    let give_slots = async |redis: &Redis| redis.query(&slots()).await;
    pair.assert_retried("CLUSTERDOWN", Rejected::Keys, give_slots)
        .await;
}

// Guarantees: G30
#[tokio::test]
async fn tryagain_errors_are_retried() {
    let cluster = ["--cluster-enabled", "yes"];
    let (redis, other_node) = tokio::join!(
        Redis::with_arguments(&cluster),
        Redis::with_arguments(&cluster)
    );
    redis.query::<()>(&slots()).await;
    let port = other_node.port().to_string();
    redis
        .command::<()>(&["CLUSTER", "MEET", "127.0.0.1", &port])
        .await;
    let id: String = other_node.command(&["CLUSTER", "MYID"]).await;
    eventually("the nodes have joined", async || {
        let nodes: String = redis.command(&["CLUSTER", "NODES"]).await;
        let info: String = redis.command(&["CLUSTER", "INFO"]).await;
        nodes.contains(&id) && !nodes.contains("handshake") && info.contains("cluster_state:ok")
    })
    .await;
    let env = TestEnv::builder()
        .unlinked()
        .rpc_timeout_ms(Some(15_000))
        .start()
        .await;
    let link = Link::new("c", "default").config(&[("URL", &redis.url())]);
    let client = env.add_link(&link).await;
    client.set("", "{a}1", b"1").await.unwrap();
    let slot: u64 = redis.command(&["CLUSTER", "KEYSLOT", "{a}"]).await;
    let slot = slot.to_string();
    redis
        .command::<()>(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &id])
        .await;
    // Half of these keys are absent here and may be on the other node.
    let result = async {
        let values = client.get_many("", &["{a}1", "{a}2"]).await.unwrap();
        assert!(values[0].is_some() && values[1].is_none(), "{values:?}");
    };
    let ending = async {
        sleep(FAULT_DURATION).await;
        redis
            .command::<()>(&["CLUSTER", "SETSLOT", &slot, "STABLE"])
            .await;
    };
    let started = Instant::now();
    tokio::join!(result, ending);
    let took = started.elapsed();
    assert!(
        took >= FAULT_DURATION,
        "the call completed before the end of the fault: {took:?}"
    );
    let stats: String = redis.command(&["INFO", "commandstats"]).await;
    let attempts = stats
        .lines()
        .find_map(|line| line.strip_prefix("cmdstat_mget:"))
        .and_then(|line| line.split_once("rejected_calls="))
        .and_then(|(_, rest)| rest.split(',').next())
        .and_then(|count| count.parse::<u64>().ok())
        .expect("Redis counts rejected calls");
    assert!((3..100).contains(&attempts), "{attempts} attempts");
    record_retried("TRYAGAIN", "1 get-many", 1, 0, took);
}

#[tokio::test]
async fn busy_errors_are_retried() {
    let pair = ProviderPair::new(Redis::start().await).await;
    let limit = ["CONFIG", "SET", "lua-time-limit", "50"];
    pair.redis.command::<()>(&limit).await;
    // New connections of the test would be rejected, too.
    let mut killer = pair.redis.connect(0).await.unwrap();
    let mut busy = pair.redis.connect(0).await.unwrap();
    let endless = tokio::spawn(async move {
        let script = ["EVAL", "while true do end", "0"];
        redis::cmd(script[0])
            .arg(&script[1..])
            .query_async::<()>(&mut busy)
            .await
    });
    // The first calls must follow the script.
    eventually("Redis is busy", async || {
        let ping = redis::cmd("PING");
        let result = ping.query_async::<()>(&mut killer).await;
        result.is_err_and(|error| error.code() == Some("BUSY"))
    })
    .await;
    // A link that is put during the fault connects to a database that Redis does not select yet.
    let late = Link::new("late", "default").config(&[("URL", &pair.redis.url_of(1))]);
    let mut kill = redis::cmd("SCRIPT");
    kill.arg("KILL");
    let end = async |_: &Redis| {
        let late = pair.long_timeout.add_link(&late).await;
        let call = late.set("", "k", b"v");
        let killed = async {
            sleep(FAULT_DURATION).await;
            kill.query_async::<()>(&mut killer).await.unwrap();
        };
        let (result, ()) = tokio::join!(call, killed);
        assert_eq!(result, Ok(()), "a link that was put during the fault");
    };
    pair.assert_retried("BUSY", Rejected::All, end).await;
    assert!(endless.await.unwrap().is_err());
}

#[tokio::test]
async fn misconf_errors_are_returned_at_once() {
    let env = TestEnv::builder()
        .rpc_timeout_ms(Some(30_000))
        .start()
        .await;
    let expiring = env
        .link("expiring", "default", &[("TTL_MS", "500000")])
        .await;
    env.client.set("", "k", b"1").await.unwrap();
    // A folder blocks the path of the snapshot.
    let socket = env.redis.socket();
    let file = socket.with_file_name("dump.rdb");
    std::fs::create_dir(&file).unwrap();
    std::fs::write(file.join("in the way"), b"").unwrap();
    env.redis
        .command::<()>(&["CONFIG", "SET", "save", "3600 1000000"])
        .await;
    let status = async |wanted: &str| {
        let wanted = format!("rdb_last_bgsave_status:{wanted}");
        let info: String = env.redis.command(&["INFO", "persistence"]).await;
        info.contains(&wanted) && info.contains("rdb_bgsave_in_progress:0")
    };
    let _: String = env.redis.command(&["BGSAVE"]).await;
    eventually("the snapshot has failed", async || status("err").await).await;
    let started = Instant::now();
    for result in [
        env.client.set("", "k", b"v").await,
        env.client.increment("", "k", 1).await.map(drop),
        env.client.delete("", "k").await,
        env.client.set_many("", &[("k", b"v")]).await,
        expiring.set("", "k", b"v").await,
        expiring.set_many("", &[("k", b"v")]).await,
    ] {
        let error = other_error(result);
        assert!(error.starts_with("MISCONF "), "{error}");
    }
    let took = started.elapsed();
    assert!(took < IMMEDIATE_LIMIT, "{took:?}");
    assert_eq!(env.client.get("", "k").await, Ok(Some(b"1".to_vec())));
    std::fs::remove_dir_all(&file).unwrap();
    let _: String = env.redis.command(&["BGSAVE"]).await;
    eventually("the snapshot has succeeded", async || status("ok").await).await;
    assert_eq!(env.client.increment("", "k", 1).await, Ok(2));
    record_permanent("MISCONF: failed snapshot", 6, took);
}

// Guarantees: G29
#[tokio::test]
async fn withdrawn_credentials_fail_at_once_and_recover() {
    let env = TestEnv::builder()
        .rpc_timeout_ms(Some(30_000))
        .start()
        .await;
    let allow = ["ACL", "SETUSER", "app", "on", ">pw", "~*", "+@all"];
    env.redis.command::<()>(&allow).await;
    let link = Link::new("app", "default")
        .config(&[("URL", &env.redis.url())])
        .secrets(&[("USERNAME", "app"), ("PASSWORD", "pw")]);
    let app = env.add_link(&link).await;
    app.set("", "k", b"v").await.unwrap();

    env.redis
        .command::<()>(&["ACL", "SETUSER", "app", "-@all"])
        .await;
    assert_eq!(app.get("", "k").await, Err(Error::AccessDenied));
    // Redis closes the user's connections.
    env.redis.command::<()>(&["ACL", "DELUSER", "app"]).await;
    let started = Instant::now();
    let error = other_error(app.set("", "k", b"w").await);
    assert!(error.contains("WRONGPASS"), "{error}");
    let mut took = started.elapsed();
    env.redis.command::<()>(&allow).await;
    wait_until_recovered(&app).await;

    // Redis now requires a password; connections without one are closed.
    let mut admin = env.redis.connect(0).await.unwrap();
    let mut execute = async |args: &[&str]| {
        let done = redis::cmd(args[0]).arg(&args[1..]).take();
        done.query_async::<redis::Value>(&mut admin).await.unwrap();
    };
    execute(&["CONFIG", "SET", "requirepass", "hunter2"]).await;
    execute(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
    let started = Instant::now();
    let error = other_error(env.client.set("", "k", b"w").await);
    assert!(error.contains("NOAUTH"), "{error}");
    took = took.max(started.elapsed());
    assert!(took < IMMEDIATE_LIMIT, "{took:?}");
    execute(&["CONFIG", "SET", "requirepass", ""]).await;
    wait_until_recovered(&env.client).await;
    record_permanent("WRONGPASS, NOAUTH: revoked credentials", 2, took);
}

/// Waits until the link works, without a new put.
async fn wait_until_recovered(client: &Client) {
    eventually("the link works again", async || {
        client.set("", "k", b"v").await.is_ok()
    })
    .await;
}

/// `CLUSTER ADDSLOTS` with all slots.
fn slots() -> redis::Cmd {
    let mut slots = redis::cmd("CLUSTER");
    slots.arg("ADDSLOTS").arg((0..16_384).collect::<Vec<u32>>());
    slots
}

fn record_permanent(fault: &str, calls: usize, took: Duration) {
    record(&Row {
        fault,
        load: &format!("{calls} sequential calls"),
        promised: "returned at once with Redis's message; calls succeed after the repair",
        counted: format!("{calls} calls, {calls} such errors in {} in total", s(took)),
    });
}
