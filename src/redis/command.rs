//! What goes into a connection: a command or several, and how hard to try.

use std::time::Duration;

use redis::{Arg, Cmd, Pipeline};
use tokio::time::Instant;

/// A command, or several that Redis runs as one (`MULTI`).
#[derive(Clone, Debug)]
pub(crate) enum Request {
    /// One command.
    One(Cmd),
    /// `CLIENT CACHING YES`, `GET` and `PTTL` of one key: a read that is to be kept. The answer is
    /// an array of value and time to live, the latter `nil` where it cannot be kept.
    Kept(Pipeline),
    /// A transaction; the answer is the array that `EXEC` gives.
    Transaction(Pipeline),
}

/// Whether a request may be sent again when the connection broke after it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Idempotency {
    /// Twice has the effect of once.
    Idempotent,
    /// Twice would not be once: it is sent again only if it surely reached no Redis.
    NotIdempotent,
}

/// How long and how often one call of a link may try.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RetryPolicy {
    /// When the call must be answered.
    pub(crate) deadline: Instant,
    /// Time limit for one answer of Redis.
    pub(crate) response_timeout: Duration,
    /// How often a safe request is sent again after a broken connection.
    pub(crate) retries: u32,
}

impl Request {
    /// The command's name, for those who watch.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Transaction(_) => "MULTI",
            Self::Kept(_) => "GET",
            Self::One(command) => Self::name_of(command),
        }
    }

    /// The name of one command, if it is one that calls are made of.
    pub(crate) fn name_of(command: &Cmd) -> &'static str {
        const NAMES: [&str; 9] = [
            "GET", "SET", "DEL", "EXISTS", "SCAN", "EVALSHA", "EVAL", "MGET", "MSET",
        ];
        words(command)
            .next()
            .and_then(|name| NAMES.into_iter().find(|known| known.as_bytes() == name))
            .unwrap_or("other")
    }

    /// The keys that it is about; a listing is about none.
    pub(crate) fn keys(&self) -> Vec<&[u8]> {
        match self {
            Self::Transaction(commands) => {
                let keys = commands.cmd_iter().map(|command| words(command).nth(1));
                keys.flatten().collect()
            }
            Self::Kept(commands) => {
                let get = commands.cmd_iter().nth(1);
                get.and_then(|get| words(get).nth(1)).into_iter().collect()
            }
            Self::One(command) => {
                let arguments = words(command).skip(1);
                match (Self::name_of(command), words_per_key(command)) {
                    (_, Some(words)) => arguments.step_by(words).collect(),
                    ("SCAN", _) => Vec::new(),
                    ("EVALSHA" | "EVAL", _) => arguments.skip(2).take(1).collect(),
                    _ => arguments.take(1).collect(),
                }
            }
        }
    }

    /// Whether a replica may answer it. `SCAN` is not among them: its cursor is of one server.
    pub(crate) fn is_read(&self) -> bool {
        matches!(self.name(), "GET" | "EXISTS" | "MGET")
    }
}

/// How many words each key takes, the key among them, in a command that is about any number of keys.
pub(crate) fn words_per_key(command: &Cmd) -> Option<usize> {
    match Request::name_of(command) {
        "MGET" | "DEL" => Some(1),
        "MSET" => Some(2),
        _ => None,
    }
}

/// A command's words, the first of which is its name.
pub(crate) fn words(command: &Cmd) -> impl Iterator<Item = &[u8]> {
    command.args_iter().map(|word| match word {
        Arg::Simple(word) => word,
        // No command made here has a cursor of the redis crate's.
        _ => &[],
    })
}
