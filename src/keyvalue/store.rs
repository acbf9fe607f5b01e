//! `wrpc:keyvalue/store`: single keys, and listings.
//!
//! Turns each function into a command and its answer into a result. Which key a bucket's key is in
//! Redis is for `keyspace`, getting an answer at all for `connection`.

use bytes::{BufMut as _, Bytes};
use redis::{RedisWrite, ToRedisArgs, Value};
use tokio::time::Instant;

use crate::error::Error;
use crate::link::Link;
use crate::redis::command::Idempotency;
use crate::redis::reply;

/// The bytes of a value as they came: in one part, or in two that nobody has put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SplitBytes<'a>(pub &'a [u8], pub &'a [u8]);

/// A page of keys.
#[derive(Debug, PartialEq, Eq)]
pub struct KeyResponse {
    /// The keys of this page.
    pub keys: Vec<String>,
    /// Where the next page continues; it is Redis's own cursor, so that any process of the
    /// provider can go on with it.
    pub cursor: Option<u64>,
}

/// The value of a key.
///
/// # Errors
///
/// As [`Link::ask`]; a value of another Redis type is Redis's WRONGTYPE.
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
/// As [`Link::ask`], for a value that is too large, and on a link that is read only.
pub(crate) async fn set(
    link: &Link,
    bucket: &str,
    key: &str,
    value: SplitBytes<'_>,
    deadline: Instant,
) -> Result<(), Error> {
    let bucket = link.writable_bucket(bucket)?;
    link.check_size(value.size())?;
    let set = set_command(link, &bucket.redis_key(key), value);
    link.ask(set, Idempotency::Idempotent, deadline).await?;
    Ok(())
}

/// Deletes a key; a missing one is a success.
///
/// # Errors
///
/// As [`Link::ask`], and on a link that is read only.
pub(crate) async fn delete(
    link: &Link,
    bucket: &str,
    key: &str,
    deadline: Instant,
) -> Result<(), Error> {
    let bucket = link.writable_bucket(bucket)?;
    let mut del = redis::cmd("DEL");
    del.arg(bucket.redis_key(key).as_ref());
    link.ask(del, Idempotency::Idempotent, deadline).await?;
    Ok(())
}

/// Whether a key has a value, of whichever type.
///
/// # Errors
///
/// As [`Link::ask`].
pub(crate) async fn exists(
    link: &Link,
    bucket: &str,
    key: &str,
    deadline: Instant,
) -> Result<bool, Error> {
    let bucket = link.bucket(bucket)?;
    let key = bucket.redis_key(key);
    if let Some(value) = link.peek(&key) {
        return Ok(value.is_some());
    }
    let mut exists = redis::cmd("EXISTS");
    exists.arg(key.as_ref());
    let count = link.ask(exists, Idempotency::Idempotent, deadline).await?;
    Ok(reply::integer("EXISTS", &count)? > 0)
}

/// A page of a bucket's keys: as soon as there are any, so that no page is much larger than
/// `SCAN_COUNT`. Where only other buckets' keys come, it goes on for half of the call's time.
///
/// # Errors
///
/// As [`Link::ask`].
pub(crate) async fn list_keys(
    link: &Link,
    bucket: &str,
    cursor: Option<u64>,
    deadline: Instant,
) -> Result<KeyResponse, Error> {
    let bucket = link.bucket(bucket)?;
    let pattern = bucket.pattern();
    let now = Instant::now();
    let enough = now + deadline.saturating_duration_since(now) / 2;
    let mut cursor = cursor.unwrap_or_default();
    loop {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor);
        if let Some(pattern) = &pattern {
            scan.arg("MATCH").arg(pattern);
        }
        scan.arg("COUNT").arg(link.settings().scan_count);
        let page = link.ask(scan, Idempotency::Idempotent, deadline).await?;
        let (next, found) = reply::scan_page(page)?;
        let found_count = found.len();
        let redis_keys: Vec<String> = found.into_iter().filter_map(text).collect();
        link.record_skipped_keys(found_count - redis_keys.len());
        let keys: Vec<String> = redis_keys
            .iter()
            .filter_map(|key| bucket.key_of(key).map(str::to_owned))
            .collect();
        if next == 0 || !keys.is_empty() || Instant::now() >= enough {
            let cursor = (next != 0).then_some(next);
            return Ok(KeyResponse { keys, cursor });
        }
        cursor = next;
    }
}

/// `SET`, with the link's time to live.
pub(crate) fn set_command(link: &Link, redis_key: &str, value: SplitBytes<'_>) -> redis::Cmd {
    let mut set = redis::Cmd::with_capacity(5, redis_key.len() + value.size() + 32);
    set.arg("SET").arg(redis_key).arg(value);
    if let Some(ttl) = link.ttl_ms() {
        set.arg("PX").arg(ttl);
    }
    set
}

impl SplitBytes<'_> {
    /// How many bytes they are together.
    pub fn size(self) -> usize {
        self.0.len() + self.1.len()
    }
}

impl ToRedisArgs for SplitBytes<'_> {
    fn write_redis_args<W: ?Sized + RedisWrite>(&self, out: &mut W) {
        let mut argument = out.bufmut_for_next_arg(self.size());
        argument.put_slice(self.0);
        argument.put_slice(self.1);
    }
}

fn text(key: Value) -> Option<String> {
    match key {
        Value::BulkString(bytes) => String::from_utf8(bytes).ok(),
        _ => None,
    }
}
