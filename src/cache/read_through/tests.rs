//! The slots against a model of the way from a server: answers and news of changes in one order,
//! and readers that come to their answers whenever they like.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::cache::freshness::LEASE;

const KEYS: [&[u8]; 3] = [b"a", b"b", b"c"];

fn limits(entries: usize, bytes: usize) -> CacheLimits {
    CacheLimits {
        entries,
        bytes,
        age: Duration::from_secs(60),
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

fn keep(until: Instant, freshness: Arc<Freshness>) -> Option<EntryPolicy> {
    Some(EntryPolicy { until, freshness })
}

fn far() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

/// Reads a key as a call does; true if it was in memory.
fn read(cache: &Cache, key: &[u8], text: &str) -> bool {
    match cache.lookup(key, Instant::now()) {
        Lookup::Hit(_) => true,
        Lookup::Pending(_) | Lookup::Bypass => panic!("nobody reads, and there is room"),
        Lookup::Miss(turn) => {
            turn.end(&value(text), keep(far(), freshness()));
            false
        }
    }
}

fn turn<'a>(cache: &'a Cache, key: &'a [u8]) -> FillGuard<'a> {
    match cache.lookup(key, Instant::now()) {
        Lookup::Miss(turn) => turn,
        other => panic!("expected nothing, found {other:?}"),
    }
}

#[test]
fn the_least_recently_used_goes_first() {
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
fn bytes_are_limited_and_counted_back() {
    let cache = Cache::new(limits(1_000, 10_000));
    let large = "x".repeat(4_000);
    assert!(!read(&cache, b"a", &large));
    assert!(!read(&cache, b"b", &large));
    assert!(read(&cache, b"a", &large));
    assert!(!read(&cache, b"c", &large), "there is room for two");
    assert!(!read(&cache, b"b", &large), "the older one went");
    let too_large = "x".repeat(20_000);
    assert!(!read(&cache, b"d", &too_large));
    assert!(!read(&cache, b"d", "small"), "it alone is more than fits");
    for round in 0..100 {
        cache.invalidate([&b"a"[..], b"b", b"c", b"d"]);
        assert!(!read(&cache, b"a", &"y".repeat(round)));
    }
    cache.invalidate([&b"a"[..]]);
    assert_eq!(cache.store().weighed(), (0, 0));
}

#[test]
fn what_is_read_once_does_not_push_out_what_is_read_again_and_again() {
    let cache = Cache::new(limits(100, 1 << 20));
    let hot: Vec<String> = (0..50).map(|n| format!("hot-{n}")).collect();
    let read_once = |n: u32| match cache.lookup(&n.to_be_bytes(), Instant::now()) {
        Lookup::Miss(turn) => {
            turn.end(&value("v"), keep(far(), freshness()));
            true
        }
        Lookup::Bypass => false,
        other => panic!("nobody has read it: {other:?}"),
    };
    let kept = (0..5_000).filter(|n| read_once(*n)).count();
    assert!((1_000..2_500).contains(&kept), "{kept} of 5,000 got a slot");
    for key in &hot {
        let looks = (1..).find(|_| match cache.lookup(key.as_bytes(), Instant::now()) {
            Lookup::Miss(turn) => {
                turn.end(&value("v"), keep(far(), freshness()));
                true
            }
            _ => false,
        });
        assert!(looks <= Some(4), "{looks:?} looks for a slot");
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
fn what_changed_during_the_read_is_not_kept() {
    let cache = Cache::new(limits(10, 1 << 20));
    let early = turn(&cache, b"a");
    cache.invalidate([&b"a"[..]]);
    let late = turn(&cache, b"a");
    early.end(&value("old"), keep(far(), freshness()));
    assert!(matches!(
        cache.lookup(b"a", Instant::now()),
        Lookup::Pending(_)
    ));
    late.end(&value("new"), keep(far(), freshness()));
    let now = Instant::now();
    assert_eq!(cache.peek(b"a", now), Some(Some(Bytes::from("new"))));
    let other = turn(&cache, b"b");
    cache.invalidate_all();
    other.end(&value("old"), keep(far(), freshness()));
    assert_eq!(cache.peek(b"b", now), None);
}

#[tokio::test(start_paused = true)]
async fn who_comes_soon_waits_with_the_first_and_who_comes_late_asks() {
    let cache = Cache::new(limits(10, 1 << 20));
    let first = turn(&cache, b"a");
    let Lookup::Pending(joined) = cache.lookup(b"a", Instant::now()) else {
        panic!("somebody reads");
    };
    tokio::time::advance(COALESCE_WINDOW).await;
    let late = turn(&cache, b"a");
    first.end(&value("early"), keep(far(), freshness()));
    assert_eq!(joined.outcome().await, Some(value("early")));
    let Lookup::Pending(abandoned) = cache.lookup(b"a", Instant::now()) else {
        panic!("the late one reads");
    };
    drop(late);
    assert_eq!(abandoned.outcome().await, None);
    drop(turn(&cache, b"a"));
}

#[tokio::test(start_paused = true)]
async fn values_are_used_as_long_as_they_may_be() {
    let cache = Cache::new(limits(10, 1 << 20));
    let now = Instant::now();
    let voucher = freshness();
    let until = now + Duration::from_millis(500);
    turn(&cache, b"a").end(&value("v"), keep(until, Arc::clone(&voucher)));
    turn(&cache, b"b").end(&value("v"), keep(far(), Arc::clone(&voucher)));
    turn(&cache, b"c").end(&value("v"), keep(far(), freshness()));
    turn(&cache, b"d").end(&value("v"), None);
    let known = |key: &[u8], at| cache.peek(key, at).is_some();
    assert!(known(b"a", now) && known(b"b", now) && known(b"c", now));
    assert!(!known(b"d", now), "nobody vouches for it");
    assert!(!known(b"a", until) && known(b"b", until));
    assert!(!known(b"b", now + LEASE * 2), "nobody has vouched lately");
    voucher.revoke();
    assert!(!known(b"b", now) && known(b"c", now));
    cache.invalidate_connection(&voucher);
    assert_eq!(cache.store().weighed().0, 1);
}

/// What travels from the server to the client, in order.
enum Sent {
    Answer(Answer),
    Changed { key: usize },
}

/// What somebody waits for.
enum Answer {
    Read { reader: usize, version: u64 },
    Written { key: usize, version: u64 },
}

#[derive(Clone, Copy, Debug)]
enum Event {
    /// A reader looks, and asks the server if it has to.
    Read(usize),
    /// Somebody else changes a key.
    Change(usize),
    /// The link itself changes a key.
    Write(usize),
    /// The client reads one message from the socket.
    Receive,
    /// Somebody whose answer was received goes on.
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
    /// Keys that the server will tell the change of.
    tracked: [bool; 3],
    wire: VecDeque<Sent>,
    asked: Vec<Option<FillGuard<'a>>>,
    received: Vec<Answer>,
    /// The newest version that the link has been told it wrote.
    written: [u64; 3],
}

impl Model<'_> {
    fn happen(&mut self, event: Event) {
        match event {
            Event::Read(key) => self.read(key),
            Event::Change(key) => self.change(key),
            Event::Write(key) => {
                let version = self.stored[key] + 1;
                let answer = Answer::Written { key, version };
                self.wire.push_back(Sent::Answer(answer));
                self.change(key);
            }
            Event::Receive => self.receive(),
            Event::Resume(nth) => self.resume(nth),
        }
        for (key, name) in KEYS.iter().enumerate() {
            if let Some(version) = self.kept(name) {
                assert!(
                    version >= self.written[key],
                    "{event:?}: an old value is kept"
                );
            }
        }
    }

    fn kept(&self, key: &[u8]) -> Option<u64> {
        let kept = self.cache.peek(key, Instant::now())??;
        Some(u64::from_be_bytes(kept.as_ref().try_into().unwrap()))
    }

    fn read(&mut self, key: usize) {
        if let Lookup::Miss(turn) = self.cache.lookup(KEYS[key], Instant::now()) {
            self.tracked[key] = true;
            self.wire.push_back(Sent::Answer(Answer::Read {
                reader: self.asked.len(),
                version: self.stored[key],
            }));
            self.asked.push(Some(turn));
        }
    }

    fn change(&mut self, key: usize) {
        self.stored[key] += 1;
        if std::mem::take(&mut self.tracked[key]) {
            self.wire.push_back(Sent::Changed { key });
        }
    }

    fn receive(&mut self) {
        match self.wire.pop_front() {
            Some(Sent::Changed { key }) => self.cache.invalidate([KEYS[key]]),
            Some(Sent::Answer(answer)) => self.received.push(answer),
            None => {}
        }
    }

    fn resume(&mut self, nth: usize) {
        if nth >= self.received.len() {
            return;
        }
        match self.received.remove(nth) {
            Answer::Written { key, version } => {
                self.cache.invalidate([KEYS[key]]);
                self.written[key] = self.written[key].max(version);
            }
            Answer::Read { reader, version } => {
                let turn = self.asked[reader].take().unwrap();
                let outcome = Ok(Some(Bytes::copy_from_slice(&version.to_be_bytes())));
                turn.end(&outcome, keep(far(), Arc::clone(&self.freshness)));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn when_all_is_heard_what_is_kept_is_what_is_stored(events in events()) {
        let cache = Cache::new(limits(10, 1 << 20));
        let mut model = Model {
            cache: &cache,
            freshness: freshness(),
            stored: [1; 3],
            tracked: [false; 3],
            wire: VecDeque::new(),
            asked: Vec::new(),
            received: Vec::new(),
            written: [1; 3],
        };
        for event in events {
            model.happen(event);
        }
        while !model.wire.is_empty() {
            model.happen(Event::Receive);
        }
        while !model.received.is_empty() {
            model.happen(Event::Resume(0));
        }
        for (key, name) in KEYS.iter().enumerate() {
            if let Some(version) = model.kept(name) {
                prop_assert_eq!(version, model.stored[key]);
            }
        }
    }
}
