//! The retry loop of one command: its attempts until it has a reply, an error, or no time left.
//!
//! The command's spec decides whether it may be sent again; `connection` and `cluster` decide to
//! which node.

use std::sync::Arc;
use std::time::Duration;

use redis::{ServerError, Value};
use tokio::time::{Instant, sleep, timeout_at};

use crate::cache::freshness::{Freshness, MAX_STALENESS};
use crate::error::{Error, ErrorKind};
use crate::redis::command::{Command, RetryPolicy, ScanFrom};
use crate::redis::limiter::Admission;
use crate::redis::listing::RunId;
use crate::redis::node::Node;
use crate::redis::server_error::ServerErrorExt as _;
use crate::redis::session::{Session, SessionReply};

/// The pauses after a transient error, which doubles each of them.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const MAX_PAUSE: Duration = Duration::from_millis(200);

/// The state of a command between its attempts.
#[derive(Debug)]
pub(crate) struct RetryLoop<'a> {
    command: &'a Command<'a>,
    admission: Admission<'a>,
    pub(crate) policy: RetryPolicy,
    retries: u32,
    pause: Duration,
    /// The transient error of the last attempt.
    last_transient: Option<ServerError>,
    /// True if an attempt ended without a reply after a write had been sent.
    maybe_carried_out: bool,
    cache_tag: Option<CacheTag>,
    scanned: Option<Scanned>,
}

/// A reply, and whether it may be cached.
#[derive(Debug)]
pub(crate) struct Reply {
    /// Never an error of the server.
    pub(crate) value: Value,
    /// `None` for a reply that must not be cached.
    pub(crate) cache_tag: Option<CacheTag>,
    /// The source of a page of a scan.
    pub(crate) scanned: Option<Scanned>,
}

/// The process that has executed a scan.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Scanned {
    pub(crate) run_id: RunId,
    /// True if the scan began again, because the process is not the one that returned the cursor.
    pub(crate) restarted: bool,
}

impl From<Value> for Reply {
    fn from(value: Value) -> Self {
        Self {
            value,
            cache_tag: None,
            scanned: None,
        }
    }
}

/// The conditions under which a reply may be served from the cache.
#[derive(Clone, Debug)]
pub(crate) struct CacheTag {
    pub(crate) freshness: Arc<Freshness>,
    /// The longest that a missing key may be cached as missing, where that is limited.
    pub(crate) negative_ttl: Option<Duration>,
}

/// The outcome of one attempt.
#[derive(Debug)]
pub(crate) enum AttemptOutcome {
    /// No further attempt is needed.
    Done(Result<Value, Error>),
    /// The command may be sent again at once.
    Retry,
    /// Another node of the cluster serves the key (`MOVED` or `ASK`).
    Redirect(ServerError),
}

impl<'a> RetryLoop<'a> {
    /// The loop of a command that has not been sent yet.
    pub(crate) fn new(
        command: &'a Command<'a>,
        admission: Admission<'a>,
        policy: RetryPolicy,
    ) -> Self {
        Self {
            command,
            admission,
            policy,
            retries: 0,
            pause: FIRST_PAUSE,
            last_transient: None,
            maybe_carried_out: false,
            cache_tag: None,
            scanned: None,
        }
    }

    /// Ends the loop with the result of its last attempt.
    ///
    /// # Errors
    ///
    /// That of the result.
    pub(crate) fn finish(self, result: Result<Value, Error>) -> Result<Reply, Error> {
        match result {
            Ok(value) => Ok(Reply {
                value,
                cache_tag: self.cache_tag,
                scanned: self.scanned,
            }),
            Err(error) => Err(self.qualify(error)),
        }
    }

    pub(crate) fn admission(&self) -> Admission<'a> {
        self.admission
    }

    /// Returns true if the last attempt ended with a transient error. If that was a replica's, the
    /// primary may be able to reply.
    pub(crate) fn had_transient_error(&self) -> bool {
        self.last_transient.is_some()
    }

    /// Sends the command once; with `asking`, prefixes `ASKING` for a slot that is being imported.
    pub(crate) async fn try_once(
        &mut self,
        node: &Node,
        session: &Session,
        asking: bool,
    ) -> AttemptOutcome {
        let permit = match self.admission.acquire(self.policy.wait_deadline()).await {
            Ok(permit) => permit,
            Err(error) => return AttemptOutcome::Done(Err(error)),
        };
        if session.is_closed() {
            // It was lost while the call waited for its permit: nothing was sent.
            return AttemptOutcome::Retry;
        }
        let sent = Instant::now();
        let limit = self
            .policy
            .deadline
            .min(sent + self.policy.response_timeout);
        let reply = match self.command {
            Command::Scan {
                from,
                pattern,
                count,
            } => {
                let scan = Box::pin(self.scan(session, *from, *pattern, *count));
                timeout_at(limit, scan).await
            }
            command => timeout_at(limit, session.send(command, asking)).await,
        };
        drop(permit);
        match reply {
            Ok(SessionReply::Value(value)) => {
                self.note_reply(session, sent);
                AttemptOutcome::Done(Ok(value))
            }
            Ok(SessionReply::ServerError(error)) => self.on_server_error(session, error).await,
            Ok(SessionReply::Disconnected) => {
                self.maybe_carried_out |= self.command.is_write();
                if self.command.is_idempotent() && self.retries < self.policy.retries {
                    self.retries += 1;
                    return AttemptOutcome::Retry;
                }
                AttemptOutcome::Done(Err(lost(node)))
            }
            Err(_) => {
                self.maybe_carried_out |= self.command.is_write();
                session.request_health_check();
                AttemptOutcome::Done(Err(match &self.last_transient {
                    // It is more informative than the expired time limit.
                    Some(error) if self.command.is_idempotent() => Error::from(error),
                    _ => self.timed_out(node),
                }))
            }
        }
    }

    /// Scans from the cursor if the server is still the process that returned it, else from the start.
    async fn scan(
        &mut self,
        session: &Session,
        from: ScanFrom,
        pattern: Option<&str>,
        count: u32,
    ) -> SessionReply {
        let run_id = match session.run_id().await {
            Ok(run_id) => run_id,
            Err(reply) => return reply,
        };
        let here = from.at(run_id);
        self.scanned = Some(Scanned {
            run_id,
            restarted: here.cursor != from.cursor,
        });
        let scan = Command::Scan {
            from: here,
            pattern,
            count,
        };
        session.send(&scan, false).await
    }

    /// A reply proves that all earlier invalidations have arrived.
    fn note_reply(&mut self, session: &Session, sent: Instant) {
        let Some(tracking) = session.tracking() else {
            return;
        };
        let Some(freshness) = tracking.freshness() else {
            return;
        };
        freshness.renew(sent);
        if let Command::CachedGet { key } = self.command {
            tracking.record_served_key(key);
            self.cache_tag = Some(CacheTag {
                freshness: Arc::clone(freshness),
                negative_ttl: tracking.misses_new_keys().then_some(MAX_STALENESS),
            });
        }
    }

    async fn on_server_error(&mut self, session: &Session, error: ServerError) -> AttemptOutcome {
        if error.is_redirect() {
            return AttemptOutcome::Redirect(error);
        }
        if error.code() == "READONLY" {
            // A failover: the primary is another server now, perhaps at the same address.
            session.mark_demoted();
        }
        if !error.is_transient() {
            return AttemptOutcome::Done(Err(Error::from(&error)));
        }
        // A transient error means that nothing was carried out: any command may be sent again.
        if !self.pause().await {
            return AttemptOutcome::Done(Err(Error::from(&error)));
        }
        self.last_transient = Some(error);
        AttemptOutcome::Retry
    }

    /// Pauses, longer each time; returns false when the call's deadline does not allow it.
    pub(crate) async fn pause(&mut self) -> bool {
        if Instant::now() + self.pause >= self.policy.deadline {
            return false;
        }
        sleep(self.pause).await;
        self.pause = (self.pause * 2).min(MAX_PAUSE);
        true
    }

    /// Adds to an error of the loop whether an earlier attempt may have been carried out.
    pub(crate) fn qualify(&self, error: Error) -> Error {
        if self.maybe_carried_out {
            error.ambiguous()
        } else {
            error
        }
    }

    fn timed_out(&self, node: &Node) -> Error {
        let text = format!(
            "no reply from {} within {} ms",
            node.address,
            self.policy.response_timeout.as_millis(),
        );
        Error::new(ErrorKind::Timeout, text)
    }
}

fn lost(node: &Node) -> Error {
    let text = format!(
        "the connection to {} was lost before the reply arrived",
        node.address
    );
    Error::new(ErrorKind::ConnectionLost, text)
}
