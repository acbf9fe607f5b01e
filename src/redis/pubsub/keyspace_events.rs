//! Which changes Redis tells of: the flags in its setting `notify-keyspace-events`.
//!
//! Works out which flags are missing, and the command that adds them and removes none. Asking and
//! setting is for `subscription`.

use redis::Value;

use crate::redis::reply;

/// The name of the setting.
pub(crate) const SETTING: &str = "notify-keyspace-events";
/// The flags that Redis abbreviates as `A`.
const ALL: &str = "g$lshzxetd";

/// What has to be set so that all of `needed` are; `None` if they are.
pub(crate) fn to_set(current: &str, needed: &str) -> Option<String> {
    let is_set =
        |flag: &char| current.contains(*flag) || (current.contains('A') && ALL.contains(*flag));
    let mut missing = needed.chars().filter(|flag| !is_set(flag)).peekable();
    missing.peek()?;
    Some(current.chars().chain(missing).collect())
}

/// The value in an answer to `CONFIG GET`, which is a map or an array.
pub(crate) fn current(answer: &Value) -> Option<String> {
    let value = match answer {
        Value::Map(pairs) => &pairs.first()?.1,
        Value::Array(items) => items.get(1)?,
        _ => return None,
    };
    reply::text(value).map(str::to_owned)
}

/// What an operator has to do, in words.
pub(crate) fn in_words(address: &str, to_set: &str) -> String {
    format!(
        "{address} does not tell of all changes that are watched: run `CONFIG SET {SETTING} \
         {to_set}` there (and keep it in its configuration), or set WATCH_CONFIGURE_REDIS"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_added_and_none_removed() {
        assert_eq!(to_set("", "K$g").as_deref(), Some("K$g"));
        assert_eq!(to_set("Elx", "Kgx").as_deref(), Some("ElxKg"));
        assert_eq!(to_set("AE", "K$gxe").as_deref(), Some("AEK"));
    }

    #[test]
    fn enough_is_enough() {
        assert_eq!(to_set("AKE", "K$gxe"), None);
        assert_eq!(to_set("g$Kxe", "K$gxe"), None);
    }

    #[test]
    fn both_protocols_are_read() {
        let bulk = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let map = Value::Map(vec![(bulk(SETTING), bulk("AK"))]);
        let array = Value::Array(vec![bulk(SETTING), bulk("")]);
        assert_eq!(current(&map).as_deref(), Some("AK"));
        assert_eq!(current(&array).as_deref(), Some(""));
        assert_eq!(current(&Value::Array(Vec::new())), None);
        assert_eq!(current(&Value::Nil), None);
    }
}
