//! The commands that a link with given settings sends, each with the ACL rule that allows it and a
//! form of it that changes nothing.

use crate::link::keyspace::{Bucket, Keyspace};
use crate::redis::command::spec::{self, Access, AclRule, CommandSpec, KEY};
use crate::settings::address::ServerSpec;
use crate::settings::link_settings::Settings;

const DEFAULT_BUCKET: &str = "default";
const CACHE: &str = "CACHE_MAX_ENTRIES";

/// A command that a link needs.
#[derive(Clone, Debug)]
pub(crate) struct RequiredCommand {
    /// The ACL rule that allows the command.
    pub(crate) rule: &'static str,
    /// The ACL rule that allows the key.
    pub(crate) key_rule: String,
    /// The interface or setting that needs it.
    pub(crate) purpose: &'static str,
    pub(crate) access: Access,
    /// True if the link does not fully work without it.
    pub(crate) necessary: bool,
    /// The arguments of the form that changes nothing.
    pub(crate) trial: Vec<String>,
}

/// The keys of one bucket, for trials.
struct TrialKeys {
    rule: String,
    key: String,
}

impl TrialKeys {
    fn of(bucket: &Bucket<'_>, name: &str) -> Self {
        Self {
            rule: format!("~{}", bucket.pattern_of("*")),
            key: bucket.redis_key(name).into_owned(),
        }
    }

    fn require(&self, purpose: &'static str, rule: &AclRule) -> RequiredCommand {
        let words = rule.trial.iter().map(|&word| match word {
            KEY => self.key.clone(),
            word => word.to_owned(),
        });
        RequiredCommand {
            rule: rule.rule,
            key_rule: self.rule.clone(),
            purpose,
            access: rule.access,
            necessary: true,
            trial: words.collect(),
        }
    }
}

/// Every command that a link with these settings sends once it is connected.
pub(crate) fn required_commands(settings: &Settings) -> Vec<RequiredCommand> {
    let name = format!("kvredis:check:{:032x}", fastrand::u128(..));
    let keyspace = Keyspace::new(settings);
    let mut required = if settings.watch.is_empty() {
        let mut required = Vec::new();
        for (index, bucket) in buckets(settings, &keyspace).iter().enumerate() {
            let keys = TrialKeys::of(bucket, &name);
            required.extend(of_interfaces(settings, &keys, index == 0));
        }
        required
    } else {
        of_watching(settings, &keyspace, &name)
    };
    let no_keys = TrialKeys {
        rule: String::new(),
        key: String::new(),
    };
    required.extend(spec::ADMIN.acl.iter().map(|rule| RequiredCommand {
        necessary: false,
        ..no_keys.require(
            "probes, connection names, listings during a restart or failover",
            rule,
        )
    }));
    required
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

/// The commands of `store`, `atomics` and `batch` for a bucket; rules without a key of the bucket
/// only for the `first` one.
fn of_interfaces(settings: &Settings, keys: &TrialKeys, first: bool) -> Vec<RequiredCommand> {
    let expires = settings.ttl.is_some();
    let mut specs: Vec<(&'static str, &CommandSpec)> = Vec::new();
    if settings.cache_max_entries > 0 {
        specs.push((CACHE, &spec::CACHED_GET));
    }
    specs.extend([
        ("store", &spec::GET),
        ("store", &spec::EXISTS),
        ("store", &spec::SCAN),
        ("batch", &spec::MGET),
    ]);
    if !settings.read_only {
        let set_many = if expires {
            &spec::MSET_WITH_TTL
        } else {
            &spec::MSET
        };
        specs.extend([
            ("store", &spec::SET),
            ("store", &spec::DEL),
            ("batch", &spec::DEL),
            ("batch", set_many),
            ("atomics", &spec::INCREMENT),
        ]);
    }
    let mut required = Vec::new();
    for (purpose, spec) in specs {
        let rules = spec.acl.iter();
        let rules = rules.filter(|rule| (first || !rule.once) && (expires || !rule.only_with_ttl));
        required.extend(rules.map(|rule| keys.require(purpose, rule)));
    }
    required
}

/// The commands of a watching link beside its subscription, which `watching` tries.
fn of_watching(settings: &Settings, keyspace: &Keyspace, name: &str) -> Vec<RequiredCommand> {
    let require = |keys: &TrialKeys, purpose, spec: &CommandSpec| -> Vec<RequiredCommand> {
        let rules = spec.acl.iter();
        rules.map(|rule| keys.require(purpose, rule)).collect()
    };
    let mut required = Vec::new();
    if let Ok(bucket) = keyspace.bucket(&settings.watch_bucket) {
        let keys = TrialKeys::of(&bucket, name);
        required.extend(require(&keys, "WATCH", &spec::GET));
        let on_delete = settings.watch.iter().any(|watched| watched.on_delete);
        if on_delete && matches!(settings.address.server, ServerSpec::Cluster { .. }) {
            // A key that moves to another node is deleted where it was.
            required.extend(require(&keys, "WATCH", &spec::EXISTS));
        }
    }
    if settings.watch_once {
        let start = format!("{}kvredis:watch-lease:", settings.prefix);
        let keys = TrialKeys {
            rule: format!("~{start}*"),
            key: format!("{start}{name}"),
        };
        required.extend(require(&keys, "WATCH_ONCE", &spec::LEASE));
    }
    required
}
