//! The reason why the slot map of a cluster is unknown.

use redis::ServerError;

use crate::error::{Error, ErrorKind};
use crate::redis::server_error::ServerErrorExt as _;

#[derive(Clone, Debug)]
pub(crate) struct SlotMapError {
    /// The error of the calls that need the map.
    pub(crate) error: Error,
    /// True if retrying is useless until an operator acts.
    pub(crate) is_permanent: bool,
}

impl SlotMapError {
    /// A node replied to `CLUSTER SLOTS` with an error.
    pub(crate) fn refused(address: &str, error: &ServerError, scheme: &str) -> Self {
        let is_permanent = error.is_permanent();
        let hint = match error.code() {
            "NOPERM" => " (the user needs +cluster|slots)".to_owned(),
            _ if is_permanent => format!(" (if it is not a cluster, use {scheme}:// in the URL)"),
            _ => String::new(),
        };
        let reason = format!("{}{hint}", error.message());
        Self {
            error: Error::new(ErrorKind::ConnectionRejected, message(address, &reason)),
            is_permanent,
        }
    }

    /// A node replied without a usable map.
    pub(crate) fn unusable(address: &str, reason: &str) -> Self {
        Self {
            error: Error::new(ErrorKind::Unreachable, message(address, reason)),
            is_permanent: false,
        }
    }
}

fn message(address: &str, reason: &str) -> String {
    format!("{address} does not return the slot map: {reason}")
}
