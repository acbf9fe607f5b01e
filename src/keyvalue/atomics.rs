//! `wrpc:keyvalue/atomics`: counting.
//!
//! Redis's `INCRBY` alone would let a negative counter through, which the interface has no number
//! for, so the check and the addition are one script.

use std::sync::LazyLock;

use redis::{Cmd, Script, Value};
use tokio::time::Instant;

use crate::error::Error;
use crate::link::Link;
use crate::redis::command::Idempotency;
use crate::redis::reply;

/// Adds, takes it back if the sum is negative, and gives a key that does not expire yet the time
/// to live, if there is one. Lua's numbers are exact up to 2^53 only: beyond, the sum is read back
/// as text. It is taken back by the command that added it: an ACL that allows the one and not the
/// other would leave the sum there. Redis takes no `-0`. It is taken back as well where the ACL
/// forbids what follows: who is refused must not have counted.
const INCREMENT: &str = r"
local left = ARGV[2] and redis.pcall('PTTL', KEYS[1]) or 0
if type(left) == 'table' then return left end
local sum = redis.pcall('INCRBY', KEYS[1], ARGV[1])
if type(sum) == 'table' then return sum end
local function take_back(answer)
  if ARGV[1] ~= '0' then redis.call('INCRBY', KEYS[1], '-' .. ARGV[1]) end
  return answer
end
if sum < 0 then return take_back(false) end
if left < 0 then
  local expires = redis.pcall('PEXPIRE', KEYS[1], ARGV[2])
  if type(expires) == 'table' then return take_back(expires) end
end
if sum >= 9007199254740992 then
  local text = redis.pcall('GET', KEYS[1])
  if type(text) == 'table' then return take_back(text) end
  return text
end
return sum
";

static INCREMENT_HASH: LazyLock<String> =
    LazyLock::new(|| Script::new(INCREMENT).get_hash().to_owned());

/// Adds `delta` to the number at `key`, a missing key counting as zero.
///
/// # Errors
///
/// As [`Link::ask`]; for a value that is no whole number, for a sum below zero or above
/// `i64::MAX`, and for such a delta, and then nothing has changed. Where the connection broke after
/// the request was sent, it says that the sum may have been stored.
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
    let script = |command: &str, script: &str| {
        let mut increment = Cmd::with_capacity(6, key.len() + script.len() + 48);
        increment.arg(command).arg(script).arg(1);
        increment.arg(key.as_ref()).arg(delta);
        if let Some(ttl) = link.ttl_ms() {
            increment.arg(ttl);
        }
        increment
    };
    let by_hash = script("EVALSHA", &INCREMENT_HASH);
    let sum = match link
        .ask(by_hash, Idempotency::NotIdempotent, deadline)
        .await
    {
        Err(error) if error.server_code() == Some("NOSCRIPT") => {
            // Redis forgets scripts when it restarts, and learns this one by running it.
            let in_full = script("EVAL", INCREMENT);
            link.ask(in_full, Idempotency::NotIdempotent, deadline)
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
