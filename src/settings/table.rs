//! Every setting in one entry: its name, its default, what it means, and how its text is read.
//!
//! Parsing, the warnings for unknown names, and the README's table all come from here.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Address, BucketLayout, Health, Pem, ProviderSettings, Secret, Settings, Tls, Wrong};
use super::{url, watch};

/// One setting, that of a link or of the provider (`T`).
pub struct Definition<T> {
    /// The name, in capitals.
    pub name: &'static str,
    /// The default in words.
    pub default: &'static str,
    /// What it means.
    pub meaning: &'static str,
    /// A link with a `URL` of its own does not take the provider's value.
    pub belongs_to_url: bool,
    /// Whether this text holds a password, and should not be in plain configuration.
    pub(super) holds_password: fn(&str) -> bool,
    /// Reads the text into the settings; answers what is worth a warning.
    pub(super) read: fn(&mut T, &str) -> Result<Option<String>, Wrong>,
}

const CONNECTION_TIMEOUT_MS: u64 = 3_000;
const RESPONSE_TIMEOUT_MS: u64 = 1_000;
const RECONNECT_MAX_DELAY_MS: u64 = 300;
const LONGEST_TIMEOUT_MS: u64 = 600_000;
/// A century: more is surely a slip, and Redis's clock could overflow.
const LONGEST_TTL_MS: u64 = 100 * 365 * 24 * 3_600_000;
const MAX_VALUE_BYTES: usize = 64 << 20;
/// Redis's own limit for a string.
const LARGEST_VALUE_BYTES: u64 = 512 << 20;
const MAX_BYTES_IN_FLIGHT: usize = 256 << 20;
const CACHE_MAX_BYTES: usize = 64 << 20;
const CACHE_TTL_MS: u64 = 30_000;

impl Default for Settings {
    fn default() -> Self {
        Self {
            address: Address::default(),
            password_file: None,
            tls: Tls::default(),
            read_from_replica: false,
            connection_timeout: Duration::from_millis(CONNECTION_TIMEOUT_MS),
            response_timeout: Duration::from_millis(RESPONSE_TIMEOUT_MS),
            retries: 3,
            reconnect_max_delay: Duration::from_millis(RECONNECT_MAX_DELAY_MS),
            own_url_required: false,
            share_connection: false,
            prefix: String::new(),
            layout: BucketLayout::PrefixNamed,
            buckets: None,
            read_only: false,
            ttl: None,
            scan_count: 1_000,
            max_in_flight: 1_024,
            max_waiting: 4_096,
            max_value_bytes: MAX_VALUE_BYTES,
            health: Health::Links,
            cache_max_entries: 0,
            cache_max_bytes: CACHE_MAX_BYTES,
            cache_ttl: Duration::from_millis(CACHE_TTL_MS),
            watch: Vec::new(),
            watch_bucket: "default".to_owned(),
            watch_configure_redis: false,
            watch_once: false,
        }
    }
}

impl Default for ProviderSettings {
    fn default() -> Self {
        Self {
            max_bytes_in_flight: MAX_BYTES_IN_FLIGHT,
        }
    }
}

/// An entry without the rarer parts; they follow as struct update.
const fn entry<T>(
    name: &'static str,
    default: &'static str,
    meaning: &'static str,
    read: fn(&mut T, &str) -> Result<Option<String>, Wrong>,
) -> Definition<T> {
    Definition {
        name,
        default,
        meaning,
        belongs_to_url: false,
        holds_password: |_| false,
        read,
    }
}

/// What a link can set. `URL` comes before what overrides parts of it.
pub const LINK_SETTINGS: &[Definition<Settings>] = &[
    Definition {
        holds_password: |text| url::parse(text).is_ok_and(|parsed| parsed.holds_password()),
        ..entry(
            "URL",
            "redis://127.0.0.1:6379",
            "what to connect to",
            |settings, text| {
                let parsed = url::parse(text)?;
                settings.address = parsed.address;
                Ok(parsed.wildcard.map(|wildcard| {
                    format!(
                        "{wildcard} is no address to connect to; it is taken as this machine, {}",
                        settings.address
                    )
                }))
            },
        )
    },
    Definition {
        belongs_to_url: true,
        ..entry(
            "USERNAME",
            "",
            "overrides the user in URL",
            |settings, text| {
                settings.address.username = Some(text.to_owned()).filter(|text| !text.is_empty());
                Ok(None)
            },
        )
    },
    Definition {
        belongs_to_url: true,
        holds_password: |text| !text.is_empty(),
        ..entry(
            "PASSWORD",
            "",
            "overrides the password in URL",
            |settings, text| {
                settings.address.password =
                    Some(Secret::from(text.to_owned())).filter(|_| !text.is_empty());
                Ok(None)
            },
        )
    },
    Definition {
        belongs_to_url: true,
        ..entry(
            "PASSWORD_FILE",
            "",
            "absolute path of a file that holds the password, read at every connect; when it \
             changes, the connection authenticates again",
            |settings, text| {
                settings.password_file = Some(absolute(text)?);
                Ok(None)
            },
        )
    },
    Definition {
        belongs_to_url: true,
        ..entry(
            "TLS_CA",
            "system roots",
            "the authorities that a server's certificate may be from: PEM text, or an absolute \
             path",
            |settings, text| {
                settings.tls.ca = Some(pem(text)?);
                Ok(None)
            },
        )
    },
    Definition {
        belongs_to_url: true,
        ..entry(
            "TLS_CERT",
            "",
            "the certificate to show to the server: PEM text, or an absolute path",
            |settings, text| {
                settings.tls.cert = Some(pem(text)?);
                Ok(None)
            },
        )
    },
    Definition {
        belongs_to_url: true,
        holds_password: |text| !text.starts_with('/'),
        ..entry(
            "TLS_KEY",
            "",
            "the key of TLS_CERT: PEM text, or an absolute path",
            |settings, text| {
                settings.tls.key = Some(pem(text)?);
                Ok(None)
            },
        )
    },
    entry(
        "READ_FROM",
        "primary",
        "replica: get, get-many and exists may ask replicas (cluster, sentinel), and may answer \
         what was there before the latest write",
        |settings, text| {
            settings.read_from_replica = match text.trim().to_ascii_lowercase().as_str() {
                "primary" => false,
                "replica" => true,
                _ => return Err(Wrong::expected("primary or replica")),
            };
            Ok(None)
        },
    ),
    entry(
        "BACKEND_CONNECTION_TIMEOUT_MS",
        "3000",
        "time limit for establishing a connection",
        |settings, text| {
            settings.connection_timeout = milliseconds(text, LONGEST_TIMEOUT_MS)?;
            Ok(None)
        },
    ),
    entry(
        "BACKEND_RESPONSE_TIMEOUT_MS",
        "1000",
        "time limit for one answer of Redis",
        |settings, text| {
            settings.response_timeout = milliseconds(text, LONGEST_TIMEOUT_MS)?;
            Ok(None)
        },
    ),
    entry(
        "BACKEND_RECONNECT_NUM_RETRIES",
        "3",
        "how often a safe operation is tried again after a broken connection",
        |settings, text| {
            settings.retries = number(text, 0, 1_000)?;
            Ok(None)
        },
    ),
    entry(
        "BACKEND_RECONNECT_MAX_DELAY_MS",
        "300",
        "longest pause between attempts to connect",
        |settings, text| {
            settings.reconnect_max_delay = milliseconds(text, LONGEST_TIMEOUT_MS)?;
            Ok(None)
        },
    ),
    entry(
        "DISABLE_DEFAULT_CONNECTION",
        "false",
        "a link without URL is an error instead of using the provider's URL or the default",
        |settings, text| {
            settings.own_url_required = boolean(text)?;
            Ok(None)
        },
    ),
    entry(
        "SHARE_CONNECTIONS_BY_URL",
        "false",
        "links with the same address, credentials and TLS settings share one connection",
        |settings, text| {
            settings.share_connection = boolean(text)?;
            Ok(None)
        },
    ),
    entry(
        "PREFIX",
        "",
        "text put before every key of the link",
        |settings, text| {
            settings.prefix = text.to_owned();
            Ok(None)
        },
    ),
    entry(
        "BUCKET_LAYOUT",
        "prefix-named",
        "how buckets share Redis's keys: prefix-named, prefix-all or flat",
        |settings, text| {
            settings.layout = match text.trim().to_ascii_lowercase().as_str() {
                "prefix-named" => BucketLayout::PrefixNamed,
                "prefix-all" => BucketLayout::PrefixAll,
                "flat" => BucketLayout::Flat,
                _ => return Err(Wrong::expected("prefix-named, prefix-all or flat")),
            };
            Ok(None)
        },
    ),
    entry(
        "BUCKETS",
        "any",
        "comma-separated names; any other bucket answers no-such-store",
        |settings, text| {
            let names: BTreeSet<String> = text.split(',').map(|n| n.trim().to_owned()).collect();
            if names.contains("") {
                return Err(Wrong::expected("comma-separated names of buckets"));
            }
            settings.buckets = Some(names);
            Ok(None)
        },
    ),
    entry(
        "READ_ONLY",
        "false",
        "every write answers access-denied, and reaches no Redis",
        |settings, text| {
            settings.read_only = boolean(text)?;
            Ok(None)
        },
    ),
    entry(
        "TTL_MS",
        "none",
        "keys that this link writes or creates expire after this long; increment of a key that \
         has a time to live leaves it",
        |settings, text| {
            settings.ttl = Some(milliseconds(text, LONGEST_TTL_MS)?);
            Ok(None)
        },
    ),
    entry(
        "SCAN_COUNT",
        "1000",
        "about how many keys list-keys answers in a page",
        |settings, text| {
            settings.scan_count = number(text, 1, 1_000_000)?;
            Ok(None)
        },
    ),
    entry(
        "MAX_IN_FLIGHT",
        "1024",
        "calls of the link that are with Redis at once; more wait their turn",
        |settings, text| {
            settings.max_in_flight = number(text, 1, 1_000_000)?;
            Ok(None)
        },
    ),
    entry(
        "MAX_WAITING",
        "4096",
        "calls of the link that may wait, for a turn or a connection; more are refused at once",
        |settings, text| {
            settings.max_waiting = number(text, 0, 1_000_000)?;
            Ok(None)
        },
    ),
    entry(
        "MAX_VALUE_BYTES",
        "67108864",
        "a larger value is refused, and reaches no Redis",
        |settings, text| {
            settings.max_value_bytes = number(text, 0, LARGEST_VALUE_BYTES)?;
            Ok(None)
        },
    ),
    entry(
        "HEALTH",
        "links",
        "links: the provider is unhealthy while a link is without its Redis for more than 10 s; \
         process: health says only that the process runs",
        |settings, text| {
            settings.health = match text.trim().to_ascii_lowercase().as_str() {
                "links" => Health::Links,
                "process" => Health::Process,
                _ => return Err(Wrong::expected("links or process")),
            };
            Ok(None)
        },
    ),
    entry(
        "CACHE_MAX_ENTRIES",
        "0",
        "how many reads are kept in memory; 0 keeps none; for example `10000`",
        |settings, text| {
            settings.cache_max_entries = number(text, 0, 100_000_000)?;
            Ok(None)
        },
    ),
    entry(
        "CACHE_MAX_BYTES",
        "67108864",
        "how many bytes the reads kept in memory may take, keys and administration included",
        |settings, text| {
            settings.cache_max_bytes = number(text, 1 << 10, 1 << 40)?;
            Ok(None)
        },
    ),
    entry(
        "CACHE_TTL_MS",
        "30000",
        "longest that a kept read is used",
        |settings, text| {
            settings.cache_ttl = milliseconds(text, LONGEST_TTL_MS)?;
            Ok(None)
        },
    ),
    entry(
        "WATCH",
        "none",
        "SET@key and DEL@key, separated by commas: what the component at the other end of a link \
         from the provider is told of",
        |settings, text| {
            settings.watch = watch::parse(text)?;
            Ok(None)
        },
    ),
    entry(
        "WATCH_BUCKET",
        "default",
        "the bucket that WATCH is about",
        |settings, text| {
            settings.watch_bucket = text.to_owned();
            Ok(None)
        },
    ),
    entry(
        "WATCH_CONFIGURE_REDIS",
        "false",
        "the provider may add missing flags to notify-keyspace-events itself",
        |settings, text| {
            settings.watch_configure_redis = boolean(text)?;
            Ok(None)
        },
    ),
    entry(
        "WATCH_ONCE",
        "false",
        "of several processes of the provider, one delivers, chosen by a lease in that Redis",
        |settings, text| {
            settings.watch_once = boolean(text)?;
            Ok(None)
        },
    ),
];

/// What the provider can set for the whole process.
pub const PROVIDER_SETTINGS: &[Definition<ProviderSettings>] = &[entry(
    "MAX_BYTES_IN_FLIGHT",
    "268435456",
    "parameters and results held for calls under way; a call that would exceed it waits its turn",
    |settings, text| {
        settings.max_bytes_in_flight = number(text, 1 << 20, 1 << 40)?;
        Ok(None)
    },
)];

/// A whole number within limits, in whichever type it is kept.
fn number<N: TryFrom<u64>>(text: &str, least: u64, most: u64) -> Result<N, Wrong> {
    text.trim()
        .parse::<u64>()
        .ok()
        .filter(|number| (least..=most).contains(number))
        .and_then(|number| N::try_from(number).ok())
        .ok_or_else(|| Wrong::expected(format!("a whole number from {least} to {most}")))
}

fn milliseconds(text: &str, most: u64) -> Result<Duration, Wrong> {
    number(text, 1, most)
        .map(Duration::from_millis)
        .map_err(|_| Wrong::expected(format!("a whole number of milliseconds from 1 to {most}")))
}

fn absolute(text: &str) -> Result<PathBuf, Wrong> {
    let path = Path::new(text.trim());
    if path.is_absolute() {
        Ok(path.to_owned())
    } else {
        Err(Wrong::expected("an absolute path"))
    }
}

fn pem(text: &str) -> Result<Pem, Wrong> {
    if text.contains("-----BEGIN") {
        return Ok(Pem::Text(Secret::from(text.to_owned())));
    }
    absolute(text)
        .map(Pem::File)
        .map_err(|_| Wrong::expected("PEM text (-----BEGIN …) or the absolute path of a PEM file"))
}

/// A value that is present but empty is true, as users of flags expect.
fn boolean(text: &str) -> Result<bool, Wrong> {
    match text.trim().to_ascii_lowercase().as_str() {
        "" | "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(Wrong::expected("true, false, 1 or 0")),
    }
}
