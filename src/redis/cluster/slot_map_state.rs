//! The state of the slot map: pending, unavailable or known.

use std::sync::Arc;

use crate::redis::cluster::slot_map::SlotMap;
use crate::redis::cluster::slot_map_error::SlotMapError;

#[derive(Clone, Debug)]
pub(crate) enum SlotMapState {
    /// No query has ended yet.
    Pending,
    /// The latest query failed, and none has succeeded before.
    Unavailable(SlotMapError),
    Known(Arc<SlotMap>),
}

impl SlotMapState {
    pub(crate) fn map(&self) -> Option<&Arc<SlotMap>> {
        match self {
            Self::Known(map) => Some(map),
            _ => None,
        }
    }

    /// Records a failed query; a known map stays valid. Returns whether the state has changed.
    pub(crate) fn fail(&mut self, error: SlotMapError) -> bool {
        if self.map().is_some() {
            return false;
        }
        *self = Self::Unavailable(error);
        true
    }

    pub(crate) fn is_settled(&self) -> bool {
        match self {
            Self::Pending => false,
            Self::Unavailable(error) => error.is_permanent,
            Self::Known(_) => true,
        }
    }
}
