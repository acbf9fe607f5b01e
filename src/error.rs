//! What a call can fail with, as the interface words it, and how Redis's own errors become that.
//!
//! Every text made here may reach a component: one line, no secret, no stored data. Which errors
//! are worth another attempt is for `connection` to know; how errors travel is for `serve`.

use std::{fmt, io};

use redis::ServerError;

/// The `error` variant of `wrpc:keyvalue/store`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The bucket does not exist for this link.
    NoSuchStore,
    /// The link, or Redis's ACL, does not allow the operation.
    AccessDenied,
    /// Anything else, in words that a component's author can act on.
    Other(String),
}

impl Error {
    /// An error in words; line breaks and other control characters become spaces.
    pub fn other(text: impl Into<String>) -> Self {
        Self::Other(one_line(text.into()))
    }

    /// An answer of Redis that no version of it gives to `command`.
    pub fn unexpected_answer(command: &str) -> Self {
        Self::Other(format!(
            "the server's answer to {command} is not one that Redis or Valkey gives"
        ))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchStore => f.write_str("no such store"),
            Self::AccessDenied => f.write_str("access denied"),
            Self::Other(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Error {}

/// Redis's refusal of a command: its ACL's is `access-denied`, any other keeps Redis's words.
impl From<&ServerError> for Error {
    fn from(refusal: &ServerError) -> Self {
        if is_forbidden(refusal) {
            Self::AccessDenied
        } else {
            Self::other(in_words(refusal))
        }
    }
}

/// Whether it is the ACL that refuses.
pub fn is_forbidden(refusal: &ServerError) -> bool {
    let details = refusal.details().unwrap_or_default();
    refusal.code() == "NOPERM"
        // Redis 7.0 words it so within a script, newer ones as everywhere.
        || details.starts_with("The user executing the script can't")
        // The end of a transaction is refused so.
        || refusal.code() == "EXECABORT" && details.contains(" has no permissions ")
}

/// Redis's error as Redis wrote it: its code, and what follows. Of a command that it does not know
/// it repeats the arguments, a password perhaps, or data: these are left out.
pub fn in_words(refusal: &ServerError) -> String {
    let details = refusal
        .details()
        .and_then(|details| details.split(", with args beginning with").next());
    match details {
        Some(details) => format!("{} {details}", refusal.code()),
        None => refusal.code().to_owned(),
    }
}

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
            Error::other("a\r\nb\tc"),
            Error::Other("a  b c".to_owned()),
            "control characters become spaces"
        );
    }

    #[test]
    fn arguments_that_redis_repeats_are_left_out() {
        let refusal = "-ERR unknown command 'AUTH', with args beginning with: 'hunter2' \r\n";
        let refusal = redis::parse_redis_value(refusal.as_bytes()).unwrap();
        let redis::Value::ServerError(refusal) = refusal else {
            panic!("{refusal:?}")
        };
        assert_eq!(in_words(&refusal), "ERR unknown command 'AUTH'");
    }
}
