//! The cache of reads.

pub(crate) mod admission;
pub(crate) mod freshness;
pub(crate) mod lru;
pub(crate) mod read_through;

pub(crate) use read_through::CacheLimits;
