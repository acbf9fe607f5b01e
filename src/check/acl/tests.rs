//! The meaning of refusals by several versions of Redis, and the commands that links require.

use super::*;
use crate::settings::origin::Origin;
use crate::settings::source::{Layer, Sources};

fn settings(config: &[(&str, &str)]) -> Settings {
    let config = config
        .iter()
        .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
    let sources = Sources::new(
        Layer::empty(Origin::LinkSecrets),
        Layer::config(Origin::LinkConfig, &config.collect()),
        Layer::empty(Origin::ProviderSecrets),
        Layer::empty(Origin::ProviderConfig),
    );
    Settings::parse(&sources).settings.unwrap()
}

fn rules(config: &[(&str, &str)]) -> BTreeSet<&'static str> {
    let needs = required_commands(&settings(config)).into_iter();
    needs
        .filter(|need| need.necessary)
        .map(|need| need.rule)
        .collect()
}

#[test]
fn a_link_requires_only_the_commands_that_it_sends() {
    let all = [
        "+get", "+set", "+del", "+exists", "+scan", "+evalsha", "+eval", "+incrby",
    ];
    let with = |more: &[&'static str]| all.into_iter().chain(more.iter().copied()).collect();
    assert_eq!(rules(&[]), with(&["+mget", "+mset"]));
    let expiring = with(&["+mget", "+multi", "+exec", "+pttl", "+pexpire"]);
    assert_eq!(rules(&[("TTL_MS", "5")]), expiring);
    let reads = BTreeSet::from(["+get", "+exists", "+scan", "+mget"]);
    assert_eq!(rules(&[("READ_ONLY", "true")]), reads);
    assert_eq!(rules(&[("WATCH", "SET@a")]), BTreeSet::from(["+get"]));
    let once = [("WATCH", "SET@a"), ("WATCH_ONCE", "true")];
    assert_eq!(
        rules(&once),
        BTreeSet::from(["+get", "+eval", "+set", "+pttl"])
    );
}

#[test]
fn keys_are_those_of_the_links_buckets() {
    let config = [("PREFIX", "p*/"), ("BUCKETS", "default, carts")];
    let needs = required_commands(&settings(&config));
    let rules: BTreeSet<&str> = needs.iter().map(|need| need.key_rule.as_str()).collect();
    assert_eq!(rules, BTreeSet::from(["", r"~p\*/*", r"~p\*/carts:*"]));
}

#[test]
fn refusals_of_old_and_new_servers_are_classified() {
    let settings = settings(&[("PREFIX", "own:")]);
    let need = required_commands(&settings).remove(0);
    let rule = |details: &str| {
        let refusal = redis::parse_redis_value(format!("-NOPERM {details}\r\n").as_bytes());
        let Ok(redis::Value::ServerError(refusal)) = refusal else {
            panic!("no refusal: {refusal:?}")
        };
        match classify(&need, &refusal) {
            Some(Refused::Forbidden { rule }) => rule,
            other => panic!("{other:?}"),
        }
    };
    for command in [
        "this user has no permissions to run the 'get' command",
        "User key has no permissions to run the 'get' command",
    ] {
        assert_eq!(rule(command), "+get");
    }
    for key in [
        "this user has no permissions to access one of the keys used as arguments",
        "No permissions to access a key",
    ] {
        assert_eq!(rule(key), "~own:*");
    }
}
