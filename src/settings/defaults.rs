//! What holds where nothing is set. `table` has the same in words; a test compares the two.

use std::time::Duration;

use crate::settings::address::Address;
use crate::settings::{BucketLayout, Health, ProviderSettings, Settings, Tls};

const CONNECTION_TIMEOUT_MS: u64 = 3_000;
const RESPONSE_TIMEOUT_MS: u64 = 1_000;
const RECONNECT_MAX_DELAY_MS: u64 = 300;
const MAX_VALUE_BYTES: usize = 64 << 20;
const CACHE_MAX_BYTES: usize = 64 << 20;
const CACHE_TTL_MS: u64 = 30_000;
const MAX_BYTES_IN_FLIGHT: usize = 256 << 20;

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
