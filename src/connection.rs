//! One connection to a Redis that mends itself: a request goes in, an answer comes out.
//!
//! Many calls share it at once. It waits for Redis within a call's time, tries again what is safe
//! to try again, and knows which requests may have reached Redis. `supervisor` keeps it up,
//! `line` is one established connection, `gate` says how many calls of a link may use it.
//! `subscription` hears of changes of keys over connections of its own.
//! Which command a call needs is for the rooms of the interfaces.

pub mod answer;
mod gate;
mod hearing;
mod line;
mod notifications;
mod subscriber;
pub mod subscription;
mod supervisor;

use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, Pipeline, Value};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

use crate::error::{Error, in_words};
use crate::settings::{Address, Settings};

pub use gate::Gate;
use line::{Line, Reply};
use supervisor::State;

use crate::task::AbortOnDrop;

/// First pause before asking again a Redis that says it will be ready soon.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// What to connect to, and how long to try.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// The server, the credentials and the database.
    pub address: Address,
    /// Time limit for establishing a connection.
    pub connection_timeout: Duration,
    /// Time limit for one answer, also for the question whether Redis still answers at all.
    pub response_timeout: Duration,
    /// Longest pause between attempts to connect.
    pub reconnect_max_delay: Duration,
}

/// A command, or several that Redis runs as one (`MULTI`).
#[derive(Debug)]
pub enum Request {
    /// One command.
    One(Cmd),
    /// A transaction; the answer is the array that `EXEC` gives.
    Transaction(Pipeline),
}

impl Request {
    /// The command's name, for those who watch.
    pub fn name(&self) -> &'static str {
        const NAMES: [&str; 9] = [
            "GET", "SET", "DEL", "EXISTS", "SCAN", "EVALSHA", "EVAL", "MGET", "MSET",
        ];
        match self {
            Self::Transaction(_) => "MULTI",
            Self::One(command) => command
                .args_iter()
                .next()
                .and_then(|first| {
                    let redis::Arg::Simple(name) = first else {
                        return None;
                    };
                    NAMES.into_iter().find(|known| known.as_bytes() == name)
                })
                .unwrap_or("other"),
        }
    }
}

/// Whether a request may be sent again when the connection broke after it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Twice has the effect of once.
    Safe,
    /// Twice would not be once: it is sent again only if it surely reached no Redis.
    Never,
}

/// How long and how often one call of a link may try.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// When the call must be answered.
    pub deadline: Instant,
    /// Time limit for one answer of Redis.
    pub response_timeout: Duration,
    /// How often a safe request is sent again after a broken connection.
    pub retries: u32,
}

/// Why a connection is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outage {
    /// Since when.
    pub since: Instant,
    /// In words, without secrets.
    pub reason: String,
}

/// A connection that its supervisor keeps up as long as somebody holds it.
#[derive(Debug)]
pub struct Connection {
    address: String,
    state: watch::Receiver<State>,
    _supervisor: AbortOnDrop,
}

impl Target {
    /// What a link's settings ask for.
    pub fn new(settings: &Settings) -> Self {
        Self {
            address: settings.address.clone(),
            connection_timeout: settings.connection_timeout,
            response_timeout: settings.response_timeout,
            reconnect_max_delay: settings.reconnect_max_delay,
        }
    }
}

impl Connection {
    /// Starts connecting in the background. `name` is what Redis shows for it (`CLIENT LIST`).
    pub fn start(target: Target, name: &str) -> Self {
        let address = target.address.to_string();
        let (state, supervisor) = supervisor::start(target, name);
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

    /// Sends a request and waits for its answer, which is never an error of Redis.
    ///
    /// # Errors
    ///
    /// What keeps Redis from answering, or Redis's refusal.
    pub async fn ask(
        &self,
        request: &Request,
        retry: Retry,
        gate: &Gate,
        patience: Patience,
    ) -> Result<Value, Error> {
        let mut retries = 0;
        let mut pause = FIRST_PAUSE;
        loop {
            let line = self.line(gate, patience).await?;
            let turn = gate.turn(patience.deadline).await?;
            if line.is_closed() {
                // It broke while the call waited for its turn: nothing was sent.
                continue;
            }
            let limit = patience
                .deadline
                .min(Instant::now() + patience.response_timeout);
            let reply = timeout_at(limit, line.send(request)).await;
            drop(turn);
            match reply {
                Ok(Reply::Answer(answer)) => return Ok(answer),
                Ok(Reply::Refusal(refusal)) if passes(refusal.code()) => {
                    // Redis did not carry it out, so that any request may be sent again.
                    if Instant::now() + pause >= patience.deadline {
                        return Err(Error::other(in_words(&refusal)));
                    }
                    sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                Ok(Reply::Refusal(refusal)) => return Err(Error::from(&refusal)),
                Ok(Reply::Lost) if retry == Retry::Safe && retries < patience.retries => {
                    retries += 1;
                }
                Ok(Reply::Lost) => return Err(self.lost(retry)),
                Err(_) => {
                    line.suspect();
                    return Err(self.no_answer(retry, patience));
                }
            }
        }
    }

    /// The established connection, waiting for it if need be.
    async fn line(&self, gate: &Gate, patience: Patience) -> Result<Arc<Line>, Error> {
        if let Some(line) = self.state.borrow().line() {
            return Ok(line);
        }
        let _waiting = gate.wait()?;
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
        let reason = self.outage().map(|outage| outage.reason);
        Err(Error::other(reason.unwrap_or_else(|| {
            format!(
                "cannot reach {}: the connection came too late",
                self.address
            )
        })))
    }

    fn lost(&self, retry: Retry) -> Error {
        Error::other(format!(
            "the connection to {} broke before the answer came{}",
            self.address,
            maybe_done(retry)
        ))
    }

    fn no_answer(&self, retry: Retry, patience: Patience) -> Error {
        Error::other(format!(
            "no answer from {} within {} ms{}",
            self.address,
            patience.response_timeout.as_millis(),
            maybe_done(retry)
        ))
    }
}

fn maybe_done(retry: Retry) -> &'static str {
    match retry {
        Retry::Safe => "",
        Retry::Never => "; it may or may not have been carried out",
    }
}

/// Whether Redis says with this code that it did nothing yet, and will soon be able to.
fn passes(code: &str) -> bool {
    matches!(
        code,
        "LOADING" | "READONLY" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN" | "BUSY"
    )
}
