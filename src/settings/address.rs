//! Where a Redis is, and who logs in there.
//!
//! Reading it from the setting `URL` is for `url`; opening it is for `connection`.

use std::fmt;
use std::path::PathBuf;

use super::Secret;

/// The port of Redis, and that of its sentinels.
pub(super) const REDIS_PORT: u16 = 6379;
pub(super) const SENTINEL_PORT: u16 = 26379;

/// Where a Redis is, and who logs in there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// The server, or servers.
    pub server: Server,
    /// Whether it is spoken to over TLS.
    pub tls: bool,
    /// The ACL user; `None` is Redis's `default`.
    pub username: Option<String>,
    /// The password, if one is needed.
    pub password: Option<Secret>,
    /// The database number.
    pub database: u32,
}

/// How a server is reached.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Server {
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
pub struct Endpoint {
    /// A host name or an IP address (an IPv6 address without brackets).
    pub host: String,
    /// The port.
    pub port: u16,
}

/// The sentinels of a service, and who logs in there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sentinels {
    /// Where they are.
    pub endpoints: Vec<Endpoint>,
    /// What they call the service.
    pub service: String,
    /// The sentinels' own user.
    pub username: Option<String>,
    /// The sentinels' own password.
    pub password: Option<Secret>,
}

impl Default for Address {
    fn default() -> Self {
        Self {
            server: Server::Tcp(Endpoint {
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
    pub fn has_replicas(&self) -> bool {
        matches!(self.server, Server::Cluster { .. } | Server::Sentinel(_))
    }

    /// The endpoint that stands for it where only one can.
    pub fn first_endpoint(&self) -> Option<&Endpoint> {
        match &self.server {
            Server::Tcp(endpoint) => Some(endpoint),
            Server::Unix { .. } => None,
            Server::Cluster { seeds } => seeds.first(),
            Server::Sentinel(sentinels) => sentinels.endpoints.first(),
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
            Server::Tcp(endpoint) => write!(f, "{scheme}://{endpoint}")?,
            Server::Unix { path } => write!(f, "redis+unix://{}", path.display())?,
            Server::Cluster { seeds } => {
                write!(f, "{scheme}-cluster://{}", Listed(seeds))?;
            }
            Server::Sentinel(sentinels) => write!(
                f,
                "{scheme}-sentinel://{} (service {})",
                Listed(&sentinels.endpoints),
                sentinels.service
            )?,
        }
        match (&self.server, self.database) {
            (_, 0) => Ok(()),
            (Server::Unix { .. }, database) => write!(f, "?db={database}"),
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
