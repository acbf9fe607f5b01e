//! The slots against a model of the way from a server: answers and news of changes in one order,
//! and readers that come to their answers whenever they like.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

const KEYS: [&[u8]; 3] = [b"a", b"b", b"c"];

fn limits(entries: usize, bytes: usize) -> Limits {
    Limits {
        entries,
        bytes,
        age: Duration::from_secs(60),
    }
}

fn vouch() -> Arc<Vouch> {
    let vouch = Vouch::new();
    vouch.confirm(Instant::now() + Duration::from_millis(1));
    Arc::new(vouch)
}

fn value(text: &str) -> Outcome {
    Ok(Some(Bytes::copy_from_slice(text.as_bytes())))
}

fn keep(until: Instant, vouch: Arc<Vouch>) -> Option<Keep> {
    Some(Keep { until, vouch })
}

fn far() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

/// Reads a key as a call does; true if it was in memory.
fn read(cache: &Cache, key: &[u8], text: &str) -> bool {
    match cache.look(key, Instant::now()) {
        Found::Kept(_) => true,
        Found::Underway(_) => panic!("nobody reads"),
        Found::Nothing(turn) => {
            turn.end(&value(text), keep(far(), vouch()));
            false
        }
    }
}

fn turn<'a>(cache: &'a Cache, key: &'a [u8]) -> Turn<'a> {
    match cache.look(key, Instant::now()) {
        Found::Nothing(turn) => turn,
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
        cache.forget([&b"a"[..], b"b", b"c", b"d"]);
        assert!(!read(&cache, b"a", &"y".repeat(round)));
    }
    cache.forget([&b"a"[..]]);
    assert_eq!(cache.shelf().weighed(), (0, 0));
}

#[test]
fn what_changed_during_the_read_is_not_kept() {
    let cache = Cache::new(limits(10, 1 << 20));
    let early = turn(&cache, b"a");
    cache.forget([&b"a"[..]]);
    let late = turn(&cache, b"a");
    early.end(&value("old"), keep(far(), vouch()));
    assert!(matches!(
        cache.look(b"a", Instant::now()),
        Found::Underway(_)
    ));
    late.end(&value("new"), keep(far(), vouch()));
    let now = Instant::now();
    assert_eq!(cache.known(b"a", now), Some(Some(Bytes::from("new"))));
    let other = turn(&cache, b"b");
    cache.forget_all();
    other.end(&value("old"), keep(far(), vouch()));
    assert_eq!(cache.known(b"b", now), None);
}

#[tokio::test(start_paused = true)]
async fn who_comes_soon_waits_with_the_first_and_who_comes_late_asks() {
    let cache = Cache::new(limits(10, 1 << 20));
    let first = turn(&cache, b"a");
    let Found::Underway(joined) = cache.look(b"a", Instant::now()) else {
        panic!("somebody reads");
    };
    tokio::time::advance(JOINABLE).await;
    let late = turn(&cache, b"a");
    first.end(&value("early"), keep(far(), vouch()));
    assert_eq!(joined.outcome().await, Some(value("early")));
    let Found::Underway(abandoned) = cache.look(b"a", Instant::now()) else {
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
    let voucher = vouch();
    let until = now + Duration::from_millis(500);
    turn(&cache, b"a").end(&value("v"), keep(until, Arc::clone(&voucher)));
    turn(&cache, b"b").end(&value("v"), keep(far(), Arc::clone(&voucher)));
    turn(&cache, b"c").end(&value("v"), keep(far(), vouch()));
    turn(&cache, b"d").end(&value("v"), None);
    let known = |key: &[u8], at| cache.known(key, at).is_some();
    assert!(known(b"a", now) && known(b"b", now) && known(b"c", now));
    assert!(!known(b"d", now), "nobody vouches for it");
    assert!(!known(b"a", until) && known(b"b", until));
    assert!(!known(b"b", now + LEASE * 2), "nobody has vouched lately");
    voucher.end();
    assert!(!known(b"b", now) && known(b"c", now));
    cache.forget_from(&voucher);
    assert_eq!(cache.shelf().len(), 1);
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
    vouch: Arc<Vouch>,
    stored: [u64; 3],
    /// Keys that the server will tell the change of.
    tracked: [bool; 3],
    wire: VecDeque<Sent>,
    asked: Vec<Option<Turn<'a>>>,
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
        let kept = self.cache.known(key, Instant::now())??;
        Some(u64::from_be_bytes(kept.as_ref().try_into().unwrap()))
    }

    fn read(&mut self, key: usize) {
        if let Found::Nothing(turn) = self.cache.look(KEYS[key], Instant::now()) {
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
            Some(Sent::Changed { key }) => self.cache.forget([KEYS[key]]),
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
                self.cache.forget([KEYS[key]]);
                self.written[key] = self.written[key].max(version);
            }
            Answer::Read { reader, version } => {
                let turn = self.asked[reader].take().unwrap();
                let outcome = Ok(Some(Bytes::copy_from_slice(&version.to_be_bytes())));
                turn.end(&outcome, keep(far(), Arc::clone(&self.vouch)));
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
            vouch: vouch(),
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
