//! `wrpc:keyvalue/batch`: several keys in one command.
//!
//! As `store`, but for many keys. An empty list is a success without asking Redis, since an error
//! would stop the component's instance.

use bytes::Bytes;
use redis::Value;
use tokio::time::Instant;

use crate::error::Error;
use crate::keyvalue::store::{SplitBytes, set_command};
use crate::link::Link;
use crate::redis::command::Idempotency;
use crate::redis::reply;

/// The values of several keys: one entry for each key asked, in the order asked. A missing key and
/// a value of another Redis type are `None`.
///
/// # Errors
///
/// As [`Link::ask`].
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
    if let Some(values) = keys.iter().map(|key| link.peek(key)).collect() {
        return Ok(values);
    }
    let mut mget = redis::Cmd::with_capacity(keys.len() + 1, keys.len() * 16);
    mget.arg("MGET");
    for key in &keys {
        mget.arg(key.as_ref());
    }
    let values = link.ask(mget, Idempotency::Idempotent, deadline).await?;
    reply::array("MGET", values, keys.len())?
        .into_iter()
        .map(|value| reply::optional_bytes("MGET", value))
        .collect()
}

/// Sets several keys, all of them or none; of a key given twice the last value stays.
///
/// # Errors
///
/// As [`Link::ask`], for a value that is too large, and on a link that is read only.
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
    if link.ttl_ms().is_some() {
        // `MSET` knows no time to live.
        let mut sets = redis::Pipeline::with_capacity(pairs.len());
        for (key, value) in pairs {
            sets.add_command(set_command(
                link,
                &bucket.redis_key(key),
                SplitBytes(value, &[]),
            ));
        }
        link.transaction(sets, Idempotency::Idempotent, deadline)
            .await?;
        return Ok(());
    }
    let bytes = pairs
        .iter()
        .map(|(key, value)| key.len() + value.len())
        .sum();
    let mut mset = redis::Cmd::with_capacity(pairs.len() * 2 + 1, bytes);
    mset.arg("MSET");
    for (key, value) in pairs {
        mset.arg(bucket.redis_key(key).as_ref()).arg(*value);
    }
    link.ask(mset, Idempotency::Idempotent, deadline).await?;
    Ok(())
}

/// Deletes several keys; missing ones are a success.
///
/// # Errors
///
/// As [`Link::ask`], and on a link that is read only.
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
    let mut del = redis::Cmd::with_capacity(keys.len() + 1, keys.len() * 16);
    del.arg("DEL");
    for key in keys {
        del.arg(bucket.redis_key(key).as_ref());
    }
    let deleted: Value = link.ask(del, Idempotency::Idempotent, deadline).await?;
    reply::integer("DEL", &deleted)?;
    Ok(())
}
