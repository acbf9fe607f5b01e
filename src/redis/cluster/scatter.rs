//! Takes requests apart whose keys are in several slots, and puts the answers together.
//!
//! Pure: it knows the commands that kvredis sends, and no node.

use std::collections::BTreeMap;

use redis::{Cmd, Pipeline, Value};

use crate::error::Error;
use crate::redis::cluster::slot_map::slot_of;
use crate::redis::command::{Request, words, words_per_key};
use crate::redis::reply;

/// Where a request goes.
#[derive(Debug)]
pub(crate) enum Plan {
    /// To the node of this slot, as it is.
    Whole(u16),
    /// In parts.
    Parts(Vec<Part>),
    /// To all nodes, one after another.
    Scan,
}

/// The part of a request that is about keys in one slot.
#[derive(Debug)]
pub(crate) struct Part {
    /// The slot.
    pub(crate) slot: u16,
    /// What to send there.
    pub(crate) request: Request,
    /// Which of the whole request's keys these are.
    places: Vec<usize>,
}

/// Says where a request goes.
pub(crate) fn plan(request: &Request) -> Plan {
    match request {
        Request::Transaction(commands) => parts(request.keys().into_iter(), |places| {
            let commands: Vec<&Cmd> = commands.cmd_iter().collect();
            let mut part = Pipeline::with_capacity(places.len());
            part.atomic();
            for place in places {
                part.add_command(commands[*place].clone());
            }
            Request::Transaction(part)
        })
        .unwrap_or_else(whole),
        Request::One(_) if request.name() == "SCAN" => Plan::Scan,
        Request::One(command) => match words_per_key(command) {
            Some(per_key) => several(command, per_key),
            None => one(request),
        },
        Request::Kept(_) => one(request),
    }
}

/// A request about one key.
fn one(request: &Request) -> Plan {
    whole(request.keys().first().map(|key| slot_of(key)))
}

fn whole(slot: Option<u16>) -> Plan {
    Plan::Whole(slot.unwrap_or_default())
}

/// A command whose arguments are keys, each followed by what belongs to it.
fn several(command: &Cmd, per_key: usize) -> Plan {
    let words: Vec<&[u8]> = words(command).collect();
    let Some((name, arguments)) = words.split_first() else {
        return whole(None);
    };
    let items: Vec<&[&[u8]]> = arguments.chunks(per_key).collect();
    let keys = items.iter().map(|item| item[0]);
    parts(keys, |places| {
        let items = places.iter().map(|place| items[*place]);
        let bytes = items.clone().flatten().map(|word| word.len() + 8).sum();
        let mut part = Cmd::with_capacity(1 + places.len() * per_key, bytes);
        part.arg(*name);
        for word in items.flatten() {
            part.arg(*word);
        }
        Request::One(part)
    })
    .unwrap_or_else(whole)
}

/// The parts of a request with these keys; or the slot, where it is only one.
fn parts<'a>(
    keys: impl Iterator<Item = &'a [u8]>,
    part: impl Fn(&[usize]) -> Request,
) -> Result<Plan, Option<u16>> {
    let mut places: BTreeMap<u16, Vec<usize>> = BTreeMap::new();
    for (place, key) in keys.enumerate() {
        places.entry(slot_of(key)).or_default().push(place);
    }
    if places.len() < 2 {
        return Err(places.into_keys().next());
    }
    let parts = places.into_iter().map(|(slot, places)| Part {
        slot,
        request: part(&places),
        places,
    });
    Ok(Plan::Parts(parts.collect()))
}

/// The answer to the whole request, from those of its parts.
///
/// # Errors
///
/// An answer is not one that Redis gives.
pub(crate) fn merge(
    request: &Request,
    parts: &[Part],
    answers: Vec<Value>,
) -> Result<Value, Error> {
    match request.name() {
        "MGET" => {
            let keys = parts.iter().map(|part| part.places.len()).sum();
            let mut values = vec![Value::Nil; keys];
            for (part, answer) in parts.iter().zip(answers) {
                let found = reply::array("MGET", answer, part.places.len())?;
                for (place, value) in part.places.iter().zip(found) {
                    values[*place] = value;
                }
            }
            Ok(Value::Array(values))
        }
        "DEL" => {
            let mut deleted = 0;
            for answer in &answers {
                deleted += reply::integer("DEL", answer)?;
            }
            Ok(Value::Int(deleted))
        }
        _ => Ok(Value::Okay),
    }
}

/// The cursor of a `SCAN`, and the same `SCAN` with another cursor.
pub(crate) fn scan(request: &Request) -> Option<(u64, impl Fn(u64) -> Request)> {
    let Request::One(command) = request else {
        return None;
    };
    let cursor = words(command).nth(1)?;
    let cursor = std::str::from_utf8(cursor).ok()?.parse().ok()?;
    let with = move |cursor: u64| {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor);
        for word in words(command).skip(2) {
            scan.arg(word);
        }
        Request::One(scan)
    };
    Some((cursor, with))
}

/// The answer to a `SCAN`.
pub(crate) fn page(cursor: u64, keys: Vec<Value>) -> Value {
    let cursor = Value::BulkString(cursor.to_string().into_bytes());
    Value::Array(vec![cursor, Value::Array(keys)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(text: &str) -> Request {
        let mut command = Cmd::new();
        for word in text.split(' ') {
            command.arg(word);
        }
        Request::One(command)
    }

    fn text(request: &Request) -> String {
        let Request::One(command) = request else {
            panic!("not one command")
        };
        let words: Vec<_> = words(command).map(String::from_utf8_lossy).collect();
        words.join(" ")
    }

    #[test]
    fn requests_on_one_slot_stay_whole() {
        for whole in [
            "GET foo",
            "SET foo bar",
            "EVALSHA hash 1 foo 5",
            "MGET foo {foo}a",
            "MSET foo 1 {foo}a 2",
        ] {
            let plan = plan(&command(whole));
            assert!(matches!(plan, Plan::Whole(12_182)), "{whole}: {plan:?}");
        }
        assert!(matches!(plan(&command("SCAN 0")), Plan::Scan));
    }

    #[test]
    fn answers_come_back_in_the_order_of_the_keys() {
        let request = command("MGET foo bar {foo}2 missing");
        let Plan::Parts(parts) = plan(&request) else {
            panic!("it has several slots")
        };
        let answers = parts.iter().map(|part| {
            let keys = text(&part.request);
            let keys = keys.split(' ').skip(1);
            let value = |key: &str| match key {
                "missing" => Value::Nil,
                key => Value::BulkString(key.into()),
            };
            Value::Array(keys.map(value).collect())
        });
        let answer = merge(&request, &parts, answers.collect()).unwrap();
        let value = |key: &str| Value::BulkString(key.into());
        let expected = vec![value("foo"), value("bar"), value("{foo}2"), Value::Nil];
        assert_eq!(answer, Value::Array(expected));
    }

    #[test]
    fn pairs_stay_together() {
        let Plan::Parts(parts) = plan(&command("MSET foo 1 bar 2 {foo}3 3")) else {
            panic!("it has several slots")
        };
        let mut texts: Vec<_> = parts.iter().map(|part| text(&part.request)).collect();
        texts.sort();
        assert_eq!(texts, ["MSET bar 2", "MSET foo 1 {foo}3 3"]);
    }

    #[test]
    fn a_scan_gets_another_cursor_and_keeps_the_rest() {
        let request = command("SCAN 17 MATCH a* COUNT 5");
        let (cursor, with) = scan(&request).unwrap();
        assert_eq!(cursor, 17);
        assert_eq!(text(&with(3)), "SCAN 3 MATCH a* COUNT 5");
    }
}
