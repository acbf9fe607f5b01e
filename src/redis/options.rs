//! The options of a connection: the server, credentials, TLS, time limits and the cache's limits.

use std::path::PathBuf;
use std::time::Duration;

use crate::cache::entries::CacheLimits;
use crate::settings::address::Address;
use crate::settings::link_settings::Settings;
use crate::settings::tls::Tls;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ConnectOptions {
    /// The server, the credentials and the database.
    pub(crate) address: Address,
    pub(crate) password_file: Option<PathBuf>,
    /// Certificates and keys; only an address with TLS uses them.
    pub(crate) tls: Tls,
    pub(crate) read_from_replica: bool,
    pub(crate) connection_timeout: Duration,
    /// Time limit for one reply, also for that of a health check.
    pub(crate) response_timeout: Duration,
    /// Longest pause between attempts to connect.
    pub(crate) reconnect_max_delay: Duration,
    /// `None` disables the cache.
    pub(crate) cache: Option<CacheLimits>,
}

impl ConnectOptions {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            address: settings.address.clone(),
            password_file: settings.password_file.clone(),
            tls: settings.tls.clone(),
            read_from_replica: settings.read_from_replica,
            connection_timeout: settings.connection_timeout,
            response_timeout: settings.response_timeout,
            reconnect_max_delay: settings.reconnect_max_delay,
            cache: (settings.cache_max_entries > 0).then_some(CacheLimits {
                entries: settings.cache_max_entries,
                bytes: settings.cache_max_bytes,
                ttl: settings.cache_ttl,
            }),
        }
    }

    /// The TLS settings, if the address uses TLS.
    pub(crate) fn tls(&self) -> Option<&Tls> {
        self.address.tls.then_some(&self.tls)
    }
}
