//! `wrpc:keyvalue/batch`: several keys in one command.
//!
//! An empty list succeeds without a command: an error would stop the component's instance.

use bytes::Bytes;
use tokio::time::Instant;

use crate::cache::entries::CachedValue;
use crate::error::Error;
use crate::link::Link;
use crate::redis::command::Command;
use crate::redis::command::batch::Batch;
use crate::redis::reply;

/// The values of several keys: one entry for each requested key, in that order. A missing key and
/// a value of another Redis type are `None`.
///
/// # Errors
///
/// As [`Link::execute`].
pub(crate) async fn get_many(
    link: &Link,
    bucket: &str,
    keys: &[&str],
    deadline: Instant,
) -> Result<Vec<Option<Bytes>>, Error> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let bucket = link.bucket(bucket)?;
    let keys: Vec<_> = keys.iter().map(|key| bucket.redis_key(key)).collect();
    let cached: Option<Vec<CachedValue>> = keys.iter().map(|key| link.peek(key)).collect();
    if let Some(cached) = cached {
        return Ok(cached.into_iter().map(CachedValue::into_option).collect());
    }
    let mget = Command::MGet {
        keys: Batch::all(&keys),
    };
    let values = link.execute(&mget, deadline).await?;
    reply::array("MGET", values, keys.len())?
        .into_iter()
        .map(|value| reply::optional_bytes("MGET", value))
        .collect()
}

/// Sets several keys atomically; a key given twice gets its last value.
///
/// # Errors
///
/// As [`Link::execute`], for a value that is too large, and on a link that is read only.
pub(crate) async fn set_many(
    link: &Link,
    bucket: &str,
    pairs: &[(&str, &[u8])],
    deadline: Instant,
) -> Result<(), Error> {
    if pairs.is_empty() {
        return Ok(());
    }
    let bucket = link.writable_bucket(bucket)?;
    for (_, value) in pairs {
        link.check_size(value.len())?;
    }
    let pairs: Vec<_> = pairs
        .iter()
        .map(|(key, value)| (bucket.redis_key(key), *value))
        .collect();
    let pairs = Batch::all(&pairs);
    let command = match link.ttl_ms() {
        Some(ttl_ms) => Command::MSetWithTtl { pairs, ttl_ms },
        None => Command::MSet { pairs },
    };
    link.execute(&command, deadline).await?;
    Ok(())
}

/// Deletes several keys; missing ones are a success.
///
/// # Errors
///
/// As [`Link::execute`], and on a link that is read only.
pub(crate) async fn delete_many(
    link: &Link,
    bucket: &str,
    keys: &[&str],
    deadline: Instant,
) -> Result<(), Error> {
    if keys.is_empty() {
        return Ok(());
    }
    let bucket = link.writable_bucket(bucket)?;
    let keys: Vec<_> = keys.iter().map(|key| bucket.redis_key(key)).collect();
    let del = Command::Del {
        keys: Batch::all(&keys),
    };
    let deleted = link.execute(&del, deadline).await?;
    reply::integer("DEL", &deleted)?;
    Ok(())
}
