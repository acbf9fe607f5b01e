//! The Lua scripts that kvredis sends, each of which needs to be atomic.

use std::sync::LazyLock;

use redis::Script;

/// Adds `ARGV[1]` to `KEYS[1]` and undoes the addition if the sum is negative, which the interface
/// cannot express. With `ARGV[2]`, a key that does not expire yet gets that time to live in milliseconds.
///
/// - Lua's numbers are exact up to 2^53 only: a larger sum is read back as text.
/// - A refused call changes nothing, and leaves no key behind: the commands that follow the addition are
///   tried before it. `PEXPIRE` with an invalid time is refused by the ACL or for its argument.
/// - A negative sum is undone by `INCRBY` itself, because the ACL may allow no other command. The key
///   existed then. Redis does not accept `-0`.
const INCREMENT: &str = r"
local ttl = ARGV[2] and redis.pcall('PTTL', KEYS[1]) or 0
if type(ttl) == 'table' then return ttl end
if ttl < 0 then
  local trial = redis.pcall('PEXPIRE', KEYS[1], 'x')
  if not string.find(trial.err, 'not an integer', 1, true) then return trial end
end
local limit = 9007199254740992
if tonumber(ARGV[1]) >= limit then
  local trial = redis.pcall('GET', KEYS[1])
  if type(trial) == 'table' then return trial end
end
local sum = redis.pcall('INCRBY', KEYS[1], ARGV[1])
if type(sum) == 'table' then return sum end
local function undo(reply)
  if ARGV[1] ~= '0' then redis.call('INCRBY', KEYS[1], '-' .. ARGV[1]) end
  return reply
end
if sum < 0 then return undo(false) end
if sum >= limit then
  local text = redis.pcall('GET', KEYS[1])
  if type(text) == 'table' then return undo(text) end
  sum = text
end
if ttl < 0 then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return sum
";

static INCREMENT_HASH: LazyLock<String> =
    LazyLock::new(|| Script::new(INCREMENT).get_hash().to_owned());

/// Acquires the lease `KEYS[1]` for the holder `ARGV[1]` for `ARGV[2]` milliseconds, or renews it.
/// Returns 1 if the holder has it then.
pub(crate) const ACQUIRE_LEASE: &str = "local holder = redis.call('GET', KEYS[1]) \
     if holder and holder ~= ARGV[1] then return 0 end \
     redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) return 1";

/// Releases the lease, if the holder has it.
pub(crate) const RELEASE_LEASE: &str = "if redis.call('GET', KEYS[1]) == ARGV[1] then \
     return redis.call('DEL', KEYS[1]) end return 0";

/// The form in which a script is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ScriptForm {
    /// By its hash, which a server knows once it has executed the script.
    Hash,
    /// In full.
    Source,
}

impl ScriptForm {
    /// The argument that names the script of `increment`.
    pub(crate) fn argument(self) -> &'static str {
        match self {
            Self::Hash => &INCREMENT_HASH,
            Self::Source => INCREMENT,
        }
    }
}
