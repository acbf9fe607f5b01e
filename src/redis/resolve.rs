//! Resolution of a [`ServerSelector`] to the address of a server, anew for every connection.

use crate::redis::connect_error::ConnectError;
use crate::redis::options::ConnectOptions;
use crate::redis::selector::ServerSelector;
use crate::redis::sentinel;
use crate::redis::transport::ServerAddr;

pub(crate) async fn resolve(
    selector: &ServerSelector,
    options: &ConnectOptions,
) -> Result<ServerAddr, ConnectError> {
    match selector {
        ServerSelector::Fixed(addr) | ServerSelector::ClusterReplica(addr) => Ok(addr.clone()),
        ServerSelector::Primary(sentinels) => {
            let primary = sentinel::primary(sentinels, options).await?;
            Ok(ServerAddr::Tcp(primary))
        }
        ServerSelector::Replica(sentinels) => {
            if let Ok(replicas) = sentinel::replicas(sentinels, options).await
                && !replicas.is_empty()
            {
                let chosen = fastrand::usize(..replicas.len());
                return Ok(ServerAddr::Tcp(replicas[chosen].clone()));
            }
            let primary = sentinel::primary(sentinels, options).await?;
            Ok(ServerAddr::Tcp(primary))
        }
    }
}
