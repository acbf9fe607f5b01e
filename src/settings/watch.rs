//! The setting `WATCH`: which keys a component is told of, and of which changes.
//!
//! A list of `SET@key` and `DEL@key`, where a key may be one of Redis's glob patterns. Which keys
//! of Redis that means under a link's prefix and bucket is for `keyspace`.

use crate::settings::InvalidValue;

const EXPECTED: &str = "SET@key and DEL@key, separated by commas; a key may be a pattern of Redis \
                        (`\\` takes a special character literally, also a comma)";

/// A regular expression (ECMA-262) for the texts that [`parse`] takes.
pub(crate) const PATTERN: &str = concat!(
    r"^[\s,]*(([Ss][Ee][Tt]|[Dd][Ee][Ll])\s*@\s*(\\([\s\S]|$)|[^\\,\s])(\\([\s\S]|$)|[^\\,])*",
    r"(,[\s,]*|$))*$",
);

/// Keys that a component is told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Watched {
    /// A glob pattern of Redis for the keys as the component names them.
    pub(crate) pattern: String,
    /// Whether it is told of values that are set.
    pub(crate) on_set: bool,
    /// Whether it is told of keys that are gone.
    pub(crate) on_delete: bool,
}

/// Reads the list; entries of one pattern become one.
pub(crate) fn parse(text: &str) -> Result<Vec<Watched>, InvalidValue> {
    let mut watched: Vec<Watched> = Vec::new();
    for entry in entries(text) {
        let (change, pattern) = entry
            .split_once('@')
            .filter(|(_, pattern)| !pattern.is_empty())
            .ok_or_else(|| InvalidValue::expected(EXPECTED))?;
        let (on_set, on_delete) = match change.trim_end().to_ascii_uppercase().as_str() {
            "SET" => (true, false),
            "DEL" => (false, true),
            _ => return Err(InvalidValue::expected(EXPECTED)),
        };
        match watched.iter_mut().find(|w| w.pattern == pattern) {
            Some(known) => {
                known.on_set |= on_set;
                known.on_delete |= on_delete;
            }
            None => watched.push(Watched {
                pattern: pattern.to_owned(),
                on_set,
                on_delete,
            }),
        }
    }
    Ok(watched)
}

/// The entries between commas that no `\` precedes, without the white space around them.
fn entries(text: &str) -> impl Iterator<Item = &str> {
    let mut escaped = false;
    text.split(move |character| {
        let separates = character == ',' && !escaped;
        escaped = character == '\\' && !escaped;
        separates
    })
    .map(trim)
    .filter(|entry| !entry.is_empty())
}

/// Without white space around it, but for an escaped one at the end.
fn trim(entry: &str) -> &str {
    let entry = entry.trim_start();
    let trimmed = entry.trim_end();
    let backslashes = trimmed.len() - trimmed.trim_end_matches('\\').len();
    let escaped = if backslashes % 2 == 1 {
        entry[trimmed.len()..].chars().next()
    } else {
        None
    };
    &entry[..trimmed.len() + escaped.map_or(0, char::len_utf8)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watched(pattern: &str, on_set: bool, on_delete: bool) -> Watched {
        Watched {
            pattern: pattern.to_owned(),
            on_set,
            on_delete,
        }
    }

    #[test]
    fn lists_are_read() {
        assert_eq!(
            parse(" SET@a:b , del@user:*,\nDEL@a:b,").unwrap(),
            [watched("a:b", true, true), watched("user:*", false, true)]
        );
        assert_eq!(parse("").unwrap(), []);
        assert_eq!(parse("SET@me@home").unwrap()[0].pattern, "me@home");
    }

    #[test]
    fn escapes_keep_what_separates() {
        assert_eq!(
            parse(r"SET@a\,b,SET@c\\,SET@d\ ,SET@e\\ ").unwrap(),
            [r"a\,b", r"c\\", r"d\ ", r"e\\"].map(|pattern| watched(pattern, true, false))
        );
    }

    #[test]
    fn anything_else_is_wrong() {
        for text in ["a", "SET", "SET@", "GET@a", "SET@a,b", "@a", "SET@a,,DEL@"] {
            assert!(parse(text).is_err(), "{text} must be wrong");
        }
    }
}
