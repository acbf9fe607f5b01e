//! The commands that kvredis sends to Redis: the one place that knows each command's name, keys, access,
//! idempotency, ACL rules and bytes.
//!
//! To add a command, add a variant to [`Command`]; the compiler then asks for its [`CommandSpec`], its
//! keys and its encoding below. `batch` selects the keys of one slot, `scripts` holds the Lua scripts.

pub(crate) mod admin;
pub(crate) mod batch;
pub(crate) mod scripts;
pub(crate) mod spec;

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use bytes::BufMut as _;
use redis::{Cmd, Pipeline, RedisWrite, ToRedisArgs};
use tokio::time::Instant;

use crate::redis::command::admin::AdminCommand;
use crate::redis::command::batch::Batch;
use crate::redis::command::scripts::ScriptForm;
use crate::redis::command::spec::{Access, CommandSpec};
use crate::redis::listing::{Fingerprint, Position, RunId};

/// The maximum number of arguments of one command, its name included: Redis 6.2 closes the connection
/// when a command has more.
pub(crate) const MAX_ARGUMENTS: usize = 1024 * 1024;

/// A key as it is stored in Redis.
pub(crate) type RedisKey<'a> = Cow<'a, str>;

/// The bytes of a value as they arrived: in one part, or in two that were never joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SplitBytes<'a>(pub &'a [u8], pub &'a [u8]);

/// A command, or several that Redis executes as one.
pub(crate) enum Command<'a> {
    /// `GET`.
    Get { key: &'a str },
    /// `CLIENT CACHING YES`, `GET` and `PTTL`: a read whose result is cached. The reply is an array of
    /// the value and its time to live; the latter is nil where the value must not be cached.
    CachedGet { key: &'a str },
    /// `EXISTS`.
    Exists { key: &'a str },
    /// `PTTL`, which needs no right that a link with a cache does not need anyway.
    Pttl { key: &'a str },
    /// `SET`, with `PX` where there is a time to live.
    Set {
        key: &'a str,
        value: SplitBytes<'a>,
        ttl_ms: Option<u64>,
    },
    /// `DEL`.
    Del { keys: Batch<'a, RedisKey<'a>> },
    /// `MGET`.
    MGet { keys: Batch<'a, RedisKey<'a>> },
    /// `MSET`.
    MSet {
        pairs: Batch<'a, (RedisKey<'a>, &'a [u8])>,
    },
    /// A transaction of `SET … PX`, because `MSET` has no time to live. The reply is that of `EXEC`.
    MSetWithTtl {
        pairs: Batch<'a, (RedisKey<'a>, &'a [u8])>,
        ttl_ms: u64,
    },
    /// `SCAN`.
    Scan {
        from: ScanFrom,
        pattern: Option<&'a str>,
        count: u32,
    },
    /// The script of `increment`, by its hash or in full.
    Increment {
        key: &'a str,
        delta: u64,
        ttl_ms: Option<u64>,
        script: ScriptForm,
    },
    /// Acquires or renews the lease of `WATCH_ONCE`, see [`scripts::ACQUIRE_LEASE`].
    AcquireLease {
        key: &'a str,
        holder: &'a str,
        ttl: Duration,
        behind: Duration,
    },
    /// Releases the lease of `WATCH_ONCE`, see [`scripts::RELEASE_LEASE`].
    ReleaseLease {
        key: &'a str,
        holder: &'a str,
        ttl: Duration,
        behind: Duration,
        behind_without_queue: Duration,
        max_left: Duration,
    },
    /// A command about the connection or the server, without keys.
    Admin(AdminCommand<'a>),
}

/// Where a scan of one server continues, if that is the process which returned the cursor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScanFrom {
    pub(crate) cursor: u64,
    made_under: MadeUnder,
}

#[derive(Clone, Copy, Debug)]
enum MadeUnder {
    Process(RunId),
    /// The position that the cursor of a listing contains, and in a cluster the present partition.
    Position(Position, Option<u64>),
}

impl ScanFrom {
    /// The server's cursor within a position of a listing, under this partition.
    pub(crate) fn position(position: Position, partition: Option<u64>) -> Self {
        let cursor = match position {
            Position::Start => 0,
            Position::Server { cursor, .. } | Position::Slot { cursor, .. } => cursor,
        };
        Self {
            cursor,
            made_under: MadeUnder::Position(position, partition),
        }
    }

    /// A cursor that this process has just returned.
    pub(crate) fn process(run_id: RunId, cursor: u64) -> Self {
        Self {
            cursor,
            made_under: MadeUnder::Process(run_id),
        }
    }

    /// Where to continue at the process `run_id`: at the cursor, or from the beginning.
    pub(crate) fn at(self, run_id: RunId) -> Self {
        let is_same = self.cursor == 0
            || match self.made_under {
                MadeUnder::Process(process) => process == run_id,
                MadeUnder::Position(position, partition) => {
                    position.was_made_under(Fingerprint::new(partition, Some(run_id)))
                }
            };
        Self {
            cursor: if is_same { self.cursor } else { 0 },
            ..self
        }
    }
}

/// The limits of one call's attempts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RetryPolicy {
    /// When the call must return.
    pub(crate) deadline: Instant,
    /// Time limit for one reply of Redis.
    pub(crate) response_timeout: Duration,
    /// The maximum number of times that an idempotent command is sent again after a lost connection.
    pub(crate) retries: u32,
    /// Longest wait for a connection or a free slot, if it is shorter than the call's time.
    pub(crate) max_wait: Option<Duration>,
}

impl RetryPolicy {
    /// When a wait for a connection or a free slot that begins now must end.
    pub(crate) fn wait_deadline(&self) -> Instant {
        self.max_wait.map_or(self.deadline, |limit| {
            self.deadline.min(Instant::now() + limit)
        })
    }
}

/// A command as the redis crate sends it.
pub(crate) enum Packed {
    One(Cmd),
    /// Commands of which the reply to the second is that of the whole, see [`Command::CachedGet`].
    Tracked(Pipeline),
    /// `MULTI`, the commands, and `EXEC`.
    Transaction(Pipeline),
}

impl<'a> Command<'a> {
    /// The properties that all commands of this kind share.
    pub(crate) fn spec(&self) -> &'static CommandSpec {
        match self {
            Self::Get { .. } => &spec::GET,
            Self::CachedGet { .. } => &spec::CACHED_GET,
            Self::Exists { .. } => &spec::EXISTS,
            Self::Pttl { .. } => &spec::PTTL,
            Self::Set { .. } => &spec::SET,
            Self::Del { .. } => &spec::DEL,
            Self::MGet { .. } => &spec::MGET,
            Self::MSet { .. } => &spec::MSET,
            Self::MSetWithTtl { .. } => &spec::MSET_WITH_TTL,
            Self::Scan { .. } => &spec::SCAN,
            Self::Increment {
                script: ScriptForm::Hash,
                ..
            } => &spec::INCREMENT,
            Self::Increment { .. } => &spec::INCREMENT_IN_FULL,
            Self::AcquireLease { .. } | Self::ReleaseLease { .. } => &spec::LEASE,
            Self::Admin(_) => &spec::ADMIN,
        }
    }

    /// Returns true if a replica may execute it.
    pub(crate) fn is_read(&self) -> bool {
        self.spec().access == Access::Read
    }

    pub(crate) fn is_write(&self) -> bool {
        self.spec().access == Access::Write
    }

    /// Returns true if executing it twice has the effect of executing it once.
    pub(crate) fn is_idempotent(&self) -> bool {
        self.spec().idempotent
    }

    /// The keys that it reads or writes; none for a listing.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &[u8]> {
        let (mut one, mut many, mut pairs) = (None, None, None);
        match self {
            Self::Get { key }
            | Self::CachedGet { key }
            | Self::Exists { key }
            | Self::Pttl { key }
            | Self::Set { key, .. }
            | Self::Increment { key, .. }
            | Self::AcquireLease { key, .. }
            | Self::ReleaseLease { key, .. } => one = Some(key.as_bytes()),
            Self::Del { keys } | Self::MGet { keys } => many = Some(keys),
            Self::MSet { pairs: of } | Self::MSetWithTtl { pairs: of, .. } => pairs = Some(of),
            Self::Scan { .. } | Self::Admin(_) => {}
        }
        let many = many.into_iter().flat_map(Batch::iter);
        let pairs = pairs.into_iter().flat_map(Batch::iter);
        one.into_iter()
            .chain(many.map(|key| key.as_bytes()))
            .chain(pairs.map(|(key, _)| key.as_bytes()))
    }

    /// The number of arguments of the longest command that is sent for it.
    pub(crate) fn argument_count(&self) -> usize {
        match self {
            Self::Del { keys } | Self::MGet { keys } => 1 + keys.len(),
            Self::MSet { pairs } => 1 + 2 * pairs.len(),
            // No other command comes near the limit.
            _ => 0,
        }
    }

    /// The number of commands in a transaction of more than one.
    pub(crate) fn transaction_size(&self) -> Option<usize> {
        match self {
            Self::MSetWithTtl { pairs, .. } => Some(pairs.len()).filter(|&size| size > 1),
            _ => None,
        }
    }

    /// The part of the command that is about the keys at these positions; `None` for a command that
    /// cannot be split.
    pub(crate) fn part(&self, positions: &[usize]) -> Option<Self> {
        Some(match self {
            Self::Del { keys } => Self::Del {
                keys: keys.select(positions),
            },
            Self::MGet { keys } => Self::MGet {
                keys: keys.select(positions),
            },
            Self::MSet { pairs } => Self::MSet {
                pairs: pairs.select(positions),
            },
            Self::MSetWithTtl { pairs, ttl_ms } => Self::MSetWithTtl {
                pairs: pairs.select(positions),
                ttl_ms: *ttl_ms,
            },
            _ => return None,
        })
    }

    /// The command as it is sent.
    pub(crate) fn pack(&self) -> Packed {
        Packed::One(match self {
            Self::CachedGet { key } => {
                let mut commands = Pipeline::with_capacity(3);
                commands.cmd("CLIENT").arg("CACHING").arg("YES");
                commands.cmd("GET").arg(key);
                commands.cmd("PTTL").arg(key);
                return Packed::Tracked(commands);
            }
            Self::MSetWithTtl { pairs, ttl_ms } => {
                let mut commands = Pipeline::with_capacity(pairs.len());
                commands.atomic();
                for (key, value) in pairs.iter() {
                    commands.add_command(set(key, SplitBytes(value, &[]), Some(*ttl_ms)));
                }
                return Packed::Transaction(commands);
            }
            Self::Get { key } => redis::cmd("GET").arg(key).take(),
            Self::Exists { key } => redis::cmd("EXISTS").arg(key).take(),
            Self::Pttl { key } => redis::cmd("PTTL").arg(key).take(),
            Self::Set { key, value, ttl_ms } => set(key, *value, *ttl_ms),
            Self::Del { keys } => with_keys("DEL", keys),
            Self::MGet { keys } => with_keys("MGET", keys),
            Self::MSet { pairs } => {
                let bytes = pairs.iter().map(|(key, value)| key.len() + value.len());
                let mut mset = Cmd::with_capacity(pairs.len() * 2 + 1, bytes.sum());
                mset.arg("MSET");
                for (key, value) in pairs.iter() {
                    mset.arg(key.as_ref()).arg(*value);
                }
                mset
            }
            Self::Scan {
                from,
                pattern,
                count,
            } => {
                let mut scan = redis::cmd("SCAN");
                scan.arg(from.cursor);
                if let Some(pattern) = pattern {
                    scan.arg("MATCH").arg(pattern);
                }
                scan.arg("COUNT").arg(count).take()
            }
            Self::Increment {
                key,
                delta,
                ttl_ms,
                script,
            } => {
                let script = script.argument();
                let mut increment = Cmd::with_capacity(6, key.len() + script.len() + 48);
                increment.arg(self.spec().name).arg(script).arg(1);
                increment.arg(key).arg(delta).arg(ttl_ms).take()
            }
            Self::AcquireLease {
                key,
                holder,
                ttl,
                behind,
            } => {
                let mut eval = redis::cmd("EVAL");
                eval.arg(scripts::ACQUIRE_LEASE).arg(1).arg(key).arg(holder);
                eval.arg(milliseconds(*ttl)).arg(milliseconds(*behind));
                eval
            }
            Self::ReleaseLease {
                key,
                holder,
                ttl,
                behind,
                behind_without_queue,
                max_left,
            } => {
                let mut eval = redis::cmd("EVAL");
                eval.arg(scripts::RELEASE_LEASE).arg(1).arg(key).arg(holder);
                for time in [ttl, behind, behind_without_queue, max_left] {
                    eval.arg(milliseconds(*time));
                }
                eval
            }
            Self::Admin(command) => command.pack(),
        })
    }
}

impl<'a> From<AdminCommand<'a>> for Command<'a> {
    fn from(command: AdminCommand<'a>) -> Self {
        Self::Admin(command)
    }
}

fn set(key: &str, value: SplitBytes<'_>, ttl_ms: Option<u64>) -> Cmd {
    let mut set = Cmd::with_capacity(5, key.len() + value.size() + 32);
    set.arg("SET").arg(key).arg(value);
    if let Some(ttl_ms) = ttl_ms {
        set.arg("PX").arg(ttl_ms);
    }
    set
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn with_keys(name: &str, keys: &Batch<'_, RedisKey<'_>>) -> Cmd {
    let mut command = Cmd::with_capacity(keys.len() + 1, keys.len() * 16);
    command.arg(name);
    for key in keys.iter() {
        command.arg(key.as_ref());
    }
    command
}

/// Shows the name alone: arguments are stored data, or a password.
impl fmt::Debug for Command<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Command({})", self.spec().name)
    }
}

impl SplitBytes<'_> {
    /// The size of both parts together, in bytes.
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
