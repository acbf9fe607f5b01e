//! What a connection needs to know: the server, credentials, TLS, time limits and the cache's limits.

use std::path::PathBuf;
use std::time::Duration;

use crate::cache::entries::CacheLimits;
use crate::settings::address::Address;
use crate::settings::link_settings::Settings;
use crate::settings::tls::Tls;

/// What to connect to, and how long to try.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ConnectOptions {
    /// The server, the credentials and the database.
    pub(crate) address: Address,
    /// The file that holds the password.
    pub(crate) password_file: Option<PathBuf>,
    /// Certificates and keys; only an address with TLS uses them.
    pub(crate) tls: Tls,
    /// Whether reads may go to replicas.
    pub(crate) read_from_replica: bool,
    /// Time limit for establishing a connection.
    pub(crate) connection_timeout: Duration,
    /// Time limit for one answer, also for the question whether Redis still answers at all.
    pub(crate) response_timeout: Duration,
    /// Longest pause between attempts to connect.
    pub(crate) reconnect_max_delay: Duration,
    /// How much of what was read is kept, if anything.
    pub(crate) cache: Option<CacheLimits>,
}

impl ConnectOptions {
    /// What a link's settings ask for.
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

    /// The TLS settings, where TLS is spoken.
    pub(crate) fn tls(&self) -> Option<&Tls> {
        self.address.tls.then_some(&self.tls)
    }
}
