//! The address of a Redis with its credentials. `url` parses it.

use std::fmt;
use std::path::PathBuf;

use crate::settings::secret::Secret;

/// The default ports.
pub(crate) const REDIS_PORT: u16 = 6379;
pub(crate) const SENTINEL_PORT: u16 = 26379;

/// The address of a Redis, with credentials and database.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Address {
    pub(crate) server: ServerSpec,
    pub(crate) tls: bool,
    /// The ACL user; `None` is Redis's user `default`.
    pub(crate) username: Option<String>,
    pub(crate) password: Option<Secret>,
    pub(crate) database: u32,
}

/// The server or servers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ServerSpec {
    Tcp(Endpoint),
    Unix {
        path: PathBuf,
    },
    /// A Redis Cluster, which is discovered from these nodes.
    Cluster {
        seeds: Vec<Endpoint>,
    },
    /// The primary that these sentinels report.
    Sentinel(Sentinels),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Endpoint {
    /// A host name or an IP address (an IPv6 address without brackets).
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// The sentinels of a service, and their credentials.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Sentinels {
    pub(crate) endpoints: Vec<Endpoint>,
    /// The name of the primary, in the sentinels' configuration.
    pub(crate) service: String,
    /// The ACL user of the sentinels, not of Redis.
    pub(crate) username: Option<String>,
    pub(crate) password: Option<Secret>,
}

impl Default for Address {
    fn default() -> Self {
        Self {
            server: ServerSpec::Tcp(Endpoint {
                host: "127.0.0.1".to_owned(),
                port: REDIS_PORT,
            }),
            tls: false,
            username: None,
            password: None,
            database: 0,
        }
    }
}

impl Address {
    /// Returns true if the address leads to replicas, which may serve reads.
    pub(crate) fn has_replicas(&self) -> bool {
        matches!(
            self.server,
            ServerSpec::Cluster { .. } | ServerSpec::Sentinel(_)
        )
    }

    /// The endpoint that represents the address where only one can, as in telemetry.
    pub(crate) fn first_endpoint(&self) -> Option<&Endpoint> {
        match &self.server {
            ServerSpec::Tcp(endpoint) => Some(endpoint),
            ServerSpec::Unix { .. } => None,
            ServerSpec::Cluster { seeds } => seeds.first(),
            ServerSpec::Sentinel(sentinels) => sentinels.endpoints.first(),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Without credentials; a password is sometimes in the place of the user.
impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Address")
            .field("server", &self.server)
            .field("tls", &self.tls)
            .field("database", &self.database)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Sentinels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sentinels")
            .field("endpoints", &self.endpoints)
            .field("service", &self.service)
            .finish_non_exhaustive()
    }
}

/// Without credentials, for logs and errors.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "rediss" } else { "redis" };
        match &self.server {
            ServerSpec::Tcp(endpoint) => write!(f, "{scheme}://{endpoint}")?,
            ServerSpec::Unix { path } => write!(f, "redis+unix://{}", path.display())?,
            ServerSpec::Cluster { seeds } => {
                write!(f, "{scheme}-cluster://{}", Joined(seeds))?;
            }
            ServerSpec::Sentinel(sentinels) => write!(
                f,
                "{scheme}-sentinel://{} (service {})",
                Joined(&sentinels.endpoints),
                sentinels.service
            )?,
        }
        match (&self.server, self.database) {
            (_, 0) => Ok(()),
            (ServerSpec::Unix { .. }, database) => write!(f, "?db={database}"),
            (_, database) => write!(f, "/{database}"),
        }
    }
}

struct Joined<'a>(&'a [Endpoint]);

impl fmt::Display for Joined<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, endpoint) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{endpoint}")?;
        }
        Ok(())
    }
}
