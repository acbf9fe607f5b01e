//! The attribute `error.type`: one of few values.
//!
//! The message of an error is not part of a signal, since that of Redis may contain a key.

use crate::error::{Error, ErrorKind};

pub(crate) fn error_type(error: &Error) -> &str {
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
