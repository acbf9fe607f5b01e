//! The connection to one server that mends itself, and the attempts of a request to get its
//! answer there.
//!
//! `supervisor` keeps it up, `line` is one established connection. Which server a request belongs
//! to, and where to go when that changes, is for `connection` and `cluster`.

use std::sync::Arc;
use std::time::Duration;

use redis::{ServerError, Value};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

use super::gate::Caller;
use super::line::{Line, Reply};
use super::place::Place;
use super::request::{Patience, Request, Retry};
use super::supervisor::{self, State};
use super::{Outage, Target};
use crate::cache::{Cache, LEASE, Vouch};
use crate::error::{Error, Kind};
use crate::task::AbortOnDrop;

/// First pause before asking again a Redis that says it will be ready soon.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// A connection that its supervisor keeps up as long as somebody holds it.
#[derive(Debug)]
pub struct Node {
    address: String,
    state: watch::Receiver<State>,
    _supervisor: AbortOnDrop,
}

/// A request on its way: how often it has been tried, and how long it pauses.
#[derive(Debug)]
pub struct Attempts<'a> {
    request: &'a Request,
    retry: Retry,
    caller: Caller<'a>,
    /// How long it may take.
    pub patience: Patience,
    retries: u32,
    pause: Duration,
    /// What kept Redis from it so far.
    earlier: Option<ServerError>,
    kept: Option<Kept>,
}

/// An answer, and what is known of it.
#[derive(Debug)]
pub struct Answered {
    /// Redis's answer, which is no error.
    pub value: Value,
    /// Whether it can be kept.
    pub kept: Option<Kept>,
}

impl From<Value> for Answered {
    /// An answer of which nothing is known.
    fn from(value: Value) -> Self {
        Self { value, kept: None }
    }
}

/// Who tells when an answer is no longer true.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Vouches for it.
    pub vouch: Arc<Vouch>,
    /// The longest that a missing key is taken as missing, where that is limited.
    pub missing_for: Option<Duration>,
}

/// What came of one attempt.
#[derive(Debug)]
pub enum Outcome {
    /// There is nothing more to do.
    Done(Result<Value, Error>),
    /// It may be tried again, now.
    Again,
    /// Another node of the cluster has the key.
    Elsewhere(ServerError),
}

impl Node {
    /// Starts connecting in the background. `name` is what Redis shows for it (`CLIENT LIST`),
    /// `address` what logs and errors do.
    pub fn start(
        target: Target,
        place: Place,
        address: String,
        name: &str,
        cache: Option<&Arc<Cache>>,
    ) -> Self {
        let cache = cache.map(Arc::clone);
        let (state, supervisor) = supervisor::start(target, place, address.clone(), name, cache);
        Self {
            address,
            state,
            _supervisor: supervisor,
        }
    }

    /// Since when and why there is no connection; `None` while there is one.
    pub fn outage(&self) -> Option<Outage> {
        self.state.borrow().outage(&self.address)
    }

    /// The established connection, if there is one.
    pub fn ready_line(&self) -> Option<Arc<Line>> {
        self.state.borrow().line()
    }

    /// Whether somebody has to act before there can be a connection.
    pub fn is_refused(&self) -> bool {
        self.state.borrow().is_refused()
    }

    /// The established connection, waiting for it if need be.
    ///
    /// # Errors
    ///
    /// Why there is none, too late or without hope.
    pub async fn line(&self, caller: Caller<'_>, patience: Patience) -> Result<Arc<Line>, Error> {
        if let Some(line) = self.ready_line() {
            return Ok(line);
        }
        let _waiting = caller.wait()?;
        let mut state = self.state.clone();
        let limit = if state.borrow().is_hung() {
            patience
                .deadline
                .min(Instant::now() + patience.response_timeout)
        } else {
            patience.deadline
        };
        let settled = state.wait_for(|state| state.line().is_some() || state.is_refused());
        match timeout_at(limit, settled).await {
            Ok(Ok(state)) => {
                if let Some(line) = state.line() {
                    return Ok(line);
                }
            }
            Ok(Err(_)) => return Err(Error::other("the link was deleted during the call")),
            Err(_) => {}
        }
        Err(self.outage().map_or_else(
            || {
                let text = format!(
                    "cannot reach {}: the connection came too late",
                    self.address
                );
                Error::of(Kind::Unreachable, text)
            },
            |outage| Error::Other(outage.failure),
        ))
    }
}

impl<'a> Attempts<'a> {
    /// A request that has not been tried yet.
    pub fn new(request: &'a Request, retry: Retry, caller: Caller<'a>, patience: Patience) -> Self {
        Self {
            request,
            retry,
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
    pub fn answered(self, result: Result<Value, Error>) -> Result<Answered, Error> {
        result.map(|value| Answered {
            value,
            kept: self.kept,
        })
    }

    /// Who it is for the gate, which limits how many requests there are at once.
    pub fn caller(&self) -> Caller<'a> {
        self.caller
    }

    /// Whether Redis has said that it cannot answer yet. Where a replica did, the primary may be
    /// able to.
    pub fn was_refused(&self) -> bool {
        self.earlier.is_some()
    }

    /// Tries once over a line of `node`, as a guest of a node that is still importing the key's
    /// slot where `asking` says so.
    pub async fn once(&mut self, node: &Node, line: &Line, asking: bool) -> Outcome {
        let turn = match self.caller.turn(self.patience.deadline).await {
            Ok(turn) => turn,
            Err(error) => return Outcome::Done(Err(error)),
        };
        if line.is_closed() {
            // It broke while the call waited for its turn: nothing was sent.
            return Outcome::Again;
        }
        let sent = Instant::now();
        let limit = self
            .patience
            .deadline
            .min(sent + self.patience.response_timeout);
        let reply = timeout_at(limit, line.send(self.request, asking)).await;
        drop(turn);
        match reply {
            Ok(Reply::Answer(answer)) => {
                self.note(line, sent);
                Outcome::Done(Ok(answer))
            }
            Ok(Reply::Refusal(refusal)) => self.refused(line, refusal).await,
            Ok(Reply::Lost)
                if self.retry == Retry::Safe && self.retries < self.patience.retries =>
            {
                self.retries += 1;
                Outcome::Again
            }
            Ok(Reply::Lost) => Outcome::Done(Err(self.lost(node))),
            Err(_) => {
                line.suspect();
                Outcome::Done(Err(match &self.earlier {
                    // What keeps Redis from it says more than that time is up.
                    Some(refusal) if self.retry == Retry::Safe => Error::from(refusal),
                    _ => self.no_answer(node),
                }))
            }
        }
    }

    /// An answer proves that all is known which the server told before it.
    fn note(&mut self, line: &Line, sent: Instant) {
        let Some(tracking) = line.tracking() else {
            return;
        };
        let Some(vouch) = tracking.vouch() else {
            return;
        };
        vouch.confirm(sent);
        if matches!(self.request, Request::Kept(_)) {
            tracking.has_key(self.request);
            self.kept = Some(Kept {
                vouch: Arc::clone(vouch),
                missing_for: tracking.is_blind_to_new_keys().then_some(LEASE),
            });
        }
    }

    async fn refused(&mut self, line: &Line, refusal: ServerError) -> Outcome {
        if matches!(refusal.code(), "MOVED" | "ASK") {
            return Outcome::Elsewhere(refusal);
        }
        if refusal.code() == "READONLY" {
            // It was the primary once; another one may be by now, perhaps at the same address.
            line.demoted();
        }
        if !passes(refusal.code()) {
            return Outcome::Done(Err(Error::from(&refusal)));
        }
        // Redis did not carry it out, so that any request may be sent again.
        if !self.pause().await {
            return Outcome::Done(Err(Error::from(&refusal)));
        }
        self.earlier = Some(refusal);
        Outcome::Again
    }

    /// Pauses, a little longer each time; false when the call's time does not allow it.
    pub async fn pause(&mut self) -> bool {
        if Instant::now() + self.pause >= self.patience.deadline {
            return false;
        }
        sleep(self.pause).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        true
    }

    fn lost(&self, node: &Node) -> Error {
        let text = format!(
            "the connection to {} broke before the answer came{}",
            node.address,
            maybe_done(self.retry)
        );
        Error::of(Kind::ConnectionLost, text)
    }

    fn no_answer(&self, node: &Node) -> Error {
        let text = format!(
            "no answer from {} within {} ms{}",
            node.address,
            self.patience.response_timeout.as_millis(),
            maybe_done(self.retry)
        );
        Error::of(Kind::Timeout, text)
    }
}

fn maybe_done(retry: Retry) -> &'static str {
    match retry {
        Retry::Safe => "",
        Retry::Never => "; it may or may not have been carried out",
    }
}

/// Whether Redis says with this code that it did nothing yet, and will soon be able to.
pub fn passes(code: &str) -> bool {
    matches!(
        code,
        "LOADING" | "READONLY" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN" | "BUSY"
    )
}
