//! The settings of a link as typed values, with their defaults. `definitions` describes each; a test
//! compares the defaults.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use crate::settings::address::Address;
use crate::settings::tls::Tls;
use crate::settings::watch::WatchPattern;

const CONNECTION_TIMEOUT_MS: u64 = 3_000;
const RESPONSE_TIMEOUT_MS: u64 = 1_000;
const RECONNECT_MAX_DELAY_MS: u64 = 300;
const MAX_VALUE_BYTES: usize = 64 << 20;
const CACHE_MAX_BYTES: usize = 64 << 20;
const CACHE_TTL_MS: u64 = 30_000;

/// The mapping of a link's buckets to keys of Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BucketLayout {
    /// The default bucket holds plain keys, any other bucket `b` holds `b:key`.
    PrefixNamed,
    /// Every bucket `b` holds `b:key`.
    PrefixAll,
    /// Every bucket holds plain keys.
    Flat,
}

/// The effect of a link on the provider's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HealthPolicy {
    /// The provider is unhealthy while the link is disconnected.
    Links,
    /// The provider is healthy while its process runs.
    Process,
}

/// The settings of a link; each field has the name of the setting that it is read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// `URL`, `USERNAME` and `PASSWORD`.
    pub(crate) address: Address,
    /// `PASSWORD_FILE`.
    pub(crate) password_file: Option<PathBuf>,
    /// `TLS_CA`, `TLS_CERT` and `TLS_KEY`.
    pub(crate) tls: Tls,
    /// `READ_FROM` is `replica`.
    pub(crate) read_from_replica: bool,
    /// `BACKEND_CONNECTION_TIMEOUT_MS`.
    pub(crate) connection_timeout: Duration,
    /// `BACKEND_RESPONSE_TIMEOUT_MS`.
    pub(crate) response_timeout: Duration,
    /// `BACKEND_RECONNECT_NUM_RETRIES`.
    pub(crate) retries: u32,
    /// `BACKEND_RECONNECT_MAX_DELAY_MS`.
    pub(crate) reconnect_max_delay: Duration,
    /// `DISABLE_DEFAULT_CONNECTION`.
    pub(crate) require_own_url: bool,
    /// `SHARE_CONNECTIONS_BY_URL`.
    pub(crate) share_connection: bool,
    /// `PREFIX`.
    pub(crate) prefix: String,
    /// `BUCKET_LAYOUT`.
    pub(crate) layout: BucketLayout,
    /// `BUCKETS`; `None` allows any.
    pub(crate) buckets: Option<BTreeSet<String>>,
    /// `READ_ONLY`.
    pub(crate) read_only: bool,
    /// `TTL_MS`.
    pub(crate) ttl: Option<Duration>,
    /// `SCAN_COUNT`, in keys.
    pub(crate) scan_count: u32,
    /// `MAX_IN_FLIGHT`, in calls.
    pub(crate) max_in_flight: usize,
    /// `MAX_WAITING`, in calls.
    pub(crate) max_waiting: usize,
    /// `MAX_WAIT_MS`; `None` waits as long as the call may take.
    pub(crate) max_wait: Option<Duration>,
    /// `MAX_VALUE_BYTES`.
    pub(crate) max_value_bytes: usize,
    /// `HEALTH`.
    pub(crate) health: HealthPolicy,
    /// `CACHE_MAX_ENTRIES`; 0 disables the cache.
    pub(crate) cache_max_entries: usize,
    /// `CACHE_MAX_BYTES`.
    pub(crate) cache_max_bytes: usize,
    /// `CACHE_TTL_MS`.
    pub(crate) cache_ttl: Duration,
    /// `WATCH`.
    pub(crate) watch: Vec<WatchPattern>,
    /// `WATCH_BUCKET`.
    pub(crate) watch_bucket: String,
    /// `WATCH_CONFIGURE_REDIS`.
    pub(crate) watch_configure_redis: bool,
    /// `WATCH_ONCE`.
    pub(crate) watch_once: bool,
}

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
            require_own_url: false,
            share_connection: false,
            prefix: String::new(),
            layout: BucketLayout::PrefixNamed,
            buckets: None,
            read_only: false,
            ttl: None,
            scan_count: 1_000,
            max_in_flight: 1_024,
            max_waiting: 4_096,
            max_wait: None,
            max_value_bytes: MAX_VALUE_BYTES,
            health: HealthPolicy::Links,
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
