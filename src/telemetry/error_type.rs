//! What kind of failure an error is, for `error.type`: one of few words, none of which holds data.
//!
//! The error's own text stays out of the signals: what Redis says may repeat a key.

use crate::error::{Error, ErrorKind};

/// The kind of an error.
pub(crate) fn kind(error: &Error) -> &str {
    match error.kind() {
        ErrorKind::NoSuchStore => "no-such-store",
        ErrorKind::AccessDenied => "access-denied",
        ErrorKind::ServerError(code) => code,
        ErrorKind::Unreachable => "unreachable",
        ErrorKind::ConnectionRejected => "refused",
        ErrorKind::ConnectionLost => "connection_lost",
        ErrorKind::Timeout => "timeout",
        ErrorKind::NoLink => "no_link",
        ErrorKind::Overloaded => "overloaded",
        ErrorKind::InvalidParameters => "bad_parameters",
        ErrorKind::Other => "_OTHER",
    }
}
