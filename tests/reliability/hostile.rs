//! Tens of thousands of malformed messages among valid calls: the valid calls succeed, the log stays
//! short, and memory returns to its former size.
//!
//! tests/provider/junk.rs tests the kinds of malformed messages one by one.

// Guarantees: G48

use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use futures_util::future::join_all;
use test_support::client::{Client, FUNCTIONS};
use test_support::codec::{bucket_and_key, put_bytes, put_list, put_number};
use test_support::test_env::{COMPONENT, TestEnv};
use test_support::values::bytes;

use crate::gauge;
use crate::scale::{Row, pick, record};

/// The senders of malformed messages, and the valid callers.
const ATTACKERS: usize = 8;
const CALLERS: usize = 8;
/// The number of messages that an attacker sends between two calls that it waits for: more would only
/// fill the queue of the NATS client.
const AHEAD: usize = 20;
/// The length of a value whose result is never read.
const LARGE: usize = 64 << 10;
/// Incomplete calls end after this time; a second later their memory is free.
const RPC_TIMEOUT_MS: u64 = 6_000;
const OVER: Duration = Duration::from_millis(RPC_TIMEOUT_MS + 1_000);
/// The allowance for memory that the allocator retains, in KiB.
const NOISE: u64 = 32 << 10;
/// The allowance for the peak, in KiB: results in flight, and calls that wait for their parameters.
const PEAK: u64 = 256 << 10;

#[tokio::test]
async fn malformed_messages_affect_no_call_and_leak_no_memory() {
    let messages: usize = pick(10_000, 100_000);
    let mut env = TestEnv::builder()
        .rpc_timeout_ms(Some(RPC_TIMEOUT_MS))
        // A busy machine may be too slow to read Redis's replies in time.
        .config(&[("BACKEND_RESPONSE_TIMEOUT_MS", "6000")])
        .start()
        .await;
    env.client.set("", "large", bytes(LARGE)).await.unwrap();
    // The allocator has reached its final size after the load of the short form.
    attack(&env, 10_000, 1).await;
    let before = gauge::settled(&env, 0, OVER, true).await;
    gauge::reset_peak(&env);
    let calls = attack(&env, messages, 2).await;
    let peak = gauge::peak(&env);
    let after = gauge::settled(&env, before.resident + NOISE, 4 * OVER, true).await;
    assert!(
        after.resident <= before.resident + NOISE,
        "memory: {before:?}, then {after:?}"
    );
    assert!(after.files <= before.files, "{before:?}, then {after:?}");
    assert_eq!(after.connections, before.connections);
    assert!(peak < before.resident + PEAK, "peak {peak} KiB");
    assert_eq!(env.provider.try_wait(), None);
    assert!(env.host.health().await.unwrap().healthy);
    let lines = env.provider.stop_and_count_log(&[]).await;
    let warnings = env
        .provider
        .stop_and_count_log(&["malformed calls ignored"])
        .await;
    assert!(lines < 100, "{lines} lines of log");
    assert!(warnings > 0, "the malformed calls are not logged");
    record(&Row {
        fault: "truncated parameters, invalid lengths, no reply subject, missing, late and repeated parameters, unread results, invalid headers, unknown functions, random bytes",
        load: &format!("{messages} malformed messages, {CALLERS} regular callers"),
        promised: "a logged warning; no crash, no hang, no leak; valid calls succeed",
        counted: format!(
            "{calls} valid calls, 0 wrong results, 0 errors; memory {} before, {} after, {} at most; {lines} log lines",
            gauge::mebibytes(before.resident),
            gauge::mebibytes(after.resident),
            gauge::mebibytes(peak),
        ),
    });
}

/// Sends malformed messages among valid calls; returns the number of valid calls.
async fn attack(env: &TestEnv, messages: usize, seed: u64) -> usize {
    let attackers = join_all((0..ATTACKERS).map(async |i| {
        let mut attacker = Attacker::new(env, seed * 100 + i as u64);
        for sent in 0..messages / ATTACKERS {
            attacker.send().await;
            if sent % AHEAD == 0 {
                env.client.probe().await.unwrap();
            }
        }
    }));
    let done = std::cell::Cell::new(false);
    let callers = join_all((0..CALLERS).map(async |i| {
        let mut calls = 0;
        while !done.get() {
            calls += call_properly(&env.client, &format!("bucket{i}"), calls).await;
        }
        calls
    }));
    let ((), calls) = tokio::join!(
        async {
            attackers.await;
            done.set(true);
        },
        callers
    );
    calls.iter().sum()
}

/// A few calls with known results; returns their number.
async fn call_properly(client: &Client, bucket: &str, round: usize) -> usize {
    let value = bytes(round % 3_000);
    let c = client;
    c.set(bucket, "k", &value).await.unwrap();
    assert_eq!(c.get(bucket, "k").await, Ok(Some(value.clone())));
    let before = c.increment(bucket, "n", 1).await.unwrap();
    assert_eq!(c.increment(bucket, "n", 2).await, Ok(before + 2));
    c.set_many(bucket, &[("l", &value), ("m", &value)])
        .await
        .unwrap();
    let entries = c.get_many(bucket, &["m", "none", "l"]).await.unwrap();
    let entry = |key: &str| Some((key.to_owned(), value.clone()));
    assert_eq!(entries, [entry("m"), None, entry("l")]);
    c.delete_many(bucket, &["l", "m"]).await.unwrap();
    assert_eq!(c.exists(bucket, "l").await, Ok(false));
    c.delete(bucket, "k").await.unwrap();
    assert_eq!(c.keys(bucket).await.unwrap(), ["n"]);
    10
}

struct Attacker<'a> {
    env: &'a TestEnv,
    random: fastrand::Rng,
}

impl<'a> Attacker<'a> {
    fn new(env: &'a TestEnv, seed: u64) -> Self {
        Self {
            env,
            random: fastrand::Rng::with_seed(seed),
        }
    }

    async fn send(&mut self) {
        let (interface, function) = FUNCTIONS[self.random.usize(..FUNCTIONS.len())];
        let subject = self.env.client.subject(interface, function);
        match self.random.u8(..12) {
            0 => {
                let cut = self.truncated(function);
                self.call(subject, cut).await;
            }
            1 => {
                let claim = self.absurd();
                self.call(subject, claim).await;
            }
            2 => self.without_reply(subject, function).await,
            3 | 4 => self.half(subject).await,
            5 => {
                // The result is never read.
                let subject = self.env.client.subject("store", "get");
                self.call(subject, bucket_and_key("", "large")).await;
            }
            6 => self.wrong_headers(subject, function).await,
            7 => {
                let length = self.random.usize(..300);
                let junk = (0..length).map(|_| self.random.u8(..)).collect();
                self.call(subject, junk).await;
            }
            8 => {
                let unknown = self.subject_of_nothing();
                self.call(unknown, proper(function)).await;
            }
            9 => {
                let mut more = proper(function);
                more.extend(bytes(self.random.usize(1..2_000)));
                self.call(subject, more).await;
            }
            10 => self.late_and_repeated_parameters(interface, function).await,
            _ => {
                // The results arrive as calls.
                let reply = self.env.client.subject("store", "set");
                self.publish(subject, Some(reply), None, proper(function))
                    .await;
            }
        }
    }

    fn truncated(&mut self, function: &str) -> Vec<u8> {
        let whole = proper(function);
        let length = self.random.usize(..whole.len());
        whole[..length].to_vec()
    }

    /// Parameters whose n-th length is absurd.
    fn absurd(&mut self) -> Vec<u8> {
        let claim =
            [u64::from(u32::MAX), 1 << 31, 1 << 40, u64::MAX, 300 << 20][self.random.usize(..5)];
        let mut out = match self.random.u8(..4) {
            0 => Vec::new(),
            1 => vec![1, b'b'],
            2 => bucket_and_key("b", "k"),
            _ => vec![1, b'b', 1],
        };
        put_number(&mut out, claim);
        out.extend(bytes(self.random.usize(..100)));
        out
    }

    async fn without_reply(&mut self, subject: String, function: &str) {
        let headers = self.random.bool().then(|| self.headers());
        self.publish(subject, None, headers, proper(function)).await;
    }

    /// Parameters that begin correctly and never end.
    async fn half(&mut self, subject: String) {
        let mut half = bucket_and_key("", "half");
        put_number(&mut half, 1 << self.random.u32(4..27));
        half.extend(bytes(self.random.usize(..8)));
        self.call(subject, half).await;
    }

    async fn wrong_headers(&mut self, subject: String, function: &str) {
        let mut headers = HeaderMap::new();
        let long = "x".repeat(8_000);
        let random = &mut self.random;
        let mut pick = |texts: &[&str]| texts[random.usize(..texts.len())].to_owned();
        headers.insert("source-id", pick(&["", "nobody", "*", &long, "counter "]));
        headers.insert("link-name", pick(&["", "none", "\u{1f511}", &long]));
        headers.insert("traceparent", pick(&["", "00-zz-1-01", &long]));
        headers.append("source-id", pick(&["second", ""]));
        self.publish(subject, Some(self.inbox()), Some(headers), proper(function))
            .await;
    }

    fn subject_of_nothing(&mut self) -> String {
        let known = self.env.client.subject("store", "get");
        let (prefix, _) = known.split_once("wrpc:keyvalue").expect("a call's subject");
        let rest = [
            "wrpc:keyvalue/store@0.2.0-draft.frobnicate",
            "wrpc:keyvalue/store@0.3.0.get",
            "wrpc:keyvalue/atomics@0.2.0-draft.get",
            "x",
            "a.b.c.d.e.f",
        ];
        format!("{prefix}{}", rest[self.random.usize(..rest.len())])
    }

    /// A call in several messages whose caller leaves midway, or sends more after the call is over.
    async fn late_and_repeated_parameters(&mut self, interface: &str, function: &str) {
        let mut params = proper(function);
        params.extend(bytes(self.random.usize(..40)));
        let piece = self.random.usize(1..20);
        let impatient = self
            .env
            .client
            .timeout(Duration::from_millis(2))
            .max_frame(piece);
        let _ = impatient.call::<()>(interface, function, params).await;
    }

    async fn call(&self, subject: String, params: Vec<u8>) {
        let headers = self.headers();
        self.publish(subject, Some(self.inbox()), Some(headers), params)
            .await;
    }

    async fn publish(
        &self,
        subject: String,
        reply: Option<String>,
        headers: Option<HeaderMap>,
        params: Vec<u8>,
    ) {
        let nats = self.env.host.nats();
        let params = Bytes::from(params);
        let headers = headers.unwrap_or_default();
        match reply {
            Some(reply) => {
                nats.publish_with_reply_and_headers(subject, reply, headers, params)
                    .await
            }
            None => nats.publish_with_headers(subject, headers, params).await,
        }
        .expect("the NATS connection works");
    }

    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("source-id", COMPONENT);
        headers.insert("link-name", "default");
        headers
    }

    /// An inbox without a subscriber.
    fn inbox(&self) -> String {
        self.env.host.nats().new_inbox()
    }
}

/// Valid parameters of a function, on keys that no valid caller uses.
fn proper(function: &str) -> Vec<u8> {
    let mut params = bucket_and_key("hostile", "key");
    match function {
        "set" => put_bytes(&mut params, b"value"),
        "increment" => put_number(&mut params, 1),
        "list-keys" => {
            params.clear();
            put_bytes(&mut params, b"hostile");
            params.extend([1, 0x7f]);
        }
        "get-many" | "delete-many" => {
            params.clear();
            put_bytes(&mut params, b"hostile");
            put_list(&mut params, &["key", "other"], |out, key| {
                put_bytes(out, key.as_bytes());
            });
        }
        "set-many" => {
            params.clear();
            put_bytes(&mut params, b"hostile");
            put_list(&mut params, &["key", "other"], |out, key| {
                put_bytes(out, key.as_bytes());
                put_bytes(out, b"value");
            });
        }
        _ => {}
    }
    params
}
