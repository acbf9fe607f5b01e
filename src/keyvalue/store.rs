//! `wrpc:keyvalue/store`: single keys, and listings.
//!
//! Turns each function into a command and its reply into a result. `keyspace` maps keys to Redis keys;
//! `redis` is responsible for the reply.

use bytes::Bytes;
use tokio::time::Instant;

use crate::error::Error;
use crate::link::Link;
use crate::redis::command::batch::Batch;
use crate::redis::command::{Command, SplitBytes};
use crate::redis::listing::ListRequest;
use crate::redis::reply;

/// A page of keys.
#[derive(Debug, PartialEq, Eq)]
pub struct KeyResponse {
    /// The keys of this page.
    pub keys: Vec<String>,
    /// The start of the next page. It is Redis's own cursor, so that any process of the provider can
    /// continue with it.
    pub cursor: Option<u64>,
}

/// The value of a key.
///
/// # Errors
///
/// As [`Link::execute`]; WRONGTYPE for a value of another Redis type.
pub(crate) async fn get(
    link: &Link,
    bucket: &str,
    key: &str,
    deadline: Instant,
) -> Result<Option<Bytes>, Error> {
    let bucket = link.bucket(bucket)?;
    link.value(&bucket.redis_key(key), deadline).await
}

/// Sets the value of a key.
///
/// # Errors
///
/// As [`Link::execute`], for a value that is too large, and on a link that is read only.
pub(crate) async fn set(
    link: &Link,
    bucket: &str,
    key: &str,
    value: SplitBytes<'_>,
    deadline: Instant,
) -> Result<(), Error> {
    let bucket = link.writable_bucket(bucket)?;
    link.check_size(value.size())?;
    let set = Command::Set {
        key: &bucket.redis_key(key),
        value,
        ttl_ms: link.ttl_ms(),
    };
    link.execute(&set, deadline).await?;
    Ok(())
}

/// Deletes a key; a missing one is a success.
///
/// # Errors
///
/// As [`Link::execute`], and on a link that is read only.
pub(crate) async fn delete(
    link: &Link,
    bucket: &str,
    key: &str,
    deadline: Instant,
) -> Result<(), Error> {
    let bucket = link.writable_bucket(bucket)?;
    let key = [bucket.redis_key(key)];
    let del = Command::Del {
        keys: Batch::all(&key),
    };
    link.execute(&del, deadline).await?;
    Ok(())
}

/// Returns true if a key has a value of any type.
///
/// # Errors
///
/// As [`Link::execute`].
pub(crate) async fn exists(
    link: &Link,
    bucket: &str,
    key: &str,
    deadline: Instant,
) -> Result<bool, Error> {
    let bucket = link.bucket(bucket)?;
    let key = bucket.redis_key(key);
    if let Some(value) = link.peek(&key) {
        return Ok(value.is_present());
    }
    let exists = Command::Exists { key: &key };
    let count = link.execute(&exists, deadline).await?;
    Ok(reply::integer("EXISTS", &count)? > 0)
}

/// A page of a bucket's keys. Returns as soon as it has any, so that no page is much larger than
/// `SCAN_COUNT`; while Redis returns only keys of other buckets, it continues for half of the call's time.
///
/// # Errors
///
/// As [`Link::execute`].
pub(crate) async fn list_keys(
    link: &Link,
    bucket: &str,
    cursor: Option<u64>,
    deadline: Instant,
) -> Result<KeyResponse, Error> {
    let bucket = link.bucket(bucket)?;
    let pattern = bucket.pattern();
    let now = Instant::now();
    let scan_until = now + deadline.saturating_duration_since(now) / 2;
    let mut cursor = cursor.unwrap_or_default();
    loop {
        let request = ListRequest {
            cursor,
            pattern: pattern.as_deref(),
            count: link.settings().scan_count,
        };
        let page = link.list(&request, deadline).await?;
        let next = page.cursor;
        let (redis_keys, skipped) = reply::text_keys(page.keys);
        link.record_skipped_keys(skipped);
        let keys: Vec<String> = redis_keys
            .iter()
            .filter_map(|key| bucket.key_of(key).map(str::to_owned))
            .collect();
        if next == 0 || !keys.is_empty() || Instant::now() >= scan_until {
            let cursor = (next != 0).then_some(next);
            return Ok(KeyResponse { keys, cursor });
        }
        cursor = next;
    }
}
