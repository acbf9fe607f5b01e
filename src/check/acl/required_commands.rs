//! Which commands a link with given settings sends, each with the ACL rule that allows it and a
//! form of it that changes nothing.

use redis::Cmd;

use crate::link::keyspace::{Bucket, Keyspace};
use crate::settings::Settings;
use crate::settings::address::ServerSpec;

/// A script that no server knows, and one that does nothing.
const NO_SCRIPT: &str = "0000000000000000000000000000000000000000";
const EMPTY_SCRIPT: &str = "return 1";
const DEFAULT_BUCKET: &str = "default";
const CACHE: &str = "CACHE_MAX_ENTRIES";

/// A command that a link needs.
#[derive(Clone, Debug)]
pub(crate) struct RequiredCommand {
    /// The ACL rule that allows the command.
    pub(crate) rule: &'static str,
    /// The ACL rule that allows the key.
    pub(crate) key_rule: String,
    /// What it is for: an interface, or a setting.
    pub(crate) purpose: &'static str,
    /// Whether it writes.
    pub(crate) writes: bool,
    /// Whether the link does not fully work without.
    pub(crate) necessary: bool,
    /// The form that changes nothing.
    pub(crate) trial: Cmd,
}

impl RequiredCommand {
    /// Whether a replica may be asked it.
    pub(crate) fn is_read(&self) -> bool {
        matches!(self.rule, "+get" | "+mget" | "+exists") || self.purpose == CACHE
    }
}

/// The keys of one bucket, for trials.
struct Keys {
    rule: String,
    key: String,
}

impl Keys {
    fn of(bucket: &Bucket<'_>, name: &str) -> Self {
        Self {
            rule: format!("~{}", bucket.pattern_of("*")),
            key: bucket.redis_key(name).into_owned(),
        }
    }

    fn need(&self, purpose: &'static str, rule: &'static str, words: &[&str]) -> RequiredCommand {
        let words: Vec<&str> = words
            .iter()
            .map(|word| {
                if *word == "KEY" {
                    self.key.as_str()
                } else {
                    word
                }
            })
            .collect();
        RequiredCommand {
            key_rule: self.rule.clone(),
            ..need(purpose, rule, &words)
        }
    }
}

fn need(purpose: &'static str, rule: &'static str, words: &[&str]) -> RequiredCommand {
    let mut trial = Cmd::new();
    trial.arg(words);
    RequiredCommand {
        rule,
        key_rule: String::new(),
        purpose,
        writes: matches!(
            rule,
            "+set"
                | "+del"
                | "+mset"
                | "+incrby"
                | "+pexpire"
                | "+eval"
                | "+evalsha"
                | "+multi"
                | "+exec"
        ),
        necessary: true,
        trial,
    }
}

/// Everything that a link with these settings sends once it is connected.
pub(crate) fn needs(settings: &Settings) -> Vec<RequiredCommand> {
    let name = format!("kvredis:check:{:032x}", fastrand::u128(..));
    let keyspace = Keyspace::new(settings);
    let mut needs = if settings.watch.is_empty() {
        let mut needs = Vec::new();
        for (index, bucket) in buckets(settings, &keyspace).iter().enumerate() {
            of_interfaces(settings, &Keys::of(bucket, &name), index == 0, &mut needs);
        }
        needs
    } else {
        of_watching(settings, &keyspace, &name)
    };
    for (rule, words) in [
        ("+ping", &["PING"][..]),
        ("+client|setname", &["CLIENT", "SETNAME", "kvredis:check"]),
    ] {
        needs.push(RequiredCommand {
            necessary: false,
            ..need("seeing connections and whether they are alive", rule, words)
        });
    }
    needs
}

/// The buckets that the link names; where it may open any, the default one.
fn buckets<'a>(settings: &'a Settings, keyspace: &'a Keyspace) -> Vec<Bucket<'a>> {
    let named = settings.buckets.iter().flatten().map(String::as_str);
    let mut names: Vec<&str> = named.collect();
    if names.is_empty() {
        names.push(DEFAULT_BUCKET);
    }
    let buckets = names.into_iter().map(|name| keyspace.bucket(name));
    buckets.filter_map(Result::ok).collect()
}

/// What `store`, `atomics` and `batch` send for a bucket; what has no key in it only once.
fn of_interfaces(settings: &Settings, keys: &Keys, first: bool, needs: &mut Vec<RequiredCommand>) {
    let mut store: Vec<(&'static str, &[&str])> =
        vec![("+get", &["GET", "KEY"]), ("+exists", &["EXISTS", "KEY"])];
    if first {
        store.push(("+scan", &["SCAN", "0", "MATCH", "KEY", "COUNT", "1"]));
    }
    let mut batch: Vec<(&'static str, &[&str])> = vec![("+mget", &["MGET", "KEY"])];
    let mut atomics: Vec<(&'static str, &[&str])> = Vec::new();
    if settings.cache_max_entries > 0 {
        // What is kept must not outlive its key.
        needs.push(keys.need(CACHE, "+pttl", &["PTTL", "KEY"]));
    }
    if !settings.read_only {
        // Both at once are never true.
        let set: (&'static str, &[&str]) = ("+set", &["SET", "KEY", "", "NX", "XX"]);
        store.extend([set, ("+del", &["DEL", "KEY"])]);
        batch.push(("+del", &["DEL", "KEY"]));
        if settings.ttl.is_none() {
            // A key without a value.
            batch.push(("+mset", &["MSET", "KEY", "", "KEY"]));
        } else {
            batch.push(set);
            if first {
                // Alone it is refused, and then it ends a transaction of nothing.
                let exec: (&'static str, &[&str]) = ("+exec", &["EXEC"]);
                batch.extend([exec, ("+multi", &["MULTI"]), exec]);
            }
        }
        atomics.extend([
            ("+evalsha", &["EVALSHA", NO_SCRIPT, "1", "KEY"][..]),
            ("+eval", &["EVAL", EMPTY_SCRIPT, "1", "KEY"]),
            // Of a number above 2^53.
            ("+get", &["GET", "KEY"]),
            ("+incrby", &["INCRBY", "KEY", "no number"]),
        ]);
        if settings.ttl.is_some() {
            atomics.extend([
                ("+pttl", &["PTTL", "KEY"][..]),
                ("+pexpire", &["PEXPIRE", "KEY", "no number"]),
            ]);
        }
    }
    for (purpose, commands) in [("store", store), ("atomics", atomics), ("batch", batch)] {
        let commands = commands.into_iter();
        needs.extend(commands.map(|(rule, words)| keys.need(purpose, rule, words)));
    }
}

/// What a watching link sends beside its subscription, which `watching` tries.
fn of_watching(settings: &Settings, keyspace: &Keyspace, name: &str) -> Vec<RequiredCommand> {
    let mut needs = Vec::new();
    if let Ok(bucket) = keyspace.bucket(&settings.watch_bucket) {
        let keys = Keys::of(&bucket, name);
        needs.push(keys.need("WATCH", "+get", &["GET", "KEY"]));
        let on_delete = settings.watch.iter().any(|watched| watched.on_delete);
        if on_delete && matches!(settings.address.server, ServerSpec::Cluster { .. }) {
            // A key that moves to another node is deleted where it was.
            needs.push(keys.need("WATCH", "+exists", &["EXISTS", "KEY"]));
        }
    }
    if settings.watch_once {
        let start = format!("{}kvredis:watch-lease:", settings.prefix);
        let keys = Keys {
            rule: format!("~{start}*"),
            key: format!("{start}{name}"),
        };
        needs.extend([
            keys.need("WATCH_ONCE", "+eval", &["EVAL", EMPTY_SCRIPT, "1", "KEY"]),
            keys.need("WATCH_ONCE", "+get", &["GET", "KEY"]),
            keys.need("WATCH_ONCE", "+set", &["SET", "KEY", "", "NX", "XX"]),
            keys.need("WATCH_ONCE", "+del", &["DEL", "KEY"]),
        ]);
    }
    needs
}
