//! Errors of establishing a connection: a kind, by which callers decide what to do, a message for
//! people, and the source.

use std::error::Error as StdError;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use redis::{RedisError, ServerError};
use tokio::time::Instant;

use crate::error::{Error, ErrorKind, os_message};
use crate::redis::server_error::ServerErrorExt as _;

/// The reason why a connection was not established. The message holds no secret.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct ConnectError {
    kind: ConnectErrorKind,
    message: String,
    /// An error of the operating system or of TLS. Errors of a server are never attached as a source:
    /// their text may repeat arguments, a password among them.
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

/// The reasons that callers distinguish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ConnectErrorKind {
    ConnectionRefused,
    /// The host name cannot be resolved.
    Dns,
    /// The Unix socket does not exist.
    SocketNotFound,
    /// The process may not use the Unix socket.
    SocketPermission,
    ClosedByPeer,
    Timeout,
    /// A transient error of Redis, for example while it loads its data.
    NotReady,
    /// The server no longer has the role that the sentinels reported.
    WrongRole,
    /// Any other network error.
    Unreachable,
    /// A permanent error of Redis, with its code.
    Refused(String),
    /// The sentinels do not monitor a master of this name.
    UnknownMaster,
    /// The server that replied is not a sentinel.
    NotASentinel,
    /// The password file cannot be read, or is empty.
    PasswordFile,
    /// No trusted authority has issued the server's certificate.
    UnknownIssuer,
    /// The server's certificate is for another host name.
    NameMismatch,
    /// The server's certificate has expired, or is not valid yet.
    CertificateExpired,
    /// The server does not speak TLS.
    NotTls,
    /// Any other unusable setting, file or certificate.
    InvalidConfig,
}

impl ConnectError {
    pub(crate) fn new(kind: ConnectErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            source: None,
        }
    }

    /// An error of a socket.
    pub(crate) fn io(error: io::Error) -> Self {
        let kind = match error.kind() {
            io::ErrorKind::ConnectionRefused => ConnectErrorKind::ConnectionRefused,
            io::ErrorKind::NotFound => ConnectErrorKind::SocketNotFound,
            io::ErrorKind::PermissionDenied => ConnectErrorKind::SocketPermission,
            _ => ConnectErrorKind::Unreachable,
        };
        Self::os(kind, error)
    }

    /// A failed resolution of a host name.
    pub(crate) fn dns(error: io::Error) -> Self {
        Self::os(ConnectErrorKind::Dns, error)
    }

    fn os(kind: ConnectErrorKind, error: io::Error) -> Self {
        Self::new(kind, os_message(&error).to_lowercase()).with_source(error)
    }

    /// An error with which Redis replied. A permanent one refuses the connection.
    pub(crate) fn server(error: &ServerError) -> Self {
        let kind = if error.is_permanent() {
            ConnectErrorKind::Refused(error.code().to_owned())
        } else {
            ConnectErrorKind::NotReady
        };
        Self::new(kind, error.message())
    }

    /// An error of the redis crate while it opens a connection.
    pub(crate) fn redis(error: RedisError) -> Self {
        let category = error.category().to_owned();
        match error.into_server_errors().as_deref() {
            Some([(_, error), ..]) => Self::server(error),
            // The redis crate's messages may repeat what a server sent; its categories do not.
            _ => Self::new(ConnectErrorKind::Unreachable, category),
        }
    }

    pub(crate) fn closed_during_handshake() -> Self {
        Self::new(
            ConnectErrorKind::ClosedByPeer,
            "the connection was closed during the handshake",
        )
    }

    pub(crate) fn timeout(limit: Duration) -> Self {
        let message = format!("no connection within {} ms", limit.as_millis());
        Self::new(ConnectErrorKind::Timeout, message)
    }

    pub(crate) fn kind(&self) -> &ConnectErrorKind {
        &self.kind
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// Returns true if retrying is useless until an operator acts.
    pub(crate) fn is_permanent(&self) -> bool {
        match self.kind {
            ConnectErrorKind::ConnectionRefused
            | ConnectErrorKind::Dns
            | ConnectErrorKind::SocketNotFound
            | ConnectErrorKind::SocketPermission
            | ConnectErrorKind::ClosedByPeer
            | ConnectErrorKind::Timeout
            | ConnectErrorKind::NotReady
            | ConnectErrorKind::WrongRole
            | ConnectErrorKind::Unreachable => false,
            ConnectErrorKind::Refused(_)
            | ConnectErrorKind::UnknownMaster
            | ConnectErrorKind::NotASentinel
            | ConnectErrorKind::PasswordFile
            | ConnectErrorKind::UnknownIssuer
            | ConnectErrorKind::NameMismatch
            | ConnectErrorKind::CertificateExpired
            | ConnectErrorKind::NotTls
            | ConnectErrorKind::InvalidConfig => true,
        }
    }

    /// Names the server in the message.
    pub(crate) fn at(mut self, server: &str) -> Self {
        self.message = format!("{server}: {}", self.message);
        self
    }

    /// Appends a hint to the message.
    pub(crate) fn with_hint(mut self, hint: &str) -> Self {
        self.message += hint;
        self
    }

    pub(crate) fn with_source(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// The error of a call that needed the connection to `address`.
    pub(crate) fn call_error(&self, address: &str) -> Error {
        let message = &self.message;
        let (kind, text) = match self.kind {
            ConnectErrorKind::Refused(_) => (
                ErrorKind::ConnectionRejected,
                format!("{address} refuses the connection: {message}"),
            ),
            _ if self.is_permanent() => (
                ErrorKind::Unreachable,
                format!("cannot connect to {address}: {message}"),
            ),
            _ => (
                ErrorKind::Unreachable,
                format!("cannot reach {address}: {message}"),
            ),
        };
        Error::new(kind, text).with_source(self.clone())
    }
}

/// Two errors are the same if an operator reads the same.
impl PartialEq for ConnectError {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind && self.message == other.message
    }
}

impl Eq for ConnectError {}

/// A period without a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outage {
    pub(crate) since: Instant,
    /// The error of a call that does not wait for the end of the outage, without secrets.
    pub(crate) error: Error,
}
