//! Keeps a connection up: connects, watches, connects again, for as long as somebody needs it.
//!
//! A connection is `Down` until the first attempt succeeds, `Up` until it breaks or stops
//! answering, and then `Down` again. It never gives up. Waiting for `Up` is for the calls.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tracing::{info, warn};

use super::line::Line;
use super::no_line::{Cause, NoLine};
use super::place::Place;
use super::trouble::Trouble;
use super::{Outage, Target};
use crate::cache::Cache;
use crate::error::{Failure, Kind};
use crate::task::AbortOnDrop;
use crate::telemetry::connections::{self, Up, Use};

/// How often an idle connection is asked whether somebody is there.
const IDLE_CHECK: Duration = Duration::from_secs(5);
/// How often it is asked whether the password is another one by now.
const PASSWORD_CHECK: Duration = Duration::from_secs(1);

/// Whether there is a connection.
#[derive(Debug)]
pub enum State {
    /// There is none, and another attempt is under way or will be.
    Down(Down),
    /// There is one.
    Up(Arc<Line>),
}

/// An outage.
#[derive(Clone, Debug)]
pub struct Down {
    since: Instant,
    /// What came of the latest attempt; `None` before the first one ended.
    latest: Option<NoLine>,
    /// The server took connections but did not answer: waiting long for it is in vain.
    hung: bool,
}

impl Down {
    fn failure(&self, address: &str) -> Failure {
        match &self.latest {
            Some(latest) => latest.failure(address),
            None => {
                let text = format!("cannot reach {address}: not connected yet");
                Failure::new(Kind::Unreachable, text)
            }
        }
    }
}

impl State {
    /// The connection, if there is one that has not broken.
    pub fn line(&self) -> Option<Arc<Line>> {
        match self {
            Self::Up(line) if !line.is_closed() => Some(Arc::clone(line)),
            _ => None,
        }
    }

    /// Whether somebody has to act first, so that waiting for the connection is in vain.
    pub fn is_refused(&self) -> bool {
        let Self::Down(down) = self else { return false };
        down.latest.as_ref().is_some_and(NoLine::is_lasting)
    }

    /// Whether the server stopped answering and has not come back.
    pub fn is_hung(&self) -> bool {
        matches!(self, Self::Down(down) if down.hung)
    }

    /// The outage in words.
    pub fn outage(&self, address: &str) -> Option<Outage> {
        let Self::Down(down) = self else { return None };
        Some(Outage {
            since: down.since,
            failure: down.failure(address),
        })
    }
}

/// Starts connecting; the supervisor ends with the task.
pub fn start(
    target: Target,
    place: Place,
    address: String,
    name: &str,
    cache: Option<Arc<Cache>>,
) -> (watch::Receiver<State>, AbortOnDrop) {
    let down = Down {
        since: Instant::now(),
        latest: None,
        hung: false,
    };
    let (sender, receiver) = watch::channel(State::Down(down.clone()));
    let supervisor = Supervisor {
        address,
        target,
        place,
        name: client_name(name),
        cache,
        state: sender,
    };
    (receiver, AbortOnDrop::spawn(supervisor.run(down)))
}

struct Supervisor {
    address: String,
    target: Target,
    place: Place,
    name: String,
    cache: Option<Arc<Cache>>,
    state: watch::Sender<State>,
}

/// Why a connection is of no more use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Broke,
    Hung,
    /// The server is a replica now.
    Demoted,
}

impl Supervisor {
    async fn run(self, mut down: Down) {
        let mut trouble = Trouble::new();
        let mut told = true;
        let mut again = false;
        connections::wanted(&self.target.address, Use::Commands);
        loop {
            let line = self.connect(down, &mut trouble).await;
            if told {
                info!(
                    redis = self.address,
                    client = self.name,
                    "connected to Redis"
                );
            }
            let connected = Instant::now();
            self.state.send_replace(State::Up(Arc::clone(&line)));
            let up = Up::new(&self.target.address, Use::Commands, again);
            let end = self.watch(&line, &mut trouble).await;
            line.retire();
            drop(up);
            again = true;
            let reason = match end {
                End::Broke => "the connection broke".to_owned(),
                End::Hung => format!(
                    "it did not answer within {} ms",
                    self.target.response_timeout.as_millis()
                ),
                End::Demoted => "it is a replica now".to_owned(),
            };
            let hung = end == End::Hung;
            let lasted = connected.elapsed();
            let breaks = trouble.broke_after(lasted, &reason);
            told = breaks.is_some();
            if let Some(breaks) = breaks {
                warn!(
                    redis = self.address,
                    client = self.name,
                    reason,
                    breaks,
                    "lost the connection to Redis"
                );
            }
            down = Down {
                since: Instant::now(),
                latest: hung.then(|| NoLine::new(Cause::Late, reason)),
                hung,
            };
            self.state.send_replace(State::Down(down.clone()));
            let longest = self.target.reconnect_max_delay;
            trouble.pause_if_brief(lasted, longest).await;
        }
    }

    /// Tries until there is a connection.
    async fn connect(&self, mut down: Down, trouble: &mut Trouble) -> Arc<Line> {
        loop {
            let failure = match self.attempt().await {
                Ok(line) => return Arc::new(line),
                Err(failure) => failure,
            };
            let reason = failure.failure(&self.address);
            if trouble.is_news(reason.text()) {
                warn!(
                    redis = self.address,
                    client = self.name,
                    %reason,
                    "no connection to Redis; trying again until it works"
                );
            }
            down.latest = Some(failure);
            self.state.send_replace(State::Down(down.clone()));
            trouble.pause(self.target.reconnect_max_delay).await;
        }
    }

    async fn attempt(&self) -> Result<Line, NoLine> {
        let limit = self.target.connection_timeout;
        let cache = self.cache.as_ref();
        timeout(
            limit,
            Line::open(&self.target, &self.place, &self.name, cache),
        )
        .await
        .unwrap_or_else(|_| {
            // A server without TLS says nothing to who begins with it.
            let hint = if self.target.address.tls {
                " (does it speak TLS there?)"
            } else {
                ""
            };
            Err(NoLine::late(limit).with(hint))
        })
    }

    /// Waits until the connection is of no more use.
    async fn watch(&self, line: &Line, trouble: &mut Trouble) -> End {
        let mut idle_check = interval(IDLE_CHECK);
        idle_check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        idle_check.reset();
        let mut password_check = interval(PASSWORD_CHECK);
        password_check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut refused: Option<NoLine> = None;
        loop {
            if let Some(reason) = line.keeps_nothing()
                && trouble.is_news(reason)
            {
                warn!(
                    redis = self.address,
                    client = self.name,
                    reason,
                    "nothing that is read is kept in memory, although CACHE_MAX_ENTRIES asks for it"
                );
            }
            tokio::select! {
                () = line.closed() => return End::Broke,
                () = line.suspected() => {}
                _ = idle_check.tick() => {}
                _ = password_check.tick(), if self.target.password_file.is_some() => {
                    let failure = self.keep_logged_in(line).await.err();
                    if let Some(failure) = failure.as_ref().filter(|new| refused.as_ref() != Some(new)) {
                        warn!(
                            redis = self.address,
                            client = self.name,
                            reason = %failure.failure(&self.address),
                            "the new password does not work; the connection goes on with the old one"
                        );
                    }
                    refused = failure;
                    continue;
                }
            }
            if line.is_demoted() {
                return End::Demoted;
            }
            match timeout(self.target.response_timeout, line.answers()).await {
                Ok(true) => {}
                Ok(false) => return End::Broke,
                Err(_) => return End::Hung,
            }
        }
    }

    /// Logs in with the new password, if there is one.
    async fn keep_logged_in(&self, line: &Line) -> Result<(), NoLine> {
        let again = line.keep_logged_in(&self.target);
        match timeout(self.target.response_timeout, again).await {
            Ok(Ok(true)) => {
                info!(
                    client = self.name,
                    redis = self.address,
                    "logged in with a new password"
                );
                Ok(())
            }
            Ok(Ok(false)) => Ok(()),
            Ok(Err(failure)) => Err(failure),
            Err(_) => Err(NoLine::new(Cause::Late, "no answer to AUTH")),
        }
    }
}

/// A name as Redis takes it: printable ASCII without spaces.
pub(super) fn client_name(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_ascii_graphic() { c } else { '_' })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_names_are_such_as_redis_takes() {
        assert_eq!(client_name("kvredis:a b\n:ü"), "kvredis:a_b_:_");
    }
}
