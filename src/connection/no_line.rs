//! Why a connection could not be established: a cause, by which others decide what to do, and words
//! for people.

use std::time::Duration;

use redis::ServerError;

use crate::error::{Failure, Kind, in_words};

/// Why there is no connection, without secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoLine {
    cause: Cause,
    words: String,
}

/// What keeps a connection from being established.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Nobody listens there.
    NobodyListens,
    /// The host's name is not known.
    UnknownHost,
    /// There is no such Unix socket.
    NoSocket,
    /// The Unix socket is not for this user.
    ForbiddenSocket,
    /// The server closed the connection when it should have answered.
    HungUp,
    /// The time was up.
    Late,
    /// Redis will be able to soon.
    NotReady,
    /// The server is no longer what the sentinels said.
    WrongRole,
    /// Any other reason not to reach somebody who speaks Redis's protocol.
    Unreachable,
    /// Redis refused, with this code.
    Refused(String),
    /// The sentinels know no such service.
    UnknownService,
    /// Who answers is no sentinel.
    NoSentinel,
    /// The file with the password cannot be read, or is empty.
    PasswordFile,
    /// The server's certificate is not from an authority that is trusted.
    UntrustedAuthority,
    /// The server's certificate is for another name.
    WrongName,
    /// The server's certificate has expired, or is not valid yet.
    OutOfDate,
    /// The server does not speak TLS.
    NoTls,
    /// Any other setting, file or certificate that does not do.
    Unusable,
}

impl NoLine {
    /// For this cause, in these words.
    pub fn new(cause: Cause, words: impl Into<String>) -> Self {
        Self {
            cause,
            words: words.into(),
        }
    }

    /// Redis refused for good: waiting does not help. But it does where Redis has as many clients as
    /// it takes: it says so unasked, so that it looks like the answer to what was asked first.
    pub fn refused(refusal: &ServerError) -> Self {
        if has_no_room(refusal) {
            return Self::new(Cause::NotReady, in_words(refusal));
        }
        let cause = Cause::Refused(refusal.code().to_owned());
        Self::new(cause, in_words(refusal))
    }

    /// The server closed the connection when it should have answered.
    pub fn hung_up() -> Self {
        Self::new(Cause::HungUp, "the connection was closed during the log-in")
    }

    /// There was no connection within the time limit.
    pub fn late(limit: Duration) -> Self {
        let words = format!("no connection within {} ms", limit.as_millis());
        Self::new(Cause::Late, words)
    }

    /// The cause.
    pub fn cause(&self) -> &Cause {
        &self.cause
    }

    /// In words.
    pub fn words(&self) -> &str {
        &self.words
    }

    /// The words alone.
    pub fn into_words(self) -> String {
        self.words
    }

    /// Whether waiting does not help, and somebody has to act.
    pub fn is_lasting(&self) -> bool {
        match self.cause {
            Cause::NobodyListens
            | Cause::UnknownHost
            | Cause::NoSocket
            | Cause::ForbiddenSocket
            | Cause::HungUp
            | Cause::Late
            | Cause::NotReady
            | Cause::WrongRole
            | Cause::Unreachable => false,
            Cause::Refused(_)
            | Cause::UnknownService
            | Cause::NoSentinel
            | Cause::PasswordFile
            | Cause::UntrustedAuthority
            | Cause::WrongName
            | Cause::OutOfDate
            | Cause::NoTls
            | Cause::Unusable => true,
        }
    }

    /// The same, with the server in question.
    pub fn at(self, server: &str) -> Self {
        let words = format!("{server}: {}", self.words);
        Self::new(self.cause, words)
    }

    /// The same, with something more to say.
    pub fn with(mut self, hint: &str) -> Self {
        self.words += hint;
        self
    }

    /// What a call is answered that wanted the connection to `address`.
    pub fn failure(&self, address: &str) -> Failure {
        let words = &self.words;
        let (kind, text) = match self.cause {
            Cause::Refused(_) => (
                Kind::Refused,
                format!("{address} refuses the connection: {words}"),
            ),
            _ if self.is_lasting() => (
                Kind::Unreachable,
                format!("cannot connect to {address}: {words}"),
            ),
            _ => (
                Kind::Unreachable,
                format!("cannot reach {address}: {words}"),
            ),
        };
        Failure::new(kind, text)
    }
}

/// Whether Redis has as many clients as it takes (`maxclients`): it says so by its words alone.
pub fn has_no_room(refusal: &ServerError) -> bool {
    let words = refusal.details();
    words.is_some_and(|words| words.starts_with("max number of clients"))
}
