//! Classification of the errors that a server replies with: transient or permanent, the ACL's, a full
//! server, and their text without data.

use redis::{ServerError, Value};

use crate::error::{Error, ErrorKind};

/// No code of Redis is longer.
const MAX_CODE_LENGTH: usize = 32;

/// Redis's refusal of a command: its ACL's is `access-denied`, any other keeps Redis's words.
impl From<&ServerError> for Error {
    fn from(refusal: &ServerError) -> Self {
        if is_acl_denied(refusal) {
            return Self::access_denied();
        }
        let kind = if is_code(refusal.code()) {
            ErrorKind::ServerError(refusal.code().to_owned())
        } else {
            ErrorKind::Other
        };
        Self::new(kind, in_words(refusal))
    }
}

/// Whether it is the ACL that refuses.
pub(crate) fn is_acl_denied(refusal: &ServerError) -> bool {
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
pub(crate) fn strip_script_prefix(refusal: ServerError) -> ServerError {
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
    (2..=MAX_CODE_LENGTH).contains(&word.len())
        && word.bytes().all(|byte| byte.is_ascii_uppercase())
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
pub(crate) fn in_words(refusal: &ServerError) -> String {
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

/// Whether Redis says with this code that it did nothing yet, and will soon be able to.
pub(crate) fn is_transient(code: &str) -> bool {
    matches!(
        code,
        "LOADING" | "READONLY" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN" | "BUSY"
    )
}

/// Whether Redis has as many clients as it takes (`maxclients`): it says so by its words alone.
pub(crate) fn is_maxclients(refusal: &ServerError) -> bool {
    let words = refusal.details();
    words.is_some_and(|words| words.starts_with("max number of clients"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_of_redis_are_known_by_their_code() {
        for (text, code) in [
            ("WRONGTYPE Operation against a key", Some("WRONGTYPE")),
            ("NOPERM this user has no permissions", Some("NOPERM")),
            ("A key that somebody wrote", None),
            ("key that somebody wrote", None),
        ] {
            let error = Error::from(&refusal(text));
            assert_eq!(error.server_code(), code, "{text}");
        }
        let own = Error::other("ERR is how some errors begin");
        assert_eq!(own.server_code(), None, "nobody reads the text");
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
            let refusal = strip_script_prefix(refusal(text));
            assert_eq!(Error::from(&refusal), Error::access_denied(), "{text}");
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
            let refusal = strip_script_prefix(refusal(text));
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
