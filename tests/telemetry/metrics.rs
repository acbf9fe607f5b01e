//! Metrics match the events: calls, commands, open connections, and delivered or lost changes.

// Guarantees: G56

use rustix::process::Signal;
use test_support::collector::{self, Collector};
use test_support::component::Behavior;
use test_support::host::Link;
use test_support::redis::Redis;
use test_support::wait::{eventually, eventually_eq};

use crate::observed::observed;

const CALLS: &str = "rpc.server.call.duration";
const COMMANDS: &str = "db.client.operation.duration";

/// The number of successful calls of a function and of successful commands.
fn counted(collector: &Collector, function: &str, command: &str) -> (f64, f64) {
    let method = format!("wrpc:keyvalue/{function}");
    (
        collector.sum(CALLS, &[("rpc.method", &method), ("error.type", "")]),
        collector.sum(
            COMMANDS,
            &[("db.operation.name", command), ("error.type", "")],
        ),
    )
}

#[tokio::test]
async fn every_call_and_command_is_counted() {
    let collector = collector::start();
    let env = observed(&collector).start().await;
    let c = &env.client;
    for number in 0..7 {
        c.set("", &number.to_string(), "v").await.unwrap();
    }
    for _ in 0..5 {
        c.get("", "0").await.unwrap();
    }
    for _ in 0..3 {
        c.exists("", "0").await.unwrap();
    }
    c.increment("", "n", 1).await.unwrap();
    c.increment("", "n", 1).await.unwrap();
    c.set_many("", &[("a", "1"), ("b", "2")]).await.unwrap();
    for (function, command, expected) in [
        ("store/set", "SET", (7.0, 7.0)),
        ("store/get", "GET", (5.0, 5.0)),
        ("store/exists", "EXISTS", (3.0, 3.0)),
        // The script is not in Redis's cache yet.
        ("atomics/increment", "EVALSHA", (2.0, 1.0)),
        ("atomics/increment", "EVAL", (2.0, 1.0)),
        ("batch/set-many", "MSET", (1.0, 1.0)),
        ("store/delete", "DEL", (0.0, 0.0)),
    ] {
        eventually_eq(function, expected, async || {
            counted(&collector, function, command)
        })
        .await;
    }
    let port = env.redis.port().to_string();
    let of_server = [("server.address", "127.0.0.1"), ("server.port", &*port)];
    assert_eq!(
        collector.sum(COMMANDS, &of_server),
        collector.sum(COMMANDS, &[("db.system.name", "redis")])
    );
    let all = |name| {
        collector
            .points()
            .into_iter()
            .filter(move |p| p.metric == name)
    };
    assert!(
        all(CALLS)
            .chain(all(COMMANDS))
            .all(|point| point.unit == "s")
    );
}

#[tokio::test]
async fn cache_hits_and_misses_are_counted() {
    let collector = collector::start();
    let env = observed(&collector)
        .config(&[("CACHE_MAX_ENTRIES", "4"), ("CACHE_TTL_MS", "3600000")])
        .start()
        .await;
    let c = &env.client;
    c.set("", "k", "v").await.unwrap();
    for _ in 0..5 {
        c.get("", "k").await.unwrap();
    }
    c.set("", "k", "env").await.unwrap();
    for missing in ["a", "b", "c", "d", "e"] {
        c.get("", missing).await.unwrap();
    }
    for (metric, expected) in [
        ("kvredis.cache.hits", 4.0),
        ("kvredis.cache.misses", 6.0),
        ("kvredis.cache.invalidations", 1.0),
        ("kvredis.cache.evictions", 1.0),
        ("kvredis.cache.entries", 4.0),
    ] {
        eventually_eq(metric, expected, async || collector.sum(metric, &[])).await;
    }
    let bytes = collector.sum("kvredis.cache.bytes", &[]);
    assert!((500.0..2_000.0).contains(&bytes), "{bytes} bytes");
    // Reads served from the cache send no command.
    let gets = [("db.operation.name", "GET")];
    assert_eq!(collector.sum(COMMANDS, &gets), 6.0);
}

#[tokio::test]
async fn pending_calls_are_counted_as_in_flight() {
    let collector = collector::start();
    let env = observed(&collector)
        .config(&[("BACKEND_RESPONSE_TIMEOUT_MS", "60000")])
        .rpc_timeout_ms(Some(60_000))
        .start()
        .await;
    let in_flight = async || collector.sum("kvredis.calls.in_flight", &[]);
    env.redis.pause();
    let calls: Vec<_> = (0..9)
        .map(|_| {
            let client = env.client.clone();
            tokio::spawn(async move { client.get("", "k").await })
        })
        .collect();
    eventually_eq("the calls are in flight", 9.0, in_flight).await;
    env.redis.resume();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    eventually_eq("no call is in flight", 0.0, in_flight).await;
    eventually_eq("the completed calls are counted", 9.0, async || {
        counted(&collector, "store/get", "GET").0
    })
    .await;
}

#[tokio::test]
async fn connections_count_as_up_until_the_last_link_is_deleted() {
    let collector = collector::start();
    let mut env = observed(&collector).start().await;
    let port = env.redis.port().to_string();
    let of = |of_use: &'static str| {
        let (collector, port) = (&collector, &port);
        move |metric: &str| {
            collector.sum(
                &format!("kvredis.connections.{metric}"),
                &[("server.port", port), ("kvredis.connection.use", of_use)],
            )
        }
    };
    let commands = of("commands");
    eventually_eq("a connection is up", (1.0, 0.0), async || {
        (commands("up"), commands("reconnects"))
    })
    .await;

    env.redis.stop();
    eventually_eq("the connection is lost", 0.0, async || commands("up")).await;
    env.redis.restart().await;
    eventually_eq("the connection is up again", (1.0, 1.0), async || {
        (commands("up"), commands("reconnects"))
    })
    .await;

    let () = env
        .redis
        .command(&["CONFIG", "SET", "notify-keyspace-events", "KEA"])
        .await;
    env.watch("watcher", "default", &[("WATCH", "SET@k")]).await;
    let notifications = of("notifications");
    eventually_eq(
        "a watching link has two connections",
        (2.0, 1.0),
        async || (commands("up"), notifications("up")),
    )
    .await;

    env.host.delete_watch("watcher", "default").await;
    env.host.delete("counter", "default").await;
    env.wait_for_no_connections().await;
    eventually_eq("no connection is up", (0.0, 0.0), async || {
        (commands("up"), notifications("up"))
    })
    .await;
}

/// An alert can detect a Redis that has never been reachable.
#[tokio::test]
async fn a_connection_that_was_never_up_is_exported_as_zero() {
    let collector = collector::start();
    let env = observed(&collector).redis(Redis::stopped()).start().await;
    let config = [("URL", env.redis.url()), ("WATCH", "SET@k".to_owned())];
    let config = config.each_ref().map(|(name, text)| (*name, text.as_str()));
    env.host
        .put_watch(&Link::new("watcher", "default").config(&config))
        .await;
    let port = env.redis.port().to_string();
    for of_use in ["commands", "notifications"] {
        eventually_eq("the series exists", Some(0.0), async || {
            let mut points = collector.points().into_iter();
            let point = points.find(|point| {
                let has = |name: &str, text: &str| {
                    point.attributes.get(name).is_some_and(|it| it == text)
                };
                point.metric == "kvredis.connections.up"
                    && has("server.port", &port)
                    && has("kvredis.connection.use", of_use)
            });
            point.map(|point| point.value)
        })
        .await;
    }
}

#[tokio::test]
async fn deliveries_and_losses_are_counted() {
    let collector = collector::start();
    let mut env = observed(&collector).start().await;
    let notify = ["CONFIG", "SET", "notify-keyspace-events", "KEA"];
    let () = env.redis.command(&notify).await;
    let component = env.component("watcher").await;
    env.watch("watcher", "default", &[("WATCH", "SET@k*,DEL@k*")])
        .await;
    // An increase is visible only from an exported zero.
    let zeros = async |metric: &str| {
        let points = collector.points();
        let zeros = points.iter().filter(|point| point.metric == metric);
        zeros.filter(|point| point.value == 0.0).count()
    };
    eventually_eq("the series start at zero", (1, 8), async || {
        (
            zeros("kvredis.watch.deliveries").await,
            zeros("kvredis.watch.losses").await,
        )
    })
    .await;
    for number in 0..4 {
        env.client
            .set("", &format!("k{number}"), "v")
            .await
            .unwrap();
    }
    env.client.delete("", "k0").await.unwrap();
    let delivered = async || collector.sum("kvredis.watch.deliveries", &[]);
    eventually_eq("all changes are delivered", 5.0, delivered).await;
    assert_eq!(component.call_count(), 5);
    let calls = |function: &str| {
        let method = format!("wrpc:keyvalue/watcher/{function}");
        collector.sum("rpc.client.call.duration", &[("rpc.method", &method)])
    };
    eventually_eq(
        "calls to the component are measured",
        (4.0, 1.0),
        async || (calls("on-set"), calls("on-delete")),
    )
    .await;
    let lost = |reason: &str| {
        collector.sum(
            "kvredis.watch.losses",
            &[("kvredis.watch.loss.reason", reason)],
        )
    };
    assert_eq!(collector.sum("kvredis.watch.losses", &[]), 0.0);

    let not_utf8 = ::redis::cmd("SET").arg(b"k\xff").arg("v").take();
    let () = env.redis.query(&not_utf8).await;
    eventually_eq(
        "a change with an undecodable key is counted as lost",
        1.0,
        async || lost("invalid_utf8"),
    )
    .await;
    component.set_behavior(Behavior::Unresponsive);
    env.client.set("", "k9", "v").await.unwrap();
    eventually_eq(
        "a change that no host accepts is counted as lost",
        1.0,
        async || lost("failed"),
    )
    .await;
    env.redis.restart().await;
    eventually_eq("an interruption is counted", 1.0, async || {
        lost("interrupted")
    })
    .await;
    assert_eq!(delivered().await, 5.0);
}

#[tokio::test]
async fn process_metrics_are_exported() {
    let collector = collector::start();
    let env = observed(&collector).start().await;
    eventually("the process has metrics", async || {
        collector.sum("process.uptime", &[]) > 0.0
            && collector.sum("process.memory.usage", &[]) > 1e6
            && collector.sum("process.thread.count", &[]) >= 1.0
            && collector.sum("process.unix.file_descriptor.count", &[]) >= 3.0
            && collector.sum("process.cpu.time", &[("cpu.mode", "user")]) > 0.0
    })
    .await;
    let resource = collector.resource();
    assert_eq!(resource["service.name"], "kvredis");
    assert_eq!(resource["service.version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(resource["service.instance.id"], env.host.data().instance_id);
    env.provider.signal(Signal::TERM);
}
