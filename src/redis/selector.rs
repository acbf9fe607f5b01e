//! The choice of the server that a connection leads to.

use std::fmt;

use crate::redis::transport::ServerAddr;
use crate::settings::address::{Endpoint, Sentinels};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ServerSelector {
    /// The server at this address.
    Fixed(ServerAddr),
    /// This replica of a cluster, for reads.
    ClusterReplica(ServerAddr),
    /// The primary that the sentinels report.
    Primary(Sentinels),
    /// A healthy replica that the sentinels report, or the primary if there is none.
    Replica(Sentinels),
}

impl ServerSelector {
    /// The endpoint, where it is fixed.
    pub(crate) fn endpoint(&self) -> Option<&Endpoint> {
        match self {
            Self::Fixed(ServerAddr::Tcp(endpoint))
            | Self::ClusterReplica(ServerAddr::Tcp(endpoint)) => Some(endpoint),
            _ => None,
        }
    }

    /// The role that the server must have, where a failover can take it away.
    pub(crate) fn required_role(&self) -> Option<&'static str> {
        matches!(self, Self::Primary(_)).then_some("master")
    }
}

impl fmt::Display for ServerSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(addr) | Self::ClusterReplica(addr) => match addr {
                ServerAddr::Tcp(_) => write!(f, "redis://{addr}"),
                ServerAddr::Unix(_) => write!(f, "redis+unix://{addr}"),
            },
            Self::Primary(sentinels) | Self::Replica(sentinels) => {
                write!(f, "the primary of {}", sentinels.service)
            }
        }
    }
}
