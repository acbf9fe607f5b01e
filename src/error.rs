//! What a call can fail with, as the interface words it, and how Redis's own errors become that.
//!
//! Every text made here may reach a component: one line, no secret, no stored data. Which errors
//! are worth another attempt is for `connection` to know; how errors travel is for `serve`.

use std::{fmt, io};

/// The `error` variant of `wrpc:keyvalue/store`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The bucket does not exist for this link.
    NoSuchStore,
    /// The link, or Redis's ACL, does not allow the operation.
    AccessDenied,
    /// Anything else.
    Other(Failure),
}

/// What went wrong: in words that a component's author can act on, and of which kind it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    kind: ErrorKind,
    text: String,
}

/// The kinds of failures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// Redis refused the command, with this code.
    Redis(String),
    /// There is no connection to Redis.
    Unreachable,
    /// Redis refused the connection.
    Refused,
    /// The connection broke before the answer came.
    ConnectionLost,
    /// The answer did not come in time.
    Timeout,
    /// The component has no such link.
    NoLink,
    /// Too many calls or bytes are here already.
    Overloaded,
    /// The parameters are not those of the function, too large, or did not come.
    BadParameters,
    /// None of these.
    Other,
}

impl Error {
    /// A failure of none of the kinds.
    pub fn other(text: impl Into<String>) -> Self {
        Self::of(ErrorKind::Other, text)
    }

    /// A failure of this kind, as [`Failure::new`] has it.
    pub fn of(kind: ErrorKind, text: impl Into<String>) -> Self {
        Self::Other(Failure::new(kind, text))
    }

    /// An answer of Redis that no version of it gives to `command`.
    pub fn unexpected_answer(command: &str) -> Self {
        Self::other(format!(
            "the server's answer to {command} is not one that Redis or Valkey gives"
        ))
    }

    /// The code of the error that Redis answered a command with, if it was Redis that refused.
    pub fn redis_code(&self) -> Option<&str> {
        match self {
            Self::NoSuchStore => None,
            // A command can be denied by Redis alone.
            Self::AccessDenied => Some("NOPERM"),
            Self::Other(failure) => match &failure.kind {
                ErrorKind::Redis(code) => Some(code),
                _ => None,
            },
        }
    }
}

impl Failure {
    /// A failure in words; line breaks and other control characters become spaces.
    pub fn new(kind: ErrorKind, text: impl Into<String>) -> Self {
        let text = one_line(text.into());
        Self { kind, text }
    }

    /// Of which kind it is.
    pub fn kind(&self) -> &ErrorKind {
        &self.kind
    }

    /// In words, on one line.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchStore => f.write_str("no such store"),
            Self::AccessDenied => f.write_str("access denied"),
            Self::Other(failure) => failure.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

/// The operating system's words, without its error number.
pub fn os_words(error: &io::Error) -> String {
    let words = error.to_string();
    let words = words.split(" (os error").next().unwrap_or_default();
    words.to_owned()
}

fn one_line(text: String) -> String {
    if text.contains(char::is_control) {
        text.replace(char::is_control, " ")
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_one_line() {
        assert_eq!(
            Error::other("a\r\nb\tc").to_string(),
            "a  b c",
            "control characters become spaces"
        );
    }
}
