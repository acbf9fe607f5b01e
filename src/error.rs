//! What a call can fail with, as the interface words it, and how Redis's own errors become that.
//!
//! Every text made here may reach a component: one line, no secret, no stored data. Which errors
//! are worth another attempt is for `connection` to know; how errors travel is for `serve`.

use std::{fmt, io};

use redis::{ServerError, Value};

/// No code of Redis is longer.
const LONGEST_CODE: usize = 32;

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
    kind: Kind,
    text: String,
}

/// The kinds of failures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
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
        Self::of(Kind::Other, text)
    }

    /// A failure of this kind, as [`Failure::new`] has it.
    pub fn of(kind: Kind, text: impl Into<String>) -> Self {
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
                Kind::Redis(code) => Some(code),
                _ => None,
            },
        }
    }
}

impl Failure {
    /// A failure in words; line breaks and other control characters become spaces.
    pub fn new(kind: Kind, text: impl Into<String>) -> Self {
        let text = one_line(text.into());
        Self { kind, text }
    }

    /// Of which kind it is.
    pub fn kind(&self) -> &Kind {
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

/// Redis's refusal of a command: its ACL's is `access-denied`, any other keeps Redis's words.
impl From<&ServerError> for Error {
    fn from(refusal: &ServerError) -> Self {
        if is_forbidden(refusal) {
            return Self::AccessDenied;
        }
        let kind = if is_code(refusal.code()) {
            Kind::Redis(refusal.code().to_owned())
        } else {
            Kind::Other
        };
        Self::of(kind, in_words(refusal))
    }
}

/// Whether it is the ACL that refuses.
pub fn is_forbidden(refusal: &ServerError) -> bool {
    let details = refusal.details().unwrap_or_default();
    refusal.code() == "NOPERM"
        // Redis 6.2 and 7.0 word it so within a script, 7.2 and Valkey as in the next line.
        || details.starts_with("The user executing the script can't")
        || details.starts_with("ACL failure in script")
        // The end of a transaction is refused so.
        || refusal.code() == "EXECABORT" && details.contains(" has no permissions ")
}

/// The refusal of a command within a script as it would be without the script: Redis 6.2 puts the
/// place in the script before it, and so hides its code. Any other refusal stays as it is.
pub fn unscripted(refusal: ServerError) -> ServerError {
    let whole = format!(
        "{} {}",
        refusal.code(),
        refusal.details().unwrap_or_default()
    );
    let bare = after_places(after_running(&whole));
    if bare.len() == whole.len() {
        return refusal;
    }
    let bare = bare.strip_prefix('-').unwrap_or(bare);
    let line = if bare.split(' ').next().is_some_and(is_code) {
        format!("-{bare}\r\n")
    } else {
        format!("-ERR {bare}\r\n")
    };
    match redis::parse_redis_value(line.as_bytes()) {
        Ok(Value::ServerError(bare)) => bare,
        _ => refusal,
    }
}

/// Whether a word looks like one of Redis's codes, all of which are capital letters; a server that is
/// none may begin with anything.
fn is_code(word: &str) -> bool {
    (2..=LONGEST_CODE).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_uppercase())
}

/// What follows `ERR Error running script (call to f_<hash>): `.
fn after_running(text: &str) -> &str {
    text.strip_prefix("ERR Error running script (")
        .and_then(|rest| rest.split_once("): "))
        .map_or(text, |(_, rest)| rest)
}

/// What follows places such as `@user_script:1: ` and `@user_script: 1: `.
fn after_places(mut text: &str) -> &str {
    while let Some(rest) = text
        .strip_prefix("@user_script:")
        .map(|rest| rest.trim_start_matches(' '))
        .map(|rest| rest.trim_start_matches(|letter: char| letter.is_ascii_digit()))
        .and_then(|rest| rest.strip_prefix(": "))
    {
        text = rest;
    }
    text
}

/// Redis's error as Redis wrote it: its code, and what follows. Of a command that it does not know
/// it repeats the arguments, a password perhaps, or data: these are left out. So is the page of
/// advice that follows the first sentence in protected mode.
pub fn in_words(refusal: &ServerError) -> String {
    let end = match refusal.code() {
        "DENIED" => ". ",
        _ => ", with args beginning with",
    };
    let details = refusal
        .details()
        .and_then(|details| details.split(end).next());
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
            Error::other("a\r\nb\tc").to_string(),
            "a  b c",
            "control characters become spaces"
        );
    }

    #[test]
    fn refusals_of_redis_are_known_by_their_code() {
        for (text, code) in [
            ("WRONGTYPE Operation against a key", Some("WRONGTYPE")),
            ("NOPERM this user has no permissions", Some("NOPERM")),
            ("A key that somebody wrote", None),
            ("key that somebody wrote", None),
        ] {
            let error = Error::from(&refusal(text));
            assert_eq!(error.redis_code(), code, "{text}");
        }
        let own = Error::other("ERR is how some errors begin");
        assert_eq!(own.redis_code(), None, "nobody reads the text");
    }

    #[test]
    fn arguments_that_redis_repeats_are_left_out() {
        let refusal = refusal("ERR unknown command 'AUTH', with args beginning with: 'hunter2' ");
        assert_eq!(in_words(&refusal), "ERR unknown command 'AUTH'");
    }

    #[test]
    fn what_the_acl_forbids_within_a_script_is_access_denied_on_every_version() {
        for text in [
            // Redis 6.2: caught by the script, and not.
            "@user_script: 2: The user executing the script can't run this command or subcommand",
            "ERR Error running script (call to f_c2ec): @user_script:1: @user_script: 1: The user \
             executing the script can't access at least one of the keys mentioned in the command \
             arguments",
            // Redis 7.0.
            "ERR The user executing the script can't run this command or subcommand",
            // Redis 7.2 and newer, Valkey.
            "ERR ACL failure in script: User app has no permissions to run the 'incrby' command",
            "ERR ACL failure in script: No permissions to access a key script: on @user_script:1.",
        ] {
            let refusal = unscripted(refusal(text));
            assert_eq!(Error::from(&refusal), Error::AccessDenied, "{text}");
        }
    }

    #[test]
    fn refusals_within_a_script_are_those_without_one() {
        for (text, code, words) in [
            (
                "@user_script: 2: -READONLY You can't write against a read only replica.",
                "READONLY",
                "READONLY You can't write against a read only replica.",
            ),
            (
                "@user_script: 1: -OOM command not allowed when used memory > 'maxmemory'.",
                "OOM",
                "OOM command not allowed when used memory > 'maxmemory'.",
            ),
            (
                "ERR Error running script (call to f_c2ec): @user_script:1: @user_script: 1: \
                 -READONLY You can't write against a read only replica.",
                "READONLY",
                "READONLY You can't write against a read only replica.",
            ),
            (
                "ERR Error running script (call to f_c2ec): @user_script:1: WRONGTYPE Operation \
                 against a key holding the wrong kind of value",
                "WRONGTYPE",
                "WRONGTYPE Operation against a key holding the wrong kind of value",
            ),
            (
                "ERR Error running script (call to f_c2ec): @user_script:1: @user_script: 1: \
                 Unknown Redis command called from Lua script",
                "ERR",
                "ERR Unknown Redis command called from Lua script",
            ),
            (
                "ERR value is not an integer or out of range",
                "ERR",
                "ERR value is not an integer or out of range",
            ),
            ("LOADING", "LOADING", "LOADING"),
        ] {
            let refusal = unscripted(refusal(text));
            assert_eq!((refusal.code(), &*in_words(&refusal)), (code, words));
        }
    }

    fn refusal(text: &str) -> ServerError {
        match redis::parse_redis_value(format!("-{text}\r\n").as_bytes()) {
            Ok(Value::ServerError(refusal)) => refusal,
            other => panic!("no refusal: {other:?}"),
        }
    }
}
