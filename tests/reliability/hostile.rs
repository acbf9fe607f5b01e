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

use crate::resources;
use crate::scenario::{Row, pick, record};

/// The senders of malformed messages, and the valid callers.
const ATTACKERS: usize = 8;
const CALLERS: usize = 8;
/// The number of messages that an attacker sends between two calls that it waits for: more would only
/// fill the queue of the NATS client.
const BATCH_SIZE: usize = 20;
/// The length of a value whose result is never read.
const LARGE_VALUE: usize = 64 << 10;
/// Incomplete calls end after this time; a second later their memory is free.
const RPC_TIMEOUT_MS: u64 = 6_000;
const ABANDONED_AFTER: Duration = Duration::from_millis(RPC_TIMEOUT_MS + 1_000);
/// The allowance for memory that the allocator retains, in KiB.
const TOLERANCE: u64 = 32 << 10;
/// The allowance for the peak, in KiB: results in flight, and calls that wait for their parameters.
const PEAK_TOLERANCE: u64 = 256 << 10;

#[tokio::test]
async fn malformed_messages_affect_no_call_and_leak_no_memory() {
    let messages: usize = pick(10_000, 100_000);
    let mut env = TestEnv::builder()
        .rpc_timeout_ms(Some(RPC_TIMEOUT_MS))
        // A busy machine may be too slow to read Redis's replies in time.
        .config(&[("BACKEND_RESPONSE_TIMEOUT_MS", "6000")])
        .start()
        .await;
    env.client
        .set("", "large", bytes(LARGE_VALUE))
        .await
        .unwrap();
    // The allocator has reached its final size after the load of the short form.
    attack(&env, 10_000, 1).await;
    let before = resources::settled(&env, 0, ABANDONED_AFTER, true).await;
    resources::reset_peak(&env);
    let calls = attack(&env, messages, 2).await;
    let peak = resources::peak(&env);
    let after =
        resources::settled(&env, before.resident + TOLERANCE, 4 * ABANDONED_AFTER, true).await;
    assert!(
        after.resident <= before.resident + TOLERANCE,
        "memory: {before:?}, then {after:?}"
    );
    assert!(after.files <= before.files, "{before:?}, then {after:?}");
    assert_eq!(after.connections, before.connections);
    assert!(peak < before.resident + PEAK_TOLERANCE, "peak {peak} KiB");
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
            resources::mebibytes(before.resident),
            resources::mebibytes(after.resident),
            resources::mebibytes(peak),
        ),
    });
}

/// Sends malformed messages among valid calls; returns the number of valid calls.
async fn attack(env: &TestEnv, messages: usize, seed: u64) -> usize {
    let attackers = join_all((0..ATTACKERS).map(async |i| {
        let mut attacker = Attacker::new(env, seed * 100 + i as u64);
        for sent in 0..messages / ATTACKERS {
            attacker.send().await;
            if sent % BATCH_SIZE == 0 {
                env.client.probe().await.unwrap();
            }
        }
    }));
    let done = std::cell::Cell::new(false);
    let callers = join_all((0..CALLERS).map(async |i| {
        let mut calls = 0;
        while !done.get() {
            calls += make_valid_calls(&env.client, &format!("bucket{i}"), calls).await;
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
async fn make_valid_calls(client: &Client, bucket: &str, round: usize) -> usize {
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
                let length = self.excessive_length();
                self.call(subject, length).await;
            }
            2 => self.without_reply_subject(subject, function).await,
            3 | 4 => self.incomplete(subject).await,
            5 => {
                // The result is never read.
                let subject = self.env.client.subject("store", "get");
                self.call(subject, bucket_and_key("", "large")).await;
            }
            6 => self.invalid_headers(subject, function).await,
            7 => {
                let length = self.random.usize(..300);
                let random_bytes = (0..length).map(|_| self.random.u8(..)).collect();
                self.call(subject, random_bytes).await;
            }
            8 => {
                let unknown = self.unknown_subject();
                self.call(unknown, valid_params(function)).await;
            }
            9 => {
                let mut more = valid_params(function);
                more.extend(bytes(self.random.usize(1..2_000)));
                self.call(subject, more).await;
            }
            10 => self.late_and_repeated_parameters(interface, function).await,
            _ => {
                // The results arrive as calls.
                let reply = self.env.client.subject("store", "set");
                self.publish(subject, Some(reply), None, valid_params(function))
                    .await;
            }
        }
    }

    fn truncated(&mut self, function: &str) -> Vec<u8> {
        let whole = valid_params(function);
        let length = self.random.usize(..whole.len());
        whole[..length].to_vec()
    }

    /// Parameters with an excessive length in a random place.
    fn excessive_length(&mut self) -> Vec<u8> {
        let length =
            [u64::from(u32::MAX), 1 << 31, 1 << 40, u64::MAX, 300 << 20][self.random.usize(..5)];
        let mut out = match self.random.u8(..4) {
            0 => Vec::new(),
            1 => vec![1, b'b'],
            2 => bucket_and_key("b", "k"),
            _ => vec![1, b'b', 1],
        };
        put_number(&mut out, length);
        out.extend(bytes(self.random.usize(..100)));
        out
    }

    async fn without_reply_subject(&mut self, subject: String, function: &str) {
        let headers = self.random.bool().then(|| self.headers());
        self.publish(subject, None, headers, valid_params(function))
            .await;
    }

    /// Parameters that begin correctly and never end.
    async fn incomplete(&mut self, subject: String) {
        let mut incomplete = bucket_and_key("", "half");
        put_number(&mut incomplete, 1 << self.random.u32(4..27));
        incomplete.extend(bytes(self.random.usize(..8)));
        self.call(subject, incomplete).await;
    }

    async fn invalid_headers(&mut self, subject: String, function: &str) {
        let mut headers = HeaderMap::new();
        let long = "x".repeat(8_000);
        let random = &mut self.random;
        let mut pick = |texts: &[&str]| texts[random.usize(..texts.len())].to_owned();
        headers.insert("source-id", pick(&["", "nobody", "*", &long, "counter "]));
        headers.insert("link-name", pick(&["", "none", "\u{1f511}", &long]));
        headers.insert("traceparent", pick(&["", "00-zz-1-01", &long]));
        headers.append("source-id", pick(&["second", ""]));
        self.publish(
            subject,
            Some(self.inbox()),
            Some(headers),
            valid_params(function),
        )
        .await;
    }

    fn unknown_subject(&mut self) -> String {
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
        let mut params = valid_params(function);
        params.extend(bytes(self.random.usize(..40)));
        let piece = self.random.usize(1..20);
        let short_lived = self
            .env
            .client
            .timeout(Duration::from_millis(2))
            .max_frame(piece);
        let _ = short_lived.call::<()>(interface, function, params).await;
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
fn valid_params(function: &str) -> Vec<u8> {
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
