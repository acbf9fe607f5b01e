//! Every setting in one entry: its name, its default, what it means, and how its text is read.
//!
//! The parser, the warnings for unknown names, the README's table and the JSON schema all come from
//! here. What an entry has is in `definition`, the kinds of values are in `value`, what holds
//! without a setting is in `defaults`.

use std::collections::BTreeSet;

use crate::settings::definition::{Secrecy, SettingDefinition};
use crate::settings::value::Value;
use crate::settings::{BucketLayout, Health, InvalidValue, ProviderSettings, Secret, Settings};
use crate::settings::{url, watch};

const LONGEST_TIMEOUT_MS: u64 = 600_000;
/// A century: more is surely a slip, and Redis's clock could overflow.
const LONGEST_TTL_MS: u64 = 100 * 365 * 24 * 3_600_000;
/// Redis's own limit for a string.
const LARGEST_VALUE_BYTES: u64 = 512 << 20;

/// What a link can set. `URL` comes before what overrides parts of it.
pub(crate) const LINK_SETTINGS: &[SettingDefinition<Settings>] = &[
    SettingDefinition {
        example: "redis://10.0.0.7:6379/1",
        secrecy: Secrecy::MayHoldPassword,
        holds_password: |text| url::parse(text).is_ok_and(|parsed| parsed.holds_password()),
        ..SettingDefinition::new(
            "URL",
            "redis://127.0.0.1:6379",
            "what to connect to: one server, a cluster or sentinels",
            Value::Text {
                pattern: url::PATTERN,
                read: |settings, text| {
                    let parsed = url::parse(text)?;
                    settings.address = parsed.address;
                    Ok(parsed.wildcard.map(|wildcard| {
                        format!(
                            "{wildcard} is no address to connect to; it is taken as this machine, \
                             {}",
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
            "overrides the user in URL",
            Value::AnyText(|settings, text| {
                settings.address.username = Some(text.to_owned()).filter(|text| !text.is_empty());
            }),
        )
    },
    SettingDefinition {
        secrecy: Secrecy::Secret,
        belongs_to_url: true,
        holds_password: |text| !text.is_empty(),
        ..SettingDefinition::new(
            "PASSWORD",
            "",
            "overrides the password in URL",
            Value::AnyText(|settings, text| {
                settings.address.password =
                    Some(Secret::from(text.to_owned())).filter(|_| !text.is_empty());
            }),
        )
    },
    SettingDefinition {
        example: "/run/secrets/redis-password",
        belongs_to_url: true,
        // The password itself, where the path of its file belongs.
        holds_password: |text| !text.trim_start().starts_with('/'),
        ..SettingDefinition::new(
            "PASSWORD_FILE",
            "",
            "absolute path of a file that holds the password, read at every connect; when it \
             changes, the connection authenticates again",
            Value::File(|settings, path| settings.password_file = Some(path)),
        )
    },
    SettingDefinition {
        example: "/etc/redis/ca.pem",
        belongs_to_url: true,
        ..SettingDefinition::new(
            "TLS_CA",
            "system roots",
            "the authorities that a server's certificate may be from: PEM text, or an absolute \
             path",
            Value::Pem(|settings, pem| settings.tls.ca = Some(pem)),
        )
    },
    SettingDefinition {
        example: "/etc/redis/client.pem",
        belongs_to_url: true,
        ..SettingDefinition::new(
            "TLS_CERT",
            "",
            "the certificate to show to the server: PEM text, or an absolute path",
            Value::Pem(|settings, pem| settings.tls.cert = Some(pem)),
        )
    },
    SettingDefinition {
        example: "/etc/redis/client.key",
        secrecy: Secrecy::Secret,
        belongs_to_url: true,
        holds_password: |text| !text.starts_with('/'),
        ..SettingDefinition::new(
            "TLS_KEY",
            "",
            "the key of TLS_CERT: PEM text, or an absolute path",
            Value::Pem(|settings, pem| settings.tls.key = Some(pem)),
        )
    },
    SettingDefinition::new(
        "READ_FROM",
        "primary",
        "replica: get, get-many and exists may ask replicas (cluster, sentinel), and may answer \
         what was there before the latest write",
        Value::Choice {
            words: &["primary", "replica"],
            set: |settings, word| settings.read_from_replica = word == "replica",
        },
    ),
    SettingDefinition::new(
        "BACKEND_CONNECTION_TIMEOUT_MS",
        "3000",
        "time limit for establishing a connection",
        Value::Milliseconds {
            most: LONGEST_TIMEOUT_MS,
            set: |settings, limit| settings.connection_timeout = limit,
        },
    ),
    SettingDefinition::new(
        "BACKEND_RESPONSE_TIMEOUT_MS",
        "1000",
        "time limit for one answer of Redis",
        Value::Milliseconds {
            most: LONGEST_TIMEOUT_MS,
            set: |settings, limit| settings.response_timeout = limit,
        },
    ),
    SettingDefinition::new(
        "BACKEND_RECONNECT_NUM_RETRIES",
        "3",
        "how often a safe operation is tried again after a broken connection",
        number(0, 1_000, |settings, retries| {
            settings.retries = small(retries)
        }),
    ),
    SettingDefinition::new(
        "BACKEND_RECONNECT_MAX_DELAY_MS",
        "300",
        "longest pause between attempts to connect",
        Value::Milliseconds {
            most: LONGEST_TIMEOUT_MS,
            set: |settings, delay| settings.reconnect_max_delay = delay,
        },
    ),
    SettingDefinition::new(
        "DISABLE_DEFAULT_CONNECTION",
        "false",
        "a link without URL is an error instead of using the provider's URL or the default",
        Value::Boolean(|settings, on| settings.own_url_required = on),
    ),
    SettingDefinition::new(
        "SHARE_CONNECTIONS_BY_URL",
        "false",
        "links with the same address, credentials and TLS settings share one connection",
        Value::Boolean(|settings, on| settings.share_connection = on),
    ),
    SettingDefinition {
        example: "orders/",
        ..SettingDefinition::new(
            "PREFIX",
            "",
            "text put before every key of the link",
            Value::AnyText(|settings, text| settings.prefix = text.to_owned()),
        )
    },
    SettingDefinition::new(
        "BUCKET_LAYOUT",
        "prefix-named",
        "how buckets share Redis's keys: prefix-named, prefix-all or flat",
        Value::Choice {
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
            "comma-separated names; any other bucket answers no-such-store",
            Value::Text {
                pattern: r"^\s*[^,\s][^,]*(,\s*[^,\s][^,]*)*$",
                read: |settings, text| {
                    let names: BTreeSet<String> =
                        text.split(',').map(|name| name.trim().to_owned()).collect();
                    if names.contains("") {
                        return Err(InvalidValue::expected("comma-separated names of buckets"));
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
        "every write answers access-denied, and reaches no Redis",
        Value::Boolean(|settings, on| settings.read_only = on),
    ),
    SettingDefinition {
        example: "3600000",
        ..SettingDefinition::new(
            "TTL_MS",
            "none",
            "keys that this link writes or creates expire after this long; increment of a key \
             that has a time to live leaves it",
            Value::Milliseconds {
                most: LONGEST_TTL_MS,
                set: |settings, ttl| settings.ttl = Some(ttl),
            },
        )
    },
    SettingDefinition::new(
        "SCAN_COUNT",
        "1000",
        "about how many keys list-keys answers in a page",
        number(1, 1_000_000, |settings, keys| {
            settings.scan_count = small(keys)
        }),
    ),
    SettingDefinition::new(
        "MAX_IN_FLIGHT",
        "1024",
        "calls of the link that are with Redis at once; more wait their turn",
        number(1, 1_000_000, |settings, calls| {
            settings.max_in_flight = count(calls)
        }),
    ),
    SettingDefinition::new(
        "MAX_WAITING",
        "4096",
        "calls of the link that may wait, for a turn or a connection; more are refused at once",
        number(0, 1_000_000, |settings, calls| {
            settings.max_waiting = count(calls)
        }),
    ),
    SettingDefinition::new(
        "MAX_VALUE_BYTES",
        "67108864",
        "a larger value is refused, and reaches no Redis",
        number(0, LARGEST_VALUE_BYTES, |settings, bytes| {
            settings.max_value_bytes = count(bytes)
        }),
    ),
    SettingDefinition::new(
        "HEALTH",
        "links",
        "links: the provider is unhealthy while a link is without its Redis for more than 10 s; \
         process: health says only that the process runs",
        Value::Choice {
            words: &["links", "process"],
            set: |settings, word| {
                settings.health = match word {
                    "process" => Health::Process,
                    _ => Health::Links,
                }
            },
        },
    ),
    SettingDefinition {
        example: "10000",
        ..SettingDefinition::new(
            "CACHE_MAX_ENTRIES",
            "0",
            "how many reads are kept in memory; 0 keeps none",
            number(0, 100_000_000, |settings, entries| {
                settings.cache_max_entries = count(entries)
            }),
        )
    },
    SettingDefinition::new(
        "CACHE_MAX_BYTES",
        "67108864",
        "how many bytes the reads kept in memory may take, keys and administration included",
        number(1 << 10, 1 << 40, |settings, bytes| {
            settings.cache_max_bytes = count(bytes)
        }),
    ),
    SettingDefinition::new(
        "CACHE_TTL_MS",
        "30000",
        "longest that a kept read is used",
        Value::Milliseconds {
            most: LONGEST_TTL_MS,
            set: |settings, age| settings.cache_ttl = age,
        },
    ),
    SettingDefinition {
        example: "SET@orders:*, DEL@orders:*",
        ..SettingDefinition::new(
            "WATCH",
            "none",
            "SET@key and DEL@key, separated by commas: what the component at the other end of a \
             link from the provider is told of",
            Value::Text {
                pattern: watch::PATTERN,
                read: |settings, text| {
                    settings.watch = watch::parse(text)?;
                    Ok(None)
                },
            },
        )
    },
    SettingDefinition::new(
        "WATCH_BUCKET",
        "default",
        "the bucket that WATCH is about",
        Value::AnyText(|settings, text| settings.watch_bucket = text.to_owned()),
    ),
    SettingDefinition::new(
        "WATCH_CONFIGURE_REDIS",
        "false",
        "the provider may add missing flags to notify-keyspace-events itself",
        Value::Boolean(|settings, on| settings.watch_configure_redis = on),
    ),
    SettingDefinition::new(
        "WATCH_ONCE",
        "false",
        "of several processes of the provider, one delivers, chosen by a lease in that Redis",
        Value::Boolean(|settings, on| settings.watch_once = on),
    ),
];

/// What the provider can set for the whole process.
pub(crate) const PROVIDER_SETTINGS: &[SettingDefinition<ProviderSettings>] = &[
    SettingDefinition::new(
        "MAX_BYTES_IN_FLIGHT",
        "268435456",
        "parameters and results held for calls under way; a call that would exceed it waits its turn",
        number(1 << 20, 1 << 40, |settings, bytes| {
            settings.max_bytes_in_flight = count(bytes)
        }),
    ),
];

const fn number<T>(least: u64, most: u64, set: fn(&mut T, u64)) -> Value<T> {
    Value::Number { least, most, set }
}

fn small(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn count(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
