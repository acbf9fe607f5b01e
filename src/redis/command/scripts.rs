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

/// Acquires the lease `KEYS[1]` for the holder `ARGV[1]` for `ARGV[2]` milliseconds, or renews it. `ARGV[3]`
/// is how far the holder's queue is behind, in milliseconds.
///
/// The value of the lease is `holder:behind:standbys`, without a holder after a release. `standbys` becomes 2
/// whenever another process fails to acquire it, and decreases with every renewal: above 0, a process is
/// waiting to take over.
///
/// Returns an array: 0 if another process has the lease, 1 if it was acquired, 2 if it was renewed; how far
/// the previous holder was behind, or -1; and when that was written, in milliseconds ago, or -1. Without the
/// right to `PTTL` the time is unknown.
pub(crate) const ACQUIRE_LEASE: &str = r"
local value = redis.call('GET', KEYS[1])
local holder, behind, standbys, age = '', -1, 0, -1
if value then
  local name, ms, others = string.match(value, '^(%w*):(%d+):(%d)$')
  if name then
    holder, behind, standbys = name, tonumber(ms), tonumber(others)
  else
    holder = value
  end
  local left = redis.pcall('PTTL', KEYS[1])
  if type(left) == 'number' and left >= 0 then age = ARGV[2] - left end
end
if holder ~= '' and holder ~= ARGV[1] then
  if behind >= 0 and standbys < 2 then
    redis.call('SET', KEYS[1], holder .. ':' .. behind .. ':2', 'KEEPTTL')
  end
  return {0, behind, age}
end
local renewed = holder == ARGV[1]
if renewed then standbys = math.max(standbys - 1, 0) else standbys = 0 end
redis.call('SET', KEYS[1], ARGV[1] .. ':' .. ARGV[3] .. ':' .. standbys, 'PX', ARGV[2])
return {renewed and 2 or 1, behind, age}
";

/// Releases the lease `KEYS[1]`, if `ARGV[1]` has it. Its successor reads for `ARGV[2]` milliseconds which
/// changes it has to deliver: those of the queue, which is `ARGV[3]` milliseconds behind, or without a
/// waiting process those of the last `ARGV[4]` milliseconds. At the time of the request the lease
/// had at most `ARGV[5]` milliseconds left; what is missing now was spent on the way.
///
/// Returns 1 if another process has the lease, or is waiting to take over.
pub(crate) const RELEASE_LEASE: &str = r"
local value = redis.call('GET', KEYS[1])
if not value then return 0 end
local holder, standbys = string.match(value, '^(%w*):%d+:(%d)$')
if holder ~= ARGV[1] then return holder == '' and 0 or 1 end
local left = redis.pcall('PTTL', KEYS[1])
if type(left) ~= 'number' then left = 0 end
local inherits = standbys ~= '0'
local behind = (inherits and ARGV[3] or ARGV[4]) + math.max(ARGV[5] - left, 0)
redis.call('SET', KEYS[1], ':' .. behind .. ':0', 'PX', ARGV[2])
return inherits and 1 or 0
";

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
