//! `wrpc:keyvalue/atomics`: counting.
//!
//! `INCRBY` alone would let a counter become negative, which the interface cannot express: a script
//! adds and checks at once.

use tokio::time::Instant;

use crate::error::Error;
use crate::link::Link;
use crate::redis::command::Command;
use crate::redis::command::scripts::ScriptForm;
use crate::redis::reply;
use crate::redis::reply::Value;

/// Adds `delta` to the number at `key`, a missing key counting as zero.
///
/// # Errors
///
/// As [`Link::execute`]; for a value that is not an integer, for a sum below zero or above
/// `i64::MAX`, and for such a delta, and then nothing has changed. If the connection was lost after the
/// command was sent, the error says that the sum may have been stored.
pub(crate) async fn increment(
    link: &Link,
    bucket: &str,
    key: &str,
    delta: u64,
    deadline: Instant,
) -> Result<u64, Error> {
    let bucket = link.writable_bucket(bucket)?;
    if i64::try_from(delta).is_err() {
        return Err(Error::other(format!(
            "the delta {delta} is more than Redis can add: expected at most {}",
            i64::MAX
        )));
    }
    let key = bucket.redis_key(key);
    let increment = |script| Command::Increment {
        key: &key,
        delta,
        ttl_ms: link.ttl_ms(),
        script,
    };
    let sum = match link.execute(&increment(ScriptForm::Hash), deadline).await {
        // Redis forgets scripts when it restarts, and learns this one by executing it.
        Err(error) if error.server_code() == Some("NOSCRIPT") => {
            link.execute(&increment(ScriptForm::Source), deadline)
                .await?
        }
        sum => sum?,
    };
    if sum == Value::Nil {
        return Err(Error::other(
            "the stored number is negative, also after adding the delta: nothing was changed",
        ));
    }
    u64::try_from(reply::integer("INCRBY", &sum)?).map_err(|_| Error::unexpected_reply("INCRBY"))
}
