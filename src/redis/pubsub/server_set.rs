//! The servers that publish the changes of a link's keys, which may change.

use std::future::pending;

use tokio::sync::watch;

use crate::redis::cluster::slot_map_state::SlotMapState;
use crate::redis::selector::ServerSelector;
use crate::redis::transport::ServerAddr;

#[derive(Clone, Debug)]
pub(crate) enum ServerSet {
    One(ServerSelector),
    /// The primaries of a cluster.
    Cluster(watch::Receiver<SlotMapState>),
}

impl ServerSet {
    pub(crate) fn current(&mut self) -> Vec<ServerSelector> {
        match self {
            Self::One(selector) => vec![selector.clone()],
            Self::Cluster(map) => {
                let map = map.borrow_and_update();
                let shards = map.map().into_iter().flat_map(|map| map.shards());
                let addrs = shards.map(|shard| ServerAddr::Tcp(shard.endpoint.clone()));
                addrs.map(ServerSelector::Fixed).collect()
            }
        }
    }

    /// Waits until the set differs from the one that [`Self::current`] returned last.
    pub(crate) async fn changed(&mut self) {
        let is_final = match self {
            Self::One(_) => true,
            Self::Cluster(map) => map.changed().await.is_err(),
        };
        if is_final {
            pending::<()>().await;
        }
    }
}
