//! Classification of the errors that a server replies with: transient, permanent, of the ACL, or of a
//! server without room for another client; and their text without data.

use redis::Value;

pub(crate) use redis::ServerError;

use crate::error::{Error, ErrorKind};

/// No code of Redis is longer.
const MAX_CODE_LENGTH: usize = 32;

/// Decides the meaning of a server's errors; nothing else looks at their codes.
pub(crate) trait ServerErrorExt: Sized {
    /// Returns true if Redis executed nothing and will soon be able to, so that any command may be
    /// sent again.
    fn is_transient(&self) -> bool;

    /// Returns true if another node of the cluster has the slot.
    fn is_redirect(&self) -> bool;

    /// Returns true if the server has reached `maxclients`. A server sends this error as soon as it
    /// accepts a connection, so that it looks like the reply to the first command.
    fn is_maxclients(&self) -> bool;

    /// Returns true if the ACL denies the command.
    fn is_acl_denied(&self) -> bool;

    /// Returns true if the same command would fail in the same way until an operator acts.
    fn is_permanent(&self) -> bool {
        !(self.is_transient() || self.is_redirect() || self.is_maxclients())
    }

    /// The code and the text of Redis. Redis repeats the arguments of a command that it does not
    /// know, which may be a password or stored data: these are left out, as is the page of advice
    /// that follows the first sentence in protected mode.
    fn message(&self) -> String;

    /// The error of a command in a script or of `EXEC` as it would be without: Redis 6.2 prefixes it
    /// with the position in the script, and `EXEC` with `EXECABORT`, which hides its code. Returns any
    /// other error unchanged.
    fn innermost(self) -> Self;
}

impl ServerErrorExt for ServerError {
    fn is_transient(&self) -> bool {
        matches!(
            self.code(),
            "LOADING" | "READONLY" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN" | "BUSY"
        )
    }

    fn is_redirect(&self) -> bool {
        matches!(self.code(), "MOVED" | "ASK")
    }

    fn is_maxclients(&self) -> bool {
        self.details()
            .is_some_and(|details| details.starts_with("max number of clients"))
    }

    fn is_acl_denied(&self) -> bool {
        let details = self.details().unwrap_or_default();
        self.code() == "NOPERM"
            // In a script: Redis 6.2 and 7.0, then Redis 7.2 and Valkey.
            || details.starts_with("The user executing the script can't")
            || details.starts_with("ACL failure in script")
            // At the end of a transaction.
            || self.code() == "EXECABORT" && details.contains(" has no permissions ")
    }

    fn message(&self) -> String {
        let end = match self.code() {
            "DENIED" => ". ",
            _ => ", with args beginning with",
        };
        let details = self.details().and_then(|details| details.split(end).next());
        match details {
            Some(details) => format!("{} {details}", self.code()),
            None => self.code().to_owned(),
        }
    }

    fn innermost(self) -> Self {
        let whole = format!("{} {}", self.code(), self.details().unwrap_or_default());
        let bare = after_positions(after_call(after_exec(&whole)));
        if bare.len() == whole.len() {
            return self;
        }
        let bare = bare.strip_prefix('-').unwrap_or(bare);
        let line = if bare.split(' ').next().is_some_and(is_code) {
            format!("-{bare}\r\n")
        } else {
            format!("-ERR {bare}\r\n")
        };
        match redis::parse_redis_value(line.as_bytes()) {
            Ok(Value::ServerError(bare)) => bare,
            _ => self,
        }
    }
}

/// An error of the ACL becomes `access-denied`; any other keeps Redis's message.
impl From<&ServerError> for Error {
    fn from(error: &ServerError) -> Self {
        if error.is_acl_denied() {
            return Self::access_denied();
        }
        let kind = if is_code(error.code()) {
            ErrorKind::ServerError(error.code().to_owned())
        } else {
            ErrorKind::Other
        };
        Self::new(kind, error.message())
    }
}

/// Returns true if a word looks like a code of Redis, all of which are capital letters. The errors of
/// scripts, and of servers that are not Redis, may begin with any word.
fn is_code(word: &str) -> bool {
    (2..=MAX_CODE_LENGTH).contains(&word.len())
        && word.bytes().all(|byte| byte.is_ascii_uppercase())
}

/// The text after `EXECABORT Transaction discarded because of: `, if that is an error with a code.
fn after_exec(text: &str) -> &str {
    text.strip_prefix("EXECABORT Transaction discarded because of: ")
        .filter(|rest| rest.split(' ').next().is_some_and(is_code))
        .unwrap_or(text)
}

/// The text after `ERR Error running script (call to f_<hash>): `.
fn after_call(text: &str) -> &str {
    text.strip_prefix("ERR Error running script (")
        .and_then(|rest| rest.split_once("): "))
        .map_or(text, |(_, rest)| rest)
}

/// The text after positions such as `@user_script:1: ` and `@user_script: 1: `.
fn after_positions(mut text: &str) -> &str {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_capital_words_of_a_server_are_codes() {
        for (text, code) in [
            ("WRONGTYPE Operation against a key", Some("WRONGTYPE")),
            ("NOPERM this user has no permissions", Some("NOPERM")),
            ("A key that a client wrote", None),
            ("key that a client wrote", None),
        ] {
            let error = Error::from(&server_error(text));
            assert_eq!(error.server_code(), code, "{text}");
        }
        let own = Error::other("ERR is how some errors begin");
        assert_eq!(own.server_code(), None, "the text is not parsed");
    }

    #[test]
    fn messages_leave_out_repeated_arguments() {
        let error =
            server_error("ERR unknown command 'AUTH', with args beginning with: 'hunter2' ");
        assert_eq!(error.message(), "ERR unknown command 'AUTH'");
    }

    #[test]
    fn acl_errors_in_scripts_are_access_denied_on_every_version() {
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
            let error = server_error(text).innermost();
            assert_eq!(Error::from(&error), Error::access_denied(), "{text}");
        }
    }

    #[test]
    fn errors_in_scripts_equal_those_without_a_script() {
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
            (
                "EXECABORT Transaction discarded because of: BUSY Redis is busy running a script.",
                "BUSY",
                "BUSY Redis is busy running a script.",
            ),
            (
                "EXECABORT Transaction discarded because of previous errors.",
                "EXECABORT",
                "EXECABORT Transaction discarded because of previous errors.",
            ),
        ] {
            let error = server_error(text).innermost();
            assert_eq!((error.code(), &*error.message()), (code, words));
        }
    }

    #[test]
    fn transient_errors_are_not_permanent() {
        for (text, is_permanent) in [
            ("MOVED 12182 127.0.0.1:7000", false),
            ("ASK 12182 127.0.0.1:7000", false),
            ("CLUSTERDOWN Hash slot not served", false),
            ("LOADING Redis is loading the dataset in memory", false),
            ("MASTERDOWN Link with MASTER is down", false),
            ("BUSY Redis is busy running a script", false),
            ("TRYAGAIN Multiple keys request during rehashing", false),
            ("ERR max number of clients reached", false),
            (
                "ERR max number of clients + cluster connections reached",
                false,
            ),
            ("ERR unknown command 'PTTL'", true),
            (
                "NOPERM User ann has no permissions to run the 'pttl' command",
                true,
            ),
        ] {
            assert_eq!(server_error(text).is_permanent(), is_permanent, "{text}");
        }
    }

    fn server_error(text: &str) -> ServerError {
        match redis::parse_redis_value(format!("-{text}\r\n").as_bytes()) {
            Ok(Value::ServerError(error)) => error,
            other => panic!("not an error: {other:?}"),
        }
    }
}
