//! The flags of Redis's setting `notify-keyspace-events`, which select the events that it publishes:
//! the missing ones, and the value that adds them and removes none.

use redis::Value;

use crate::redis::reply::text;

/// The name of the setting.
pub(crate) const SETTING: &str = "notify-keyspace-events";
/// The flags that Redis abbreviates as `A`.
const ALL: &str = "g$lshzxetd";

/// The value that adds the missing flags; `None` if none is missing.
pub(crate) fn to_set(current: &str, required: &str) -> Option<String> {
    let is_set =
        |flag: &char| current.contains(*flag) || (current.contains('A') && ALL.contains(*flag));
    let mut missing = required.chars().filter(|flag| !is_set(flag)).peekable();
    missing.peek()?;
    Some(current.chars().chain(missing).collect())
}

/// The value in a reply to `CONFIG GET`: a map in RESP3, an array in RESP2.
pub(crate) fn current(reply: &Value) -> Option<String> {
    let value = match reply {
        Value::Map(pairs) => &pairs.first()?.1,
        Value::Array(items) => items.get(1)?,
        _ => return None,
    };
    text(value).map(str::to_owned)
}

/// The action required of an operator.
pub(crate) fn advice(address: &str, to_set: &str) -> String {
    format!(
        "{address} does not publish all watched key changes: run `CONFIG SET {SETTING} \
         {to_set}` there (and persist it in its configuration file), or set WATCH_CONFIGURE_REDIS"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_flags_are_added_and_none_removed() {
        assert_eq!(to_set("", "K$g").as_deref(), Some("K$g"));
        assert_eq!(to_set("Elx", "Kgx").as_deref(), Some("ElxKg"));
        assert_eq!(to_set("AE", "K$gxe").as_deref(), Some("AEK"));
    }

    #[test]
    fn complete_flags_are_not_changed() {
        assert_eq!(to_set("AKE", "K$gxe"), None);
        assert_eq!(to_set("g$Kxe", "K$gxe"), None);
    }

    #[test]
    fn replies_of_both_protocols_are_read() {
        let bulk = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let map = Value::Map(vec![(bulk(SETTING), bulk("AK"))]);
        let array = Value::Array(vec![bulk(SETTING), bulk("")]);
        assert_eq!(current(&map).as_deref(), Some("AK"));
        assert_eq!(current(&array).as_deref(), Some(""));
        assert_eq!(current(&Value::Array(Vec::new())), None);
        assert_eq!(current(&Value::Nil), None);
    }
}
