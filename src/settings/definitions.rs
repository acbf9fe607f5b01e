//! The definitions of all settings: name, default, meaning and parser of each.
//!
//! The parser, the warnings about unknown names, the README's table and the JSON schema all derive
//! from here.

use std::collections::BTreeSet;

use crate::settings::definition::{Secrecy, SettingDefinition};
use crate::settings::error::InvalidValue;
use crate::settings::link_settings::{BucketLayout, HealthPolicy, Settings};
use crate::settings::provider_settings::ProviderSettings;
use crate::settings::secret::Secret;
use crate::settings::value_parser::ValueParser;
use crate::settings::{url, watch};

const MAX_TIMEOUT_MS: u64 = 600_000;
/// A century: a longer time is surely a mistake, and Redis's clock could overflow.
const MAX_TTL_MS: u64 = 100 * 365 * 24 * 3_600_000;
/// Redis's own limit for a string.
const MAX_STRING_BYTES: u64 = 512 << 20;

/// The settings of a link. `URL` comes before the settings that override parts of it.
pub(crate) const LINK_SETTINGS: &[SettingDefinition<Settings>] = &[
    SettingDefinition {
        example: "redis://10.0.0.7:6379/1",
        secrecy: Secrecy::MayContainPassword,
        contains_password: |text| url::parse(text).is_ok_and(|parsed| parsed.contains_password()),
        ..SettingDefinition::new(
            "URL",
            "redis://127.0.0.1:6379",
            "address of a server, a cluster or sentinels",
            ValueParser::Text {
                pattern: url::PATTERN,
                parse: |settings, text| {
                    let parsed = url::parse(text)?;
                    settings.address = parsed.address;
                    Ok(parsed.wildcard.map(|wildcard| {
                        format!(
                            "{wildcard} is not an address to connect to; using this machine, {}",
                            settings.address
                        )
                    }))
                },
            },
        )
    },
    SettingDefinition {
        example: "orders",
        belongs_to_url: true,
        ..SettingDefinition::new(
            "USERNAME",
            "",
            "overrides the user name in URL",
            ValueParser::AnyText(|settings, text| {
                settings.address.username = Some(text.to_owned()).filter(|text| !text.is_empty());
            }),
        )
    },
    SettingDefinition {
        secrecy: Secrecy::Secret,
        belongs_to_url: true,
        contains_password: |text| !text.is_empty(),
        ..SettingDefinition::new(
            "PASSWORD",
            "",
            "overrides the password in URL",
            ValueParser::AnyText(|settings, text| {
                settings.address.password =
                    Some(Secret::from(text.to_owned())).filter(|_| !text.is_empty());
            }),
        )
    },
    SettingDefinition {
        example: "/run/secrets/redis-password",
        belongs_to_url: true,
        // A text that is not a path may be the password itself, set under the wrong name.
        contains_password: |text| !text.trim_start().starts_with('/'),
        ..SettingDefinition::new(
            "PASSWORD_FILE",
            "",
            "absolute path of a file that contains the password; read at every connect, and \
             watched: a changed password is used without reconnecting",
            ValueParser::File(|settings, path| settings.password_file = Some(path)),
        )
    },
    SettingDefinition {
        example: "/etc/redis/ca.pem",
        belongs_to_url: true,
        shows_invalid: false,
        ..SettingDefinition::new(
            "TLS_CA",
            "system roots",
            "trusted certificate authorities: PEM text, or an absolute path",
            ValueParser::Pem(|settings, pem| settings.tls.ca = Some(pem)),
        )
    },
    SettingDefinition {
        example: "/etc/redis/client.pem",
        belongs_to_url: true,
        shows_invalid: false,
        ..SettingDefinition::new(
            "TLS_CERT",
            "",
            "client certificate: PEM text, or an absolute path",
            ValueParser::Pem(|settings, pem| settings.tls.cert = Some(pem)),
        )
    },
    SettingDefinition {
        example: "/etc/redis/client.key",
        secrecy: Secrecy::Secret,
        belongs_to_url: true,
        contains_password: |text| !text.starts_with('/'),
        ..SettingDefinition::new(
            "TLS_KEY",
            "",
            "private key of TLS_CERT: PEM text, or an absolute path",
            ValueParser::Pem(|settings, pem| settings.tls.key = Some(pem)),
        )
    },
    SettingDefinition::new(
        "READ_FROM",
        "primary",
        "replica: get, get-many and exists may read from replicas (cluster, sentinel) and return \
         stale data",
        ValueParser::Choice {
            words: &["primary", "replica"],
            set: |settings, word| settings.read_from_replica = word == "replica",
        },
    ),
    SettingDefinition::new(
        "BACKEND_CONNECTION_TIMEOUT_MS",
        "3000",
        "timeout for connecting: DNS, TCP, TLS and authentication together",
        ValueParser::Milliseconds {
            max: MAX_TIMEOUT_MS,
            set: |settings, limit| settings.connection_timeout = limit,
        },
    ),
    SettingDefinition::new(
        "BACKEND_RESPONSE_TIMEOUT_MS",
        "1000",
        "timeout for one reply of Redis",
        ValueParser::Milliseconds {
            max: MAX_TIMEOUT_MS,
            set: |settings, limit| settings.response_timeout = limit,
        },
    ),
    SettingDefinition::new(
        "BACKEND_RECONNECT_NUM_RETRIES",
        "3",
        "maximum number of retries of an idempotent operation after a lost connection",
        number(0, 1_000, |settings, retries| {
            settings.retries = saturating_u32(retries)
        }),
    ),
    SettingDefinition::new(
        "BACKEND_RECONNECT_MAX_DELAY_MS",
        "300",
        "maximum backoff between connection attempts",
        ValueParser::Milliseconds {
            max: MAX_TIMEOUT_MS,
            set: |settings, delay| settings.reconnect_max_delay = delay,
        },
    ),
    SettingDefinition::new(
        "DISABLE_DEFAULT_CONNECTION",
        "false",
        "a link without its own URL is an error; it does not fall back to the provider's URL or the \
         default",
        ValueParser::Boolean(|settings, on| settings.require_own_url = on),
    ),
    SettingDefinition::new(
        "SHARE_CONNECTIONS_BY_URL",
        "false",
        "links with equal connection settings share one connection",
        ValueParser::Boolean(|settings, on| settings.share_connection = on),
    ),
    SettingDefinition {
        example: "orders/",
        ..SettingDefinition::new(
            "PREFIX",
            "",
            "prefix of every key of the link",
            ValueParser::AnyText(|settings, text| settings.prefix = text.to_owned()),
        )
    },
    SettingDefinition::new(
        "BUCKET_LAYOUT",
        "prefix-named",
        "mapping of buckets to keys: prefix-named, prefix-all or flat",
        ValueParser::Choice {
            words: &["prefix-named", "prefix-all", "flat"],
            set: |settings, word| {
                settings.layout = match word {
                    "prefix-all" => BucketLayout::PrefixAll,
                    "flat" => BucketLayout::Flat,
                    _ => BucketLayout::PrefixNamed,
                }
            },
        },
    ),
    SettingDefinition {
        example: "carts, default",
        ..SettingDefinition::new(
            "BUCKETS",
            "any",
            "comma-separated names of the allowed buckets; any other returns no-such-store",
            ValueParser::Text {
                pattern: r"^\s*[^,\s][^,]*(,\s*[^,\s][^,]*)*$",
                parse: |settings, text| {
                    let names: BTreeSet<String> =
                        text.split(',').map(|name| name.trim().to_owned()).collect();
                    if names.contains("") {
                        return Err(InvalidValue::expected(
                            "names of buckets, separated by commas",
                        ));
                    }
                    settings.buckets = Some(names);
                    Ok(None)
                },
            },
        )
    },
    SettingDefinition::new(
        "READ_ONLY",
        "false",
        "writes return access-denied and are not sent to Redis",
        ValueParser::Boolean(|settings, on| settings.read_only = on),
    ),
    SettingDefinition {
        example: "3600000",
        ..SettingDefinition::new(
            "TTL_MS",
            "none",
            "expiration of keys that the link writes or creates; increment does not extend an \
             existing one",
            ValueParser::Milliseconds {
                max: MAX_TTL_MS,
                set: |settings, ttl| settings.ttl = Some(ttl),
            },
        )
    },
    SettingDefinition::new(
        "SCAN_COUNT",
        "1000",
        "approximate number of keys in a page of list-keys",
        number(1, 1_000_000, |settings, keys| {
            settings.scan_count = saturating_u32(keys)
        }),
    ),
    SettingDefinition::new(
        "MAX_IN_FLIGHT",
        "1024",
        "maximum number of concurrent calls per link; further calls are queued",
        number(1, 1_000_000, |settings, calls| {
            settings.max_in_flight = saturating_usize(calls)
        }),
    ),
    SettingDefinition::new(
        "MAX_WAITING",
        "4096",
        "maximum number of queued calls per link; further calls fail at once",
        number(0, 1_000_000, |settings, calls| {
            settings.max_waiting = saturating_usize(calls)
        }),
    ),
    SettingDefinition {
        example: "250",
        ..SettingDefinition::new(
            "MAX_WAIT_MS",
            "the call's time",
            "longest wait of a call for a connection or a free slot; a short one makes calls fail \
             fast while Redis is away",
            ValueParser::Milliseconds {
                max: MAX_TIMEOUT_MS,
                set: |settings, wait| settings.max_wait = Some(wait),
            },
        )
    },
    SettingDefinition::new(
        "MAX_VALUE_BYTES",
        "67108864",
        "maximum size of a value; larger values are rejected and not sent to Redis",
        number(0, MAX_STRING_BYTES, |settings, bytes| {
            settings.max_value_bytes = saturating_usize(bytes)
        }),
    ),
    SettingDefinition::new(
        "HEALTH",
        "links",
        "links: unhealthy while a link has had no connection for more than 10 s; process: healthy \
         while the process runs",
        ValueParser::Choice {
            words: &["links", "process"],
            set: |settings, word| {
                settings.health = match word {
                    "process" => HealthPolicy::Process,
                    _ => HealthPolicy::Links,
                }
            },
        },
    ),
    SettingDefinition {
        example: "10000",
        ..SettingDefinition::new(
            "CACHE_MAX_ENTRIES",
            "0",
            "maximum number of cached keys; 0 disables the cache",
            number(0, 100_000_000, |settings, entries| {
                settings.cache_max_entries = saturating_usize(entries)
            }),
        )
    },
    SettingDefinition::new(
        "CACHE_MAX_BYTES",
        "67108864",
        "maximum size of the cache, including keys and overhead",
        number(1 << 10, 1 << 40, |settings, bytes| {
            settings.cache_max_bytes = saturating_usize(bytes)
        }),
    ),
    SettingDefinition::new(
        "CACHE_TTL_MS",
        "30000",
        "maximum age of a cache entry",
        ValueParser::Milliseconds {
            max: MAX_TTL_MS,
            set: |settings, ttl| settings.cache_ttl = ttl,
        },
    ),
    SettingDefinition {
        example: "SET@orders:*, DEL@orders:*",
        ..SettingDefinition::new(
            "WATCH",
            "none",
            "changes to deliver over a link from the provider to a component: SET@pattern and \
             DEL@pattern, separated by commas",
            ValueParser::Text {
                pattern: watch::PATTERN,
                parse: |settings, text| {
                    settings.watch = watch::parse(text)?;
                    Ok(None)
                },
            },
        )
    },
    SettingDefinition::new(
        "WATCH_BUCKET",
        "default",
        "bucket of the keys in WATCH",
        ValueParser::AnyText(|settings, text| settings.watch_bucket = text.to_owned()),
    ),
    SettingDefinition::new(
        "WATCH_CONFIGURE_REDIS",
        "false",
        "allows the provider to add missing flags to notify-keyspace-events",
        ValueParser::Boolean(|settings, on| settings.watch_configure_redis = on),
    ),
    SettingDefinition::new(
        "WATCH_ONCE",
        "false",
        "only one instance of the provider, elected by a lease in Redis, delivers",
        ValueParser::Boolean(|settings, on| settings.watch_once = on),
    ),
];

/// The settings of the provider's process.
pub(crate) const PROVIDER_SETTINGS: &[SettingDefinition<ProviderSettings>] = &[
    SettingDefinition::new(
        "MAX_BYTES_IN_FLIGHT",
        "268435456",
        "memory for parameters and results of in-flight calls; a call that would exceed it is queued",
        number(1 << 20, 1 << 40, |settings, bytes| {
            settings.max_bytes_in_flight = saturating_usize(bytes)
        }),
    ),
];

const fn number<T>(min: u64, max: u64, set: fn(&mut T, u64)) -> ValueParser<T> {
    ValueParser::Number { min, max, set }
}

fn saturating_u32(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn saturating_usize(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
