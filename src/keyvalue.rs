//! The interfaces of `wasi:keyvalue`, one file each, executed over a link. Nothing here depends on
//! how calls arrive.

pub(crate) mod atomics;
pub(crate) mod batch;
pub mod call;
pub(crate) mod dispatch;
pub(crate) mod store;
