//! Conversion of Redis's replies to the types of the interface: bytes, numbers, lists.
//!
//! The conversions of the redis crate are not used: their errors repeat stored data (`errors/mod.rs`
//! of redis 1.8), and its integers wrap (redis-rs#2332).

use bytes::Bytes;
pub(crate) use redis::Value;

use crate::error::Error;

/// The value of a key, or `None`.
///
/// # Errors
///
/// The reply has another type.
pub(crate) fn optional_bytes(command: &str, reply: Value) -> Result<Option<Bytes>, Error> {
    match reply {
        Value::Nil => Ok(None),
        Value::BulkString(bytes) => Ok(Some(Bytes::from(bytes))),
        Value::SimpleString(text) => Ok(Some(Bytes::from(text))),
        // The redis crate turns `+OK` into a type of its own, which no value has.
        _ => Err(Error::unexpected_reply(command)),
    }
}

/// The text of a reply; `None` if it has another type.
pub(crate) fn text(reply: &Value) -> Option<&str> {
    match reply {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Some(text),
        _ => None,
    }
}

/// A whole number, also if Redis writes it as a string.
///
/// # Errors
///
/// The reply has another type.
pub(crate) fn integer(command: &str, reply: &Value) -> Result<i64, Error> {
    match reply {
        Value::Int(number) => Some(*number),
        digits => text(digits).and_then(|digits| digits.parse().ok()),
    }
    .ok_or_else(|| Error::unexpected_reply(command))
}

/// The items of an array.
///
/// # Errors
///
/// The reply has another type, or another number of items.
pub(crate) fn array(command: &str, reply: Value, len: usize) -> Result<Vec<Value>, Error> {
    match reply {
        Value::Array(items) if items.len() == len => Ok(items),
        _ => Err(Error::unexpected_reply(command)),
    }
}

/// A page of `SCAN`: the next cursor, and the keys.
///
/// # Errors
///
/// The reply has another type.
pub(crate) fn scan_page(reply: Value) -> Result<(u64, Vec<Value>), Error> {
    let wrong = || Error::unexpected_reply("SCAN");
    let [cursor, Value::Array(keys)] =
        <[Value; 2]>::try_from(array("SCAN", reply, 2)?).map_err(|_| wrong())?
    else {
        return Err(wrong());
    };
    let cursor = text(&cursor)
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(wrong)?;
    Ok((cursor, keys))
}

/// The keys of a page that are UTF-8, and the number of those that are not.
pub(crate) fn text_keys(keys: Vec<Value>) -> (Vec<String>, usize) {
    let total = keys.len();
    let text = keys.into_iter().filter_map(|key| match key {
        Value::BulkString(bytes) => String::from_utf8(bytes).ok(),
        _ => None,
    });
    let text: Vec<String> = text.collect();
    let skipped = total - text.len();
    (text, skipped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_repeat_no_data() {
        let secret = || Value::BulkString(b"hunter2".to_vec());
        let errors = [
            integer("INCRBY", &secret()).unwrap_err(),
            array("MGET", secret(), 1).unwrap_err(),
            scan_page(secret()).unwrap_err(),
            scan_page(Value::Array(vec![secret(), secret()])).unwrap_err(),
            optional_bytes("GET", Value::Array(vec![secret()])).unwrap_err(),
        ];
        for error in errors {
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn numbers_are_exact() {
        let most = i64::MAX.to_string();
        let reply = Value::BulkString(most.into_bytes());
        assert_eq!(integer("INCRBY", &reply), Ok(i64::MAX));
        assert!(integer("INCRBY", &Value::Double(1.0)).is_err());
    }
}
