//! Where a Redis is, and who logs in there.
//!
//! ParseOutcome it from the setting `URL` is for `url`; opening it is for `connection`.

use std::fmt;
use std::path::PathBuf;

use crate::settings::Secret;

/// The port of Redis, and that of its sentinels.
pub(crate) const REDIS_PORT: u16 = 6379;
pub(crate) const SENTINEL_PORT: u16 = 26379;

/// Where a Redis is, and who logs in there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Address {
    /// The server, or servers.
    pub(crate) server: ServerSpec,
    /// Whether it is spoken to over TLS.
    pub(crate) tls: bool,
    /// The ACL user; `None` is Redis's `default`.
    pub(crate) username: Option<String>,
    /// The password, if one is needed.
    pub(crate) password: Option<Secret>,
    /// The database number.
    pub(crate) database: u32,
}

/// How a server is reached.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ServerSpec {
    /// Over TCP.
    Tcp(Endpoint),
    /// Over a Unix socket.
    Unix {
        /// The socket's path.
        path: PathBuf,
    },
    /// A Redis Cluster, which any of these nodes knows.
    Cluster {
        /// Some of its nodes.
        seeds: Vec<Endpoint>,
    },
    /// The primary that these sentinels name.
    Sentinel(Sentinels),
}

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Endpoint {
    /// A host name or an IP address (an IPv6 address without brackets).
    pub(crate) host: String,
    /// The port.
    pub(crate) port: u16,
}

/// The sentinels of a service, and who logs in there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Sentinels {
    /// Where they are.
    pub(crate) endpoints: Vec<Endpoint>,
    /// What they call the service.
    pub(crate) service: String,
    /// The sentinels' own user.
    pub(crate) username: Option<String>,
    /// The sentinels' own password.
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
    /// Whether it has replicas that may be read from.
    pub(crate) fn has_replicas(&self) -> bool {
        matches!(
            self.server,
            ServerSpec::Cluster { .. } | ServerSpec::Sentinel(_)
        )
    }

    /// The endpoint that stands for it where only one can.
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

/// The address without its credentials: fit for logs and errors.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "rediss" } else { "redis" };
        match &self.server {
            ServerSpec::Tcp(endpoint) => write!(f, "{scheme}://{endpoint}")?,
            ServerSpec::Unix { path } => write!(f, "redis+unix://{}", path.display())?,
            ServerSpec::Cluster { seeds } => {
                write!(f, "{scheme}-cluster://{}", Listed(seeds))?;
            }
            ServerSpec::Sentinel(sentinels) => write!(
                f,
                "{scheme}-sentinel://{} (service {})",
                Listed(&sentinels.endpoints),
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

struct Listed<'a>(&'a [Endpoint]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, endpoint) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{endpoint}")?;
        }
        Ok(())
    }
}
