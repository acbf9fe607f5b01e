//! Why a connection could not be established: a cause, by which others decide what to do, and words
//! for people.

use std::time::Duration;

use redis::ServerError;
use tokio::time::Instant;

use crate::error::{Error, ErrorKind};
use crate::redis::server_error::{in_words, is_maxclients};

/// Why there is no connection, without secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConnectError {
    cause: ConnectErrorKind,
    words: String,
}

/// What keeps a connection from being established.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ConnectErrorKind {
    /// Nobody listens there.
    ConnectionRefused,
    /// The host's name is not known.
    Dns,
    /// There is no such Unix socket.
    NoSocket,
    /// The Unix socket is not for this user.
    ForbiddenSocket,
    /// The server closed the connection when it should have answered.
    ClosedByPeer,
    /// The time was up.
    Timeout,
    /// Redis will be able to soon.
    NotReady,
    /// The server is no longer what the sentinels said.
    WrongRole,
    /// Any other reason not to reach somebody who speaks Redis's protocol.
    Unreachable,
    /// Redis refused, with this code.
    Refused(String),
    /// The sentinels know no such service.
    UnknownMaster,
    /// Who answers is no sentinel.
    NoSentinel,
    /// The file with the password cannot be read, or is empty.
    PasswordFile,
    /// The server's certificate is not from an authority that is trusted.
    UnknownIssuer,
    /// The server's certificate is for another name.
    NameMismatch,
    /// The server's certificate has expired, or is not valid yet.
    CertificateExpired,
    /// The server does not speak TLS.
    NotTls,
    /// Any other setting, file or certificate that does not do.
    InvalidConfig,
}

impl ConnectError {
    /// For this cause, in these words.
    pub(crate) fn new(cause: ConnectErrorKind, words: impl Into<String>) -> Self {
        Self {
            cause,
            words: words.into(),
        }
    }

    /// Redis refused for good: waiting does not help. But it does where Redis has as many clients as
    /// it takes: it says so unasked, so that it looks like the answer to what was asked first.
    pub(crate) fn refused(refusal: &ServerError) -> Self {
        if is_maxclients(refusal) {
            return Self::new(ConnectErrorKind::NotReady, in_words(refusal));
        }
        let cause = ConnectErrorKind::Refused(refusal.code().to_owned());
        Self::new(cause, in_words(refusal))
    }

    /// The server closed the connection when it should have answered.
    pub(crate) fn hung_up() -> Self {
        Self::new(
            ConnectErrorKind::ClosedByPeer,
            "the connection was closed during the log-in",
        )
    }

    /// There was no connection within the time limit.
    pub(crate) fn late(limit: Duration) -> Self {
        let words = format!("no connection within {} ms", limit.as_millis());
        Self::new(ConnectErrorKind::Timeout, words)
    }

    /// The cause.
    pub(crate) fn cause(&self) -> &ConnectErrorKind {
        &self.cause
    }

    /// In words.
    pub(crate) fn words(&self) -> &str {
        &self.words
    }

    /// The words alone.
    pub(crate) fn into_words(self) -> String {
        self.words
    }

    /// Whether waiting does not help, and somebody has to act.
    pub(crate) fn is_permanent(&self) -> bool {
        match self.cause {
            ConnectErrorKind::ConnectionRefused
            | ConnectErrorKind::Dns
            | ConnectErrorKind::NoSocket
            | ConnectErrorKind::ForbiddenSocket
            | ConnectErrorKind::ClosedByPeer
            | ConnectErrorKind::Timeout
            | ConnectErrorKind::NotReady
            | ConnectErrorKind::WrongRole
            | ConnectErrorKind::Unreachable => false,
            ConnectErrorKind::Refused(_)
            | ConnectErrorKind::UnknownMaster
            | ConnectErrorKind::NoSentinel
            | ConnectErrorKind::PasswordFile
            | ConnectErrorKind::UnknownIssuer
            | ConnectErrorKind::NameMismatch
            | ConnectErrorKind::CertificateExpired
            | ConnectErrorKind::NotTls
            | ConnectErrorKind::InvalidConfig => true,
        }
    }

    /// The same, with the server in question.
    pub(crate) fn at(self, server: &str) -> Self {
        let words = format!("{server}: {}", self.words);
        Self::new(self.cause, words)
    }

    /// The same, with something more to say.
    pub(crate) fn with(mut self, hint: &str) -> Self {
        self.words += hint;
        self
    }

    /// What a call is answered that wanted the connection to `address`.
    pub(crate) fn failure(&self, address: &str) -> Error {
        let words = &self.words;
        let (kind, text) = match self.cause {
            ConnectErrorKind::Refused(_) => (
                ErrorKind::ConnectionRejected,
                format!("{address} refuses the connection: {words}"),
            ),
            _ if self.is_permanent() => (
                ErrorKind::Unreachable,
                format!("cannot connect to {address}: {words}"),
            ),
            _ => (
                ErrorKind::Unreachable,
                format!("cannot reach {address}: {words}"),
            ),
        };
        Error::new(kind, text)
    }
}

/// Why a connection is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outage {
    /// Since when.
    pub(crate) since: Instant,
    /// What a call is answered that does not wait for its end, without secrets.
    pub(crate) failure: Error,
}
