//! Retry of one request: the attempts that it makes until it has a reply, an error, or no time left.

use std::sync::Arc;
use std::time::Duration;

use redis::{ServerError, Value};
use tokio::time::{Instant, sleep, timeout_at};

use crate::cache::freshness::{Freshness, LEASE};
use crate::error::{Error, ErrorKind};
use crate::redis::command::{Command, RetryPolicy};
use crate::redis::limiter::Admission;
use crate::redis::node::Node;
use crate::redis::server_error::is_transient;
use crate::redis::session::{Session, SessionReply};

/// First pause before asking again a Redis that says it will be ready soon.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const MAX_PAUSE: Duration = Duration::from_millis(200);

/// A request on its way: how often it has been tried, and how long it pauses.
#[derive(Debug)]
pub(crate) struct RetryLoop<'a> {
    command: &'a Command<'a>,
    caller: Admission<'a>,
    /// How long it may take.
    pub(crate) patience: RetryPolicy,
    retries: u32,
    pause: Duration,
    /// What kept Redis from it so far.
    earlier: Option<ServerError>,
    kept: Option<CacheTag>,
}

/// An answer, and what is known of it.
#[derive(Debug)]
pub(crate) struct Reply {
    /// Redis's answer, which is no error.
    pub(crate) value: Value,
    /// Whether it can be kept.
    pub(crate) kept: Option<CacheTag>,
}

impl From<Value> for Reply {
    /// An answer of which nothing is known.
    fn from(value: Value) -> Self {
        Self { value, kept: None }
    }
}

/// Who tells when an answer is no longer true.
#[derive(Clone, Debug)]
pub(crate) struct CacheTag {
    /// Vouches for it.
    pub(crate) freshness: Arc<Freshness>,
    /// The longest that a missing key is taken as missing, where that is limited.
    pub(crate) missing_for: Option<Duration>,
}

/// What came of one attempt.
#[derive(Debug)]
pub(crate) enum AttemptOutcome {
    /// There is nothing more to do.
    Done(Result<Value, Error>),
    /// It may be tried again, now.
    Retry,
    /// Another node of the cluster has the key.
    Redirect(ServerError),
}

impl<'a> RetryLoop<'a> {
    /// A request that has not been tried yet.
    pub(crate) fn new(
        command: &'a Command<'a>,
        caller: Admission<'a>,
        patience: RetryPolicy,
    ) -> Self {
        Self {
            command,
            caller,
            patience,
            retries: 0,
            pause: FIRST_PAUSE,
            earlier: None,
            kept: None,
        }
    }

    /// The answer, with what is known of it.
    ///
    /// # Errors
    ///
    /// That of the result.
    pub(crate) fn answered(self, result: Result<Value, Error>) -> Result<Reply, Error> {
        result.map(|value| Reply {
            value,
            kept: self.kept,
        })
    }

    /// Who it is for the gate, which limits how many requests there are at once.
    pub(crate) fn caller(&self) -> Admission<'a> {
        self.caller
    }

    /// Whether Redis has said that it cannot answer yet. Where a replica did, the primary may be
    /// able to.
    pub(crate) fn was_refused(&self) -> bool {
        self.earlier.is_some()
    }

    /// Tries once over a line of `node`, as a guest of a node that is still importing the key's
    /// slot where `asking` says so.
    pub(crate) async fn once(
        &mut self,
        node: &Node,
        line: &Session,
        asking: bool,
    ) -> AttemptOutcome {
        let turn = match self.caller.turn(self.patience.deadline).await {
            Ok(turn) => turn,
            Err(error) => return AttemptOutcome::Done(Err(error)),
        };
        if line.is_closed() {
            // It broke while the call waited for its turn: nothing was sent.
            return AttemptOutcome::Retry;
        }
        let sent = Instant::now();
        let limit = self
            .patience
            .deadline
            .min(sent + self.patience.response_timeout);
        let reply = timeout_at(limit, line.send(self.command, asking)).await;
        drop(turn);
        match reply {
            Ok(SessionReply::Value(answer)) => {
                self.note(line, sent);
                AttemptOutcome::Done(Ok(answer))
            }
            Ok(SessionReply::ServerError(refusal)) => self.refused(line, refusal).await,
            Ok(SessionReply::Disconnected)
                if self.command.is_idempotent() && self.retries < self.patience.retries =>
            {
                self.retries += 1;
                AttemptOutcome::Retry
            }
            Ok(SessionReply::Disconnected) => AttemptOutcome::Done(Err(self.lost(node))),
            Err(_) => {
                line.suspect();
                AttemptOutcome::Done(Err(match &self.earlier {
                    // What keeps Redis from it says more than that time is up.
                    Some(refusal) if self.command.is_idempotent() => Error::from(refusal),
                    _ => self.no_answer(node),
                }))
            }
        }
    }

    /// An answer proves that all is known which the server told before it.
    fn note(&mut self, line: &Session, sent: Instant) {
        let Some(tracking) = line.tracking() else {
            return;
        };
        let Some(freshness) = tracking.freshness() else {
            return;
        };
        freshness.renew(sent);
        if matches!(self.command, Command::CachedGet { .. }) {
            tracking.has_key(self.command);
            self.kept = Some(CacheTag {
                freshness: Arc::clone(freshness),
                missing_for: tracking.misses_new_keys().then_some(LEASE),
            });
        }
    }

    async fn refused(&mut self, line: &Session, refusal: ServerError) -> AttemptOutcome {
        if matches!(refusal.code(), "MOVED" | "ASK") {
            return AttemptOutcome::Redirect(refusal);
        }
        if refusal.code() == "READONLY" {
            // It was the primary once; another one may be by now, perhaps at the same address.
            line.demoted();
        }
        if !is_transient(refusal.code()) {
            return AttemptOutcome::Done(Err(Error::from(&refusal)));
        }
        // Redis did not carry it out, so that any request may be sent again.
        if !self.pause().await {
            return AttemptOutcome::Done(Err(Error::from(&refusal)));
        }
        self.earlier = Some(refusal);
        AttemptOutcome::Retry
    }

    /// Pauses, a little longer each time; false when the call's time does not allow it.
    pub(crate) async fn pause(&mut self) -> bool {
        if Instant::now() + self.pause >= self.patience.deadline {
            return false;
        }
        sleep(self.pause).await;
        self.pause = (self.pause * 2).min(MAX_PAUSE);
        true
    }

    /// What an error says of a command that was sent.
    fn ambiguity_note(&self) -> &'static str {
        if self.command.is_idempotent() {
            ""
        } else {
            "; it may or may not have been carried out"
        }
    }

    fn lost(&self, node: &Node) -> Error {
        let text = format!(
            "the connection to {} broke before the answer came{}",
            node.address,
            self.ambiguity_note()
        );
        Error::new(ErrorKind::ConnectionLost, text)
    }

    fn no_answer(&self, node: &Node) -> Error {
        let text = format!(
            "no answer from {} within {} ms{}",
            node.address,
            self.patience.response_timeout.as_millis(),
            self.ambiguity_note()
        );
        Error::new(ErrorKind::Timeout, text)
    }
}
