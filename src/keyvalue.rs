//! The interfaces of wrpc:keyvalue, one file each.

pub(crate) mod atomics;
pub(crate) mod batch;
pub(crate) mod store;
