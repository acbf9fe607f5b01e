//! The cache against a model of a connection: replies and invalidations arrive in one order, and readers
//! process their replies at any later time.

use std::collections::VecDeque;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::cache::entries::COALESCE_WINDOW;
use crate::cache::freshness::MAX_STALENESS;

const KEYS: [&[u8]; 3] = [b"a", b"b", b"c"];

fn limits(entries: usize, bytes: usize) -> CacheLimits {
    CacheLimits {
        entries,
        bytes,
        ttl: Duration::from_secs(60),
    }
}

fn freshness() -> Arc<Freshness> {
    let freshness = Freshness::new();
    freshness.renew(Instant::now() + Duration::from_millis(1));
    Arc::new(freshness)
}

fn value(text: &str) -> ReadResult {
    Ok(Some(Bytes::copy_from_slice(text.as_bytes())))
}

fn policy(expires_at: Instant, freshness: Arc<Freshness>) -> Option<EntryPolicy> {
    Some(EntryPolicy {
        expires_at,
        freshness,
    })
}

fn in_a_minute() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

/// Reads a key as a call does. Returns true if it was cached.
fn read(cache: &Cache, key: &[u8], text: &str) -> bool {
    match cache.lookup(key, Instant::now()) {
        Lookup::Hit(_) => true,
        Lookup::Pending(_) | Lookup::Bypass => {
            panic!("no read is in flight, and the cache has room")
        }
        Lookup::Miss(guard) => {
            guard.complete(&value(text), policy(in_a_minute(), freshness()));
            false
        }
    }
}

fn miss<'a>(cache: &'a Cache, key: &'a [u8]) -> FillGuard<'a> {
    match cache.lookup(key, Instant::now()) {
        Lookup::Miss(guard) => guard,
        other => panic!("expected a miss, found {other:?}"),
    }
}

#[test]
fn the_least_recently_used_entry_is_evicted() {
    let cache = Cache::new(limits(2, 1 << 20));
    assert!(!read(&cache, b"a", "1"));
    assert!(!read(&cache, b"b", "1"));
    assert!(read(&cache, b"a", "1"));
    assert!(!read(&cache, b"c", "1"));
    assert!(read(&cache, b"a", "1"));
    assert!(read(&cache, b"c", "1"));
    assert!(!read(&cache, b"b", "1"));
}

#[test]
fn bytes_are_limited_and_released() {
    let cache = Cache::new(limits(1_000, 10_000));
    let large = "x".repeat(4_000);
    assert!(!read(&cache, b"a", &large));
    assert!(!read(&cache, b"b", &large));
    assert!(read(&cache, b"a", &large));
    assert!(!read(&cache, b"c", &large), "there is room for two");
    assert!(!read(&cache, b"b", &large), "the older one was evicted");
    let too_large = "x".repeat(20_000);
    assert!(!read(&cache, b"d", &too_large));
    assert!(!read(&cache, b"d", "small"), "it alone exceeds the limit");
    for round in 0..100 {
        cache.invalidate([&b"a"[..], b"b", b"c", b"d"]);
        assert!(!read(&cache, b"a", &"y".repeat(round)));
    }
    cache.invalidate([&b"a"[..]]);
    assert_eq!(cache.store().usage(), (0, 0));
}

#[test]
fn keys_read_once_do_not_evict_keys_read_repeatedly() {
    let cache = Cache::new(limits(100, 1 << 20));
    let hot: Vec<String> = (0..50).map(|n| format!("hot-{n}")).collect();
    let read_once = |n: u32| match cache.lookup(&n.to_be_bytes(), Instant::now()) {
        Lookup::Miss(guard) => {
            guard.complete(&value("v"), policy(in_a_minute(), freshness()));
            true
        }
        Lookup::Bypass => false,
        other => panic!("the key was not read before: {other:?}"),
    };
    let admitted = (0..5_000).filter(|n| read_once(*n)).count();
    assert!(
        (1_000..2_500).contains(&admitted),
        "{admitted} of 5,000 were admitted"
    );
    for key in &hot {
        let lookups = (1..).find(|_| match cache.lookup(key.as_bytes(), Instant::now()) {
            Lookup::Miss(guard) => {
                guard.complete(&value("v"), policy(in_a_minute(), freshness()));
                true
            }
            _ => false,
        });
        assert!(lookups <= Some(4), "{lookups:?} lookups until admission");
    }
    let mut hits = 0;
    for n in 5_000..20_000 {
        read_once(n);
        let key = hot[n as usize % hot.len()].as_bytes();
        hits += u32::from(cache.peek(key, Instant::now()).is_some());
    }
    assert!(hits > 14_500, "{hits} of 15,000");
}

#[test]
fn a_read_overtaken_by_an_invalidation_is_not_cached() {
    let cache = Cache::new(limits(10, 1 << 20));
    let early = miss(&cache, b"a");
    cache.invalidate([&b"a"[..]]);
    let late = miss(&cache, b"a");
    early.complete(&value("old"), policy(in_a_minute(), freshness()));
    assert!(matches!(
        cache.lookup(b"a", Instant::now()),
        Lookup::Pending(_)
    ));
    late.complete(&value("new"), policy(in_a_minute(), freshness()));
    let cached = cache.peek(b"a", Instant::now());
    assert_eq!(cached, Some(CachedValue::Present(Bytes::from("new"))));
    let other = miss(&cache, b"b");
    cache.invalidate_all();
    other.complete(&value("old"), policy(in_a_minute(), freshness()));
    assert_eq!(cache.peek(b"b", Instant::now()), None);
    let other = miss(&cache, b"c");
    cache.invalidate_connection(&freshness());
    other.complete(&value("old"), policy(in_a_minute(), freshness()));
    assert_eq!(cache.peek(b"c", Instant::now()), None);
}

#[tokio::test(start_paused = true)]
async fn calls_join_a_read_in_flight_within_the_window_only() {
    let cache = Cache::new(limits(10, 1 << 20));
    let first = miss(&cache, b"a");
    let Lookup::Pending(joined) = cache.lookup(b"a", Instant::now()) else {
        panic!("a read is in flight");
    };
    tokio::time::advance(COALESCE_WINDOW).await;
    let late = miss(&cache, b"a");
    first.complete(&value("early"), policy(in_a_minute(), freshness()));
    let completed = ReadOutcome::Completed(value("early"));
    assert_eq!(joined.outcome().await, completed);
    let Lookup::Pending(abandoned) = cache.lookup(b"a", Instant::now()) else {
        panic!("the late read is in flight");
    };
    drop(late);
    assert_eq!(abandoned.outcome().await, ReadOutcome::Abandoned);
    drop(miss(&cache, b"a"));
}

#[tokio::test(start_paused = true)]
async fn entries_are_served_until_expiry_or_while_their_connection_is_fresh() {
    let cache = Cache::new(limits(10, 1 << 20));
    let now = Instant::now();
    let fresh = freshness();
    let expiry = now + Duration::from_millis(500);
    miss(&cache, b"a").complete(&value("v"), policy(expiry, Arc::clone(&fresh)));
    miss(&cache, b"b").complete(&value("v"), policy(in_a_minute(), Arc::clone(&fresh)));
    miss(&cache, b"c").complete(&value("v"), policy(in_a_minute(), freshness()));
    miss(&cache, b"d").complete(&value("v"), None);
    let cached = |key: &[u8], at| cache.peek(key, at).is_some();
    assert!(cached(b"a", now) && cached(b"b", now) && cached(b"c", now));
    assert!(!cached(b"d", now), "without a policy nothing is cached");
    assert!(!cached(b"a", expiry) && cached(b"b", expiry));
    assert!(
        !cached(b"b", now + MAX_STALENESS * 2),
        "the proof is too old"
    );
    fresh.revoke();
    assert!(!cached(b"b", now) && cached(b"c", now));
    cache.invalidate_connection(&fresh);
    assert_eq!(cache.store().usage().0, 1);
}

/// A message from the server to the client, in the order of its sending.
enum WireMessage {
    WireReply(WireReply),
    Invalidation { key: usize },
}

/// A reply that the client has received and a call will process.
enum WireReply {
    Read { reader: usize, version: u64 },
    Written { key: usize, version: u64 },
}

#[derive(Clone, Copy, Debug)]
enum Event {
    /// A call looks a key up, and asks the server on a miss.
    Read(usize),
    /// Another client changes a key.
    Change(usize),
    /// The link itself changes a key.
    Write(usize),
    /// The client reads one message from the socket.
    Receive,
    /// A call processes the reply that was received for it.
    Resume(usize),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        3 => (0..KEYS.len()).prop_map(Event::Read),
        2 => (0..KEYS.len()).prop_map(Event::Change),
        1 => (0..KEYS.len()).prop_map(Event::Write),
        4 => Just(Event::Receive),
        3 => (0..8_usize).prop_map(Event::Resume),
    ];
    proptest::collection::vec(event, 1..80)
}

/// The client and its server.
struct Model<'a> {
    cache: &'a Cache,
    freshness: Arc<Freshness>,
    stored: [u64; 3],
    /// Keys for which the server will send an invalidation.
    tracked: [bool; 3],
    wire: VecDeque<WireMessage>,
    guards: Vec<Option<FillGuard<'a>>>,
    received: Vec<WireReply>,
    /// The newest version whose write has returned to its caller.
    written: [u64; 3],
}

impl Model<'_> {
    fn apply(&mut self, event: Event) {
        match event {
            Event::Read(key) => self.read(key),
            Event::Change(key) => self.change(key),
            Event::Write(key) => {
                let version = self.stored[key] + 1;
                let reply = WireReply::Written { key, version };
                self.wire.push_back(WireMessage::WireReply(reply));
                self.change(key);
            }
            Event::Receive => self.receive(),
            Event::Resume(nth) => self.resume(nth),
        }
        for (key, name) in KEYS.iter().enumerate() {
            if let Some(version) = self.cached(name) {
                assert!(
                    version >= self.written[key],
                    "{event:?}: an old value is cached"
                );
            }
        }
    }

    fn cached(&self, key: &[u8]) -> Option<u64> {
        let cached = self.cache.peek(key, Instant::now())?.into_option()?;
        Some(u64::from_be_bytes(cached.as_ref().try_into().unwrap()))
    }

    fn read(&mut self, key: usize) {
        if let Lookup::Miss(guard) = self.cache.lookup(KEYS[key], Instant::now()) {
            self.tracked[key] = true;
            self.wire.push_back(WireMessage::WireReply(WireReply::Read {
                reader: self.guards.len(),
                version: self.stored[key],
            }));
            self.guards.push(Some(guard));
        }
    }

    fn change(&mut self, key: usize) {
        self.stored[key] += 1;
        if std::mem::take(&mut self.tracked[key]) {
            self.wire.push_back(WireMessage::Invalidation { key });
        }
    }

    fn receive(&mut self) {
        match self.wire.pop_front() {
            Some(WireMessage::Invalidation { key }) => self.cache.invalidate([KEYS[key]]),
            Some(WireMessage::WireReply(reply)) => self.received.push(reply),
            None => {}
        }
    }

    fn resume(&mut self, nth: usize) {
        if nth >= self.received.len() {
            return;
        }
        match self.received.remove(nth) {
            WireReply::Written { key, version } => {
                self.cache.invalidate([KEYS[key]]);
                self.written[key] = self.written[key].max(version);
            }
            WireReply::Read { reader, version } => {
                let guard = self.guards[reader].take().unwrap();
                let result = Ok(Some(Bytes::copy_from_slice(&version.to_be_bytes())));
                let policy = policy(in_a_minute(), Arc::clone(&self.freshness));
                guard.complete(&result, policy);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn once_all_messages_are_received_cached_values_equal_stored_ones(events in events()) {
        let cache = Cache::new(limits(10, 1 << 20));
        let mut model = Model {
            cache: &cache,
            freshness: freshness(),
            stored: [1; 3],
            tracked: [false; 3],
            wire: VecDeque::new(),
            guards: Vec::new(),
            received: Vec::new(),
            written: [1; 3],
        };
        for event in events {
            model.apply(event);
        }
        while !model.wire.is_empty() {
            model.apply(Event::Receive);
        }
        while !model.received.is_empty() {
            model.apply(Event::Resume(0));
        }
        for (key, name) in KEYS.iter().enumerate() {
            if let Some(version) = model.cached(name) {
                prop_assert_eq!(version, model.stored[key]);
            }
        }
    }
}
