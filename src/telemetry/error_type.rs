//! What kind of failure an error is, for `error.type`: one of few words, none of which holds data.
//!
//! The error's own text stays out of the signals: what Redis says may repeat a key.

use crate::error::{Error, ErrorKind};

/// The kind of an error.
pub(crate) fn kind(error: &Error) -> &str {
    let failure = match error {
        Error::NoSuchStore => return "no-such-store",
        Error::AccessDenied => return "access-denied",
        Error::Other(failure) => failure,
    };
    match failure.kind() {
        ErrorKind::Redis(code) => code,
        ErrorKind::Unreachable => "unreachable",
        ErrorKind::Refused => "refused",
        ErrorKind::ConnectionLost => "connection_lost",
        ErrorKind::Timeout => "timeout",
        ErrorKind::NoLink => "no_link",
        ErrorKind::Overloaded => "overloaded",
        ErrorKind::BadParameters => "bad_parameters",
        ErrorKind::Other => "_OTHER",
    }
}
