//! Keeps a connection up: connects, watches, connects again, for as long as somebody needs it.
//!
//! A connection is `Down` until the first attempt succeeds, `Up` until it breaks or stops
//! answering, and then `Down` again. It never gives up. Waiting for `Up` is for the calls.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tracing::{info, warn};

use super::line::{Line, NoLine};
use super::{Outage, Target};
use crate::task::AbortOnDrop;

pub(super) const FIRST_DELAY: Duration = Duration::from_millis(10);
/// How often an idle connection is asked whether somebody is there.
const IDLE_CHECK: Duration = Duration::from_secs(5);
/// How often a lasting outage is logged again.
const REMIND: Duration = Duration::from_secs(60);

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

impl State {
    /// The connection, if there is one that has not broken.
    pub fn line(&self) -> Option<Arc<Line>> {
        match self {
            Self::Up(line) if !line.is_closed() => Some(Arc::clone(line)),
            _ => None,
        }
    }

    /// Whether Redis refuses the connection, so that waiting for it is in vain.
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Down(down) if matches!(down.latest, Some(NoLine::Refused(_))))
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
            reason: in_words(address, down.latest.as_ref()),
        })
    }
}

/// Starts connecting; the supervisor ends with the task.
pub fn start(target: Target, name: &str) -> (watch::Receiver<State>, AbortOnDrop) {
    let down = Down {
        since: Instant::now(),
        latest: None,
        hung: false,
    };
    let (sender, receiver) = watch::channel(State::Down(down.clone()));
    let supervisor = Supervisor {
        address: target.address.to_string(),
        target,
        name: client_name(name),
        state: sender,
    };
    (receiver, AbortOnDrop::spawn(supervisor.run(down)))
}

struct Supervisor {
    address: String,
    target: Target,
    name: String,
    state: watch::Sender<State>,
}

impl Supervisor {
    async fn run(self, mut down: Down) {
        loop {
            let line = self.connect(down).await;
            info!(
                redis = self.address,
                client = self.name,
                "connected to Redis"
            );
            self.state.send_replace(State::Up(Arc::clone(&line)));
            let hung = !self.watch(&line).await;
            let reason = if hung {
                format!(
                    "it did not answer within {} ms",
                    self.target.response_timeout.as_millis()
                )
            } else {
                "the connection broke".to_owned()
            };
            warn!(
                redis = self.address,
                client = self.name,
                reason,
                "lost the connection to Redis"
            );
            down = Down {
                since: Instant::now(),
                latest: hung.then_some(NoLine::Unreachable(reason)),
                hung,
            };
            self.state.send_replace(State::Down(down.clone()));
        }
    }

    /// Tries until there is a connection.
    async fn connect(&self, mut down: Down) -> Arc<Line> {
        let mut delay = FIRST_DELAY;
        let mut logged: Option<(NoLine, Instant)> = None;
        loop {
            let failure = match self.attempt().await {
                Ok(line) => return Arc::new(line),
                Err(failure) => failure,
            };
            let worth_logging = logged
                .as_ref()
                .is_none_or(|(earlier, at)| *earlier != failure || at.elapsed() >= REMIND);
            if worth_logging {
                warn!(
                    client = self.name,
                    "{}; trying again until it works",
                    in_words(&self.address, Some(&failure))
                );
                logged = Some((failure.clone(), Instant::now()));
            }
            down.latest = Some(failure);
            self.state.send_replace(State::Down(down.clone()));
            sleep(jittered(delay)).await;
            delay = (delay * 2).min(self.target.reconnect_max_delay);
        }
    }

    async fn attempt(&self) -> Result<Line, NoLine> {
        let limit = self.target.connection_timeout;
        timeout(limit, Line::open(&self.target.address, &self.name))
            .await
            .unwrap_or_else(|_| {
                Err(NoLine::Unreachable(format!(
                    "no connection within {} ms",
                    limit.as_millis()
                )))
            })
    }

    /// Waits until the connection is of no more use; answers whether it broke, rather than hung.
    async fn watch(&self, line: &Line) -> bool {
        let mut idle_check = interval(IDLE_CHECK);
        idle_check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        idle_check.reset();
        loop {
            tokio::select! {
                () = line.closed() => return true,
                () = line.suspected() => {}
                _ = idle_check.tick() => {}
            }
            match timeout(self.target.response_timeout, line.answers()).await {
                Ok(true) => {}
                Ok(false) => return true,
                Err(_) => return false,
            }
        }
    }
}

fn in_words(address: &str, latest: Option<&NoLine>) -> String {
    match latest {
        None => format!("cannot reach {address}: not connected yet"),
        Some(NoLine::Unreachable(reason)) => format!("cannot reach {address}: {reason}"),
        Some(NoLine::Refused(words)) => format!("{address} refuses the connection: {words}"),
    }
}

/// Between half the delay and all of it, so that many links do not come back in step.
pub(super) fn jittered(delay: Duration) -> Duration {
    delay.mul_f64(fastrand::f64().mul_add(0.5, 0.5))
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
    fn delays_are_jittered_within_bounds() {
        for _ in 0..1_000 {
            let delay = jittered(Duration::from_millis(100));
            assert!((50..=100).contains(&delay.as_millis()), "{delay:?}");
        }
    }

    #[test]
    fn client_names_are_such_as_redis_takes() {
        assert_eq!(client_name("kvredis:a b\n:ü"), "kvredis:a_b_:_");
    }
}
