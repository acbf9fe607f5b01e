//! The error of a call: its kind, a message for the component's author, and its source.
//!
//! Every message may reach a component: one line, without secrets and stored data. The encoding on
//! the wire is in `wrpc::functions`, the classification of Redis's errors in `redis::server_error`,
//! the `error.type` of traces and metrics in `telemetry::error_type`.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::sync::Arc;
use std::{fmt, io};

/// The end of the message of a write that may have taken effect; any other error means that nothing
/// was changed.
const AMBIGUOUS: &str = "; it may or may not have been carried out";

/// The error of a call, as the `error` variant of `wrpc:keyvalue/store` carries it.
#[derive(Clone, Debug)]
pub struct Error {
    kind: ErrorKind,
    message: Cow<'static, str>,
    /// Shared: one failed connection is the source of the errors of all calls that wait for it.
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

/// The kinds of errors. Components receive the first two as variants of their own, any other as
/// `other` with the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The bucket does not exist on this link.
    NoSuchStore,
    /// The link's settings or Redis's ACL forbid the operation.
    AccessDenied,
    /// Redis replied with an error that has this code.
    ServerError(String),
    /// Redis cannot be reached.
    Unreachable,
    /// Redis rejected the connection.
    ConnectionRejected,
    /// The connection broke before the reply arrived.
    ConnectionLost,
    /// The reply did not arrive in time.
    Timeout,
    /// The component does not have this link.
    NoLink,
    /// A limit on concurrent calls or bytes is exhausted.
    Overloaded,
    /// The parameters are malformed, too large, or did not arrive.
    InvalidParameters,
    /// Any other error.
    Other,
}

impl Error {
    /// An error of this kind. Line breaks and other control characters of the message become spaces.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: Cow::Owned(one_line(message.into())),
            source: None,
        }
    }

    /// An error of the kind [`ErrorKind::Other`].
    pub fn other(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Other, message)
    }

    /// The bucket does not exist on this link.
    pub const fn no_such_store() -> Self {
        Self::fixed(ErrorKind::NoSuchStore, "no such store")
    }

    /// The link's settings or Redis's ACL forbid the operation.
    pub const fn access_denied() -> Self {
        Self::fixed(ErrorKind::AccessDenied, "access denied")
    }

    /// A reply to `command` that no version of Redis or Valkey sends.
    pub fn unexpected_reply(command: &str) -> Self {
        Self::other(format!(
            "unexpected reply to {command}: the server does not follow the protocol of Redis"
        ))
    }

    const fn fixed(kind: ErrorKind, message: &'static str) -> Self {
        Self {
            kind,
            message: Cow::Borrowed(message),
            source: None,
        }
    }

    /// The same error with its source. The message already contains that of the source: the source is
    /// for code that needs its type.
    #[must_use]
    pub fn with_source(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// The same error for a write that was sent without a reply. It reaches components with its
    /// message, even if its kind is a variant without one.
    #[must_use]
    pub fn ambiguous(mut self) -> Self {
        if !self.message.ends_with(AMBIGUOUS) {
            self.message = Cow::Owned(format!("{}{AMBIGUOUS}", self.message));
        }
        if matches!(self.kind, ErrorKind::NoSuchStore | ErrorKind::AccessDenied) {
            self.kind = ErrorKind::Other;
        }
        self
    }

    /// The kind.
    pub fn kind(&self) -> &ErrorKind {
        &self.kind
    }

    /// The message, on one line.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The code of the error that Redis replied with, if it was Redis that refused the command.
    pub fn server_code(&self) -> Option<&str> {
        match &self.kind {
            // A command can be denied by Redis alone: the link's own settings are checked before.
            ErrorKind::AccessDenied => Some("NOPERM"),
            ErrorKind::ServerError(code) => Some(code),
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Not derived: thiserror would return the `Arc` as the source, and its content could not be
/// downcast.
impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// Sources are not compared: equal errors are those that look equal to a component and in telemetry.
impl PartialEq for Error {
    fn eq(&self, other: &Self) -> bool {
        (&self.kind, &self.message) == (&other.kind, &other.message)
    }
}

impl Eq for Error {}

/// The operating system's message, without the number of the error.
pub fn os_message(error: &io::Error) -> String {
    let message = error.to_string();
    let message = message.split(" (os error").next().unwrap_or_default();
    message.to_owned()
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
    fn control_characters_of_messages_become_spaces() {
        assert_eq!(Error::other("a\r\nb\tc").message(), "a  b c");
    }

    #[test]
    fn errors_with_a_source_expose_it_and_compare_without_it() {
        let plain = Error::new(ErrorKind::Unreachable, "cannot reach h: refused");
        let caused = plain
            .clone()
            .with_source(io::Error::from(io::ErrorKind::ConnectionRefused));
        assert_eq!(plain, caused);
        assert!(StdError::source(&plain).is_none());
        assert!(StdError::source(&caused).is_some_and(|source| source.is::<io::Error>()));
    }
}
