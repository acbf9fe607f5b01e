//! Why there is no map of a cluster's slots, in words for calls, for the health and for the log.
//!
//! Who is asked for the map, and when, is for `topology`.

use redis::ServerError;

use crate::error::{Error, ErrorKind};
use crate::redis::server_error::in_words;
use crate::redis::server_error::is_transient;

/// Why there is no map.
#[derive(Clone, Debug)]
pub(crate) struct SlotMapError {
    /// In words.
    pub(crate) failure: Error,
    /// Somebody has to act first, so that waiting for it is in vain.
    pub(crate) lasting: bool,
}

impl SlotMapError {
    /// A node refused to tell.
    pub(crate) fn refused(address: &str, refusal: &ServerError, scheme: &str) -> Self {
        let lasting = !is_transient(refusal.code());
        let hint = match refusal.code() {
            "NOPERM" => " (the user needs +cluster|slots)".to_owned(),
            _ if lasting => format!(" (if it is no cluster, the URL begins with {scheme}://)"),
            _ => String::new(),
        };
        let words = in_words(refusal);
        let text = format!("{address} does not say which node has which keys: {words}{hint}");
        Self {
            failure: Error::new(ErrorKind::ConnectionRejected, text),
            lasting,
        }
    }

    /// A node answered, and it is no map.
    pub(crate) fn useless(address: &str, why: &str) -> Self {
        let text = format!("{address} does not say which node has which keys: {why}");
        Self {
            failure: Error::new(ErrorKind::Unreachable, text),
            lasting: false,
        }
    }
}
