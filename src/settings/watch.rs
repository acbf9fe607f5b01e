//! The parser of the setting `WATCH`: the keys whose changes a component receives, and the kinds of
//! changes.
//!
//! A list of `SET@key` and `DEL@key`, where a key may be one of Redis's glob patterns.
//! `link::keyspace` maps the keys to keys of Redis.

use crate::settings::error::InvalidValue;

const EXPECTED: &str = "SET@key and DEL@key, separated by commas; a key may be a pattern of Redis \
                        (`\\` takes a special character literally, also a comma)";

/// A regular expression (ECMA-262) for the texts that [`parse`] accepts.
pub(crate) const PATTERN: &str = concat!(
    r"^[\s,]*(([Ss][Ee][Tt]|[Dd][Ee][Ll])\s*@\s*(\\([\s\S]|$)|[^\\,\s])(\\([\s\S]|$)|[^\\,])*",
    r"(,[\s,]*|$))*$",
);

/// Keys whose changes a component receives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WatchPattern {
    /// A glob pattern of Redis for keys as the component names them.
    pub(crate) pattern: String,
    /// Report values that are set.
    pub(crate) on_set: bool,
    /// Report keys that are removed.
    pub(crate) on_delete: bool,
}

/// Parses the list; entries of one pattern become one.
pub(crate) fn parse(text: &str) -> Result<Vec<WatchPattern>, InvalidValue> {
    let mut patterns: Vec<WatchPattern> = Vec::new();
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
        match patterns.iter_mut().find(|known| known.pattern == pattern) {
            Some(known) => {
                known.on_set |= on_set;
                known.on_delete |= on_delete;
            }
            None => patterns.push(WatchPattern {
                pattern: pattern.to_owned(),
                on_set,
                on_delete,
            }),
        }
    }
    Ok(patterns)
}

/// The entries between unescaped commas, without the white space around them.
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

/// Removes white space around an entry, except an escaped one at its end.
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

    fn watched(pattern: &str, on_set: bool, on_delete: bool) -> WatchPattern {
        WatchPattern {
            pattern: pattern.to_owned(),
            on_set,
            on_delete,
        }
    }

    #[test]
    fn entries_of_one_pattern_are_merged() {
        assert_eq!(
            parse(" SET@a:b , del@user:*,\nDEL@a:b,").unwrap(),
            [watched("a:b", true, true), watched("user:*", false, true)]
        );
        assert_eq!(parse("").unwrap(), []);
        assert_eq!(parse("SET@me@home").unwrap()[0].pattern, "me@home");
    }

    #[test]
    fn escaped_separators_are_part_of_the_key() {
        assert_eq!(
            parse(r"SET@a\,b,SET@c\\,SET@d\ ,SET@e\\ ").unwrap(),
            [r"a\,b", r"c\\", r"d\ ", r"e\\"].map(|pattern| watched(pattern, true, false))
        );
    }

    #[test]
    fn malformed_lists_are_rejected() {
        for text in ["a", "SET", "SET@", "GET@a", "SET@a,b", "@a", "SET@a,,DEL@"] {
            assert!(parse(text).is_err(), "{text} must be invalid");
        }
    }
}
