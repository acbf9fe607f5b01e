//! Resolution of a [`ServerSelector`] to the address of a server, repeated for every connection.

use crate::redis::connect_error::ConnectError;
use crate::redis::options::ConnectOptions;
use crate::redis::selector::ServerSelector;
use crate::redis::sentinel;
use crate::redis::transport::ServerAddr;

/// The server of the moment.
pub(crate) struct Resolved {
    pub(crate) addr: ServerAddr,
    /// True if it is the primary only because the sentinels report no healthy replica.
    pub(crate) lacks_replica: bool,
}

pub(crate) async fn resolve(
    selector: &ServerSelector,
    options: &ConnectOptions,
) -> Result<Resolved, ConnectError> {
    let sentinels = match selector {
        ServerSelector::Fixed(addr) | ServerSelector::ClusterReplica(addr) => {
            return Ok(Resolved {
                addr: addr.clone(),
                lacks_replica: false,
            });
        }
        ServerSelector::Primary(sentinels) | ServerSelector::Replica(sentinels) => sentinels,
    };
    let wants_replica = matches!(selector, ServerSelector::Replica(_));
    if wants_replica
        && let Ok(replicas) = sentinel::replicas(sentinels, options).await
        && !replicas.is_empty()
    {
        let chosen = fastrand::usize(..replicas.len());
        return Ok(Resolved {
            addr: ServerAddr::Tcp(replicas[chosen].clone()),
            lacks_replica: false,
        });
    }
    let primary = sentinel::primary(sentinels, options).await?;
    Ok(Resolved {
        addr: ServerAddr::Tcp(primary),
        lacks_replica: wants_replica,
    })
}
