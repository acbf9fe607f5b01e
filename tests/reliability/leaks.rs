//! No password, stored value or key appears in any output of kvredis: its log at every level, the errors
//! of calls, and the exported traces and logs, through all kinds of failing calls.

// Guarantees: G51

use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use test_support::client::Client;
use test_support::codec::{bucket_and_key, put_bytes, put_number};
use test_support::collector::{self, Collector};
use test_support::host::Link;
use test_support::proxy::Proxy;
use test_support::redis::Redis;
use test_support::test_env::TestEnv;
use wasmcloud_provider_sdk::HostData;
use wasmcloud_provider_sdk::core::logging::Level;
use wasmcloud_provider_sdk::core::otel::{OtelConfig, OtelProtocol};

use crate::scenario::{Row, pick, record};

const PASSWORD: &str = "hunter2-of-redis";
const WRONG: &str = "sw0rdfish-of-nobody";
const VALUE: &str = "stored-value-of-somebody";
const KEY: &str = "stored-key-of-somebody";
/// The secrets as text, and as the bytes that `Debug` prints.
const SECRET_PARTS: [&str; 4] = ["hunter2-of", "sw0rdfish-of", "value-of-some", "key-of-some"];
const SECRET_BYTES: [&str; 2] = [
    // "stored-" and "hunter2"
    "115, 116, 111, 114, 101, 100, 45",
    "104, 117, 110, 116, 101, 114, 50",
];

#[tokio::test]
async fn secrets_appear_in_no_output_at_any_log_level() {
    let levels = [
        Level::Trace,
        Level::Debug,
        Level::Info,
        Level::Warn,
        Level::Error,
    ];
    let levels = pick(&levels[..1], &levels[..]);
    let (mut errors, mut lines, mut exported) = (0, 0, 0);
    for level in levels {
        let collector = collector::start();
        let (env, own_errors) = fail_in_every_way(level.clone(), &collector).await;
        // The only call that runs SCAN, and the last one.
        let works = env.client.component("c", "works");
        works.keys("").await.unwrap();
        for error in &own_errors {
            assert_no_secret(error);
        }
        let log = stop(env).await;
        assert!(collector.contains("wrpc:keyvalue/store/get") && collector.contains("SCAN"));
        for line in &log {
            assert_no_secret(line);
        }
        let sent = collector.received_bytes();
        assert_no_secret(&String::from_utf8_lossy(&sent));
        errors += own_errors.len();
        lines += log.len();
        exported += sent.len();
    }
    record(&Row {
        fault: "wrong and right passwords; a Redis that is down, hangs, disconnects, rejects commands, holds other types; malformed calls",
        load: &format!(
            "{} log levels from trace up; exported traces and logs",
            levels.len()
        ),
        promised: "no password, value or key in output, errors or exports",
        counted: format!(
            "0 found in {lines} lines, {errors} errors and {} KiB of exports",
            exported / 1024
        ),
    });
}

/// An environment in which calls fail in all possible ways, with the errors of the calls.
async fn fail_in_every_way(level: Level, collector: &Collector) -> (TestEnv, Vec<String>) {
    let otel = OtelConfig {
        enable_traces: Some(true),
        enable_metrics: Some(true),
        enable_logs: Some(true),
        observability_endpoint: Some(collector.url.clone()),
        protocol: OtelProtocol::Http,
        trace_level: Level::Trace,
        ..OtelConfig::default()
    };
    let env = TestEnv::builder()
        .unlinked()
        .redis(Redis::with_password(PASSWORD).await)
        .rpc_timeout_ms(Some(1_000))
        .data(move |data: &mut HostData| {
            data.log_level = Some(level);
            data.otel_config = otel;
        })
        .start()
        .await;
    let rules =
        format!("ACL SETUSER app on >{PASSWORD} ~* +@all -del -unlink -mset -eval -evalsha");
    let rules: Vec<&str> = rules.split(' ').collect();
    let () = env.redis.command(&rules).await;
    let proxy = Proxy::start(env.redis.port()).await;
    let down = Redis::stopped();
    let with = |url: &str, user: &str, password: &str| {
        url.replace("redis://", &format!("redis://{user}:{password}@"))
    };
    let short_timeout = ("BACKEND_RESPONSE_TIMEOUT_MS", "200");
    let url = env.redis.url();
    let links = [
        Link::new("c", "works").secrets(&[("URL", &with(&url, "default", PASSWORD))]),
        Link::new("c", "config").config(&[("URL", &url), ("PASSWORD", PASSWORD)]),
        Link::new("c", "wrong").secrets(&[("URL", &url), ("PASSWORD", WRONG)]),
        Link::new("c", "wrong user").config(&[("URL", &with(&url, "nobody", WRONG))]),
        Link::new("c", "missing").config(&[("URL", &url)]),
        Link::new("c", "garbled").config(&[("URL", &format!("redis://:{WRONG}@[::"))]),
        Link::new("c", "down").secrets(&[("URL", &with(&down.url(), "default", PASSWORD))]),
        Link::new("c", "forbidden").secrets(&[("URL", &with(&url, "app", PASSWORD))]),
        Link::new("c", "proxied").secrets(&[
            ("URL", &with(&proxy.url(), "default", PASSWORD)),
            short_timeout,
        ]),
    ];
    let mut errors = Vec::new();
    let mut clients = Vec::new();
    for link in &links {
        clients.push(env.add_link(link).await);
    }
    let works = &clients[0];
    works.set("", KEY, VALUE).await.unwrap();
    works.set("own", KEY, VALUE).await.unwrap();
    let (list, text) = (format!("{KEY}-list"), VALUE.to_owned());
    let mut push = ::redis::cmd("EVAL");
    push.arg("redis.call('RPUSH', KEYS[1], ARGV[1])").arg(1);
    let _: ::redis::Value = env.redis.query(push.arg(&list).arg(&text)).await;
    for client in &clients {
        errors.extend(errors_of_all_functions(client, KEY).await);
        errors.extend(errors_of_all_functions(client, &list).await);
    }
    send_malformed_messages(&env).await;
    let proxied = clients.last().expect("the last of the links");
    proxy.hold_replies();
    errors.extend(errors_of_all_functions(proxied, KEY).await);
    proxy.release();
    for _ in 0..3 {
        let (more, ()) = tokio::join!(errors_of_all_functions(proxied, KEY), async {
            proxy.disconnect_all()
        });
        errors.extend(more);
    }
    env.redis.pause();
    errors.extend(errors_of_all_functions(proxied, KEY).await);
    env.redis.resume();
    for link in &links[1..] {
        env.host.delete(link.component(), link.name()).await;
    }
    assert!(errors.len() > 50, "{} errors", errors.len());
    (env, errors)
}

/// Stops the provider; returns its output.
async fn stop(mut env: TestEnv) -> Vec<String> {
    assert!(env.host.shutdown().await.is_some());
    env.provider.wait().await;
    env.provider.log()
}

/// The errors of all functions on this key, in `Display` and `Debug` form.
async fn errors_of_all_functions(client: &Client, key: &str) -> Vec<String> {
    let c = &client.timeout(Duration::from_secs(5));
    let (get, set, add) = tokio::join!(
        c.get("", key),
        c.set("own", key, VALUE),
        c.increment("", key, 1)
    );
    let (keys, pairs) = ([key], [(key, VALUE), ("other", VALUE)]);
    let (many, put, remove) = tokio::join!(
        c.get_many("", &keys),
        c.set_many("own", &pairs),
        c.delete_many("own", &keys)
    );
    let (exists, delete, page) = tokio::join!(
        c.exists("", key),
        c.delete("own", key),
        c.list_keys("a:b", Some(u64::MAX))
    );
    [
        get.err(),
        set.err(),
        add.err(),
        many.err(),
        put.err(),
        remove.err(),
        exists.err(),
        delete.err(),
        page.err(),
    ]
    .into_iter()
    .flatten()
    .map(|error| format!("{error} {error:?}"))
    .collect()
}

/// Messages with keys and values in unexpected places.
async fn send_malformed_messages(env: &TestEnv) {
    let nats = env.host.nats();
    let subject = env.client.subject("store", "set");
    let mut headers = HeaderMap::new();
    headers.insert("source-id", "c");
    headers.insert("link-name", "works");
    let mut whole = bucket_and_key("", KEY);
    put_bytes(&mut whole, VALUE.as_bytes());
    let mut claims = bucket_and_key("", KEY);
    put_number(&mut claims, 1 << 40);
    let payloads = [
        [&whole[..], VALUE.as_bytes()].concat(),
        whole[..whole.len() - 3].to_vec(),
        [&claims[..], VALUE.as_bytes()].concat(),
        VALUE.as_bytes().to_vec(),
    ];
    for payload in payloads {
        let payload = Bytes::from(payload);
        let inbox = nats.new_inbox();
        nats.publish_with_reply_and_headers(
            subject.clone(),
            inbox,
            headers.clone(),
            payload.clone(),
        )
        .await
        .unwrap();
        nats.publish(subject.clone(), payload.clone())
            .await
            .unwrap();
        env.host.put_payload(payload.to_vec()).await;
        env.host.delete_payload(payload.to_vec()).await;
        env.host.update_config_payload(payload.to_vec()).await;
    }
}

fn assert_no_secret(text: &str) {
    for part in SECRET_PARTS.iter().chain(&SECRET_BYTES) {
        if let Some(at) = text.find(part) {
            let around: String = text
                .chars()
                .skip(text[..at].chars().count().saturating_sub(300))
                .take(700)
                .collect();
            panic!("{part} is in: {around}");
        }
    }
}
