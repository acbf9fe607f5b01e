//! The cache of reads: entries by Redis key, without any I/O.
//!
//! [`read_through`] is the interface: lookups, fills and invalidations. [`entries`] defines the states of an
//! entry, [`lru`] bounds and evicts them, [`admission`] decides which new keys a full cache takes, and
//! [`freshness`] whether an entry may still be served. `redis::client_tracking` receives the invalidations.

pub(crate) mod admission;
pub(crate) mod entries;
pub(crate) mod freshness;
pub(crate) mod lru;
pub(crate) mod read_through;
