//! What kind of failure an error is, for `error.type`: one of few words, none of which holds data.
//!
//! The error's own text stays out of the signals: what Redis says may repeat a key.

use crate::error::Error;

/// No code of Redis is longer.
const LONGEST_CODE: usize = 32;

/// What errors made by kvredis begin with.
const OWN: [(&str, &str); 9] = [
    ("cannot connect to ", "unreachable"),
    ("cannot reach ", "unreachable"),
    ("no answer from ", "timeout"),
    ("no link of component ", "no_link"),
    ("the call waited for its turn ", "overloaded"),
    ("the connection to ", "connection_lost"),
    ("the parameters ", "bad_parameters"),
    ("the provider holds as many bytes ", "overloaded"),
    ("too many calls waiting ", "overloaded"),
];

/// The kind of an error.
pub fn kind(error: &Error) -> &str {
    let text = match error {
        Error::NoSuchStore => return "no-such-store",
        Error::AccessDenied => return "access-denied",
        Error::Other(text) => text,
    };
    if let Some(code) = redis_code(error) {
        return code;
    }
    if text.contains(" refuses the connection: ") {
        return "refused";
    }
    let own = OWN.iter().find(|(start, _)| text.starts_with(start));
    own.map_or("_OTHER", |(_, kind)| kind)
}

/// The code that Redis's error begins with, if it is one of Redis.
pub fn redis_code(error: &Error) -> Option<&str> {
    match error {
        Error::NoSuchStore => None,
        // A command can be denied by Redis alone.
        Error::AccessDenied => Some("NOPERM"),
        Error::Other(text) => {
            let code = text.split(' ').next()?;
            let is_code = (2..=LONGEST_CODE).contains(&code.len())
                && code.bytes().all(|byte| byte.is_ascii_uppercase());
            is_code.then_some(code)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_redis_are_known_by_their_code() {
        let error = Error::other("WRONGTYPE Operation against a key");
        assert_eq!(redis_code(&error), Some("WRONGTYPE"));
        assert_eq!(kind(&error), "WRONGTYPE");
        assert_eq!(redis_code(&Error::AccessDenied), Some("NOPERM"));
        assert_eq!(kind(&Error::AccessDenied), "access-denied");
    }

    #[test]
    fn own_errors_have_a_word_and_no_code() {
        let error = Error::other("no answer from redis://h:1 within 10 ms");
        assert_eq!((redis_code(&error), kind(&error)), (None, "timeout"));
        let error = Error::other("A key that somebody wrote");
        assert_eq!((redis_code(&error), kind(&error)), (None, "_OTHER"));
    }
}
