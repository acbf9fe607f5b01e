//! What kind of failure an error is, for `error.type`: one of few words, none of which holds data.
//!
//! The error's own text stays out of the signals: what Redis says may repeat a key.

use crate::error::{Error, Kind};

/// The kind of an error.
pub fn kind(error: &Error) -> &str {
    let failure = match error {
        Error::NoSuchStore => return "no-such-store",
        Error::AccessDenied => return "access-denied",
        Error::Other(failure) => failure,
    };
    match failure.kind() {
        Kind::Redis(code) => code,
        Kind::Unreachable => "unreachable",
        Kind::Refused => "refused",
        Kind::ConnectionLost => "connection_lost",
        Kind::Timeout => "timeout",
        Kind::NoLink => "no_link",
        Kind::Overloaded => "overloaded",
        Kind::BadParameters => "bad_parameters",
        Kind::Other => "_OTHER",
    }
}
