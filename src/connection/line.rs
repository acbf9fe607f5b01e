//! One established connection to a Redis server: the redis crate's multiplexing over a stream that
//! `dial` opened.
//!
//! A line breaks once and for all; replacing it is for `supervisor`. `log_in` is what is said first,
//! `keeping` the reads that may be kept.

mod keeping;
mod log_in;

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Cmd, Pipeline, RedisConnectionInfo, RedisResult, ServerError, Value,
};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Target;
use super::dial::{Duplex, Site, dial, said_unasked};
use super::no_line::{Cause, NoLine};
use super::place::Place;
use super::request::Request;
use super::tracking::Tracking;
use crate::cache::Cache;
use crate::error::unscripted;
use crate::settings::Secret;
use crate::task::AbortOnDrop;
use keeping::Keeping;
pub use log_in::resp3_login;

/// Commands that may be queued for the socket. The gates of the links are the real limit.
const QUEUED_COMMANDS: usize = 1024;
/// A younger line is not replaced because its server is a replica: that would not help so soon.
const DEMOTABLE_AFTER: Duration = Duration::from_millis(500);

/// An established connection.
#[derive(Debug)]
pub struct Line {
    commands: MultiplexedConnection,
    ends: Arc<Ends>,
    since: Instant,
    /// The password of the log-in, if there was one.
    password: Mutex<Option<Secret>>,
    keeping: Keeping,
    _driver: AbortOnDrop,
}

/// What happens to a line from outside.
#[derive(Debug, Default)]
struct Ends {
    closed: AtomicBool,
    demoted: AtomicBool,
    on_close: Notify,
    on_suspicion: Notify,
}

/// What came of a request that was sent.
#[derive(Debug)]
pub enum Reply {
    /// The answer.
    Answer(Value),
    /// Redis refused.
    Refusal(ServerError),
    /// The connection broke; whether Redis has carried out the request is unknown.
    Lost,
}

impl Line {
    /// Connects, logs in, selects the database, and announces `name`.
    ///
    /// # Errors
    ///
    /// Why there is no connection, without secrets.
    pub async fn open(
        target: &Target,
        place: &Place,
        name: &str,
        cache: Option<&Arc<Cache>>,
    ) -> Result<Self, NoLine> {
        let site = place.find(target).await?;
        match Self::open_at(&site, target, place, name, cache).await {
            Err(why) if *why.cause() == Cause::HungUp && !target.address.tls => {
                Err(said_unasked(&site).await.unwrap_or(why))
            }
            opened => opened,
        }
    }

    async fn open_at(
        site: &Site,
        target: &Target,
        place: &Place,
        name: &str,
        cache: Option<&Arc<Cache>>,
    ) -> Result<Self, NoLine> {
        let mut refused = Keeping::Unwanted;
        if let Some(cache) = cache {
            match Self::that_is_told(site, target, cache).await? {
                Ok(line) => {
                    line.log_in(target, place, name).await?;
                    line.begin_keeping().await?;
                    return Ok(line);
                }
                Err(reason) => refused = Keeping::Refused(reason),
            }
        }
        let mut line = Self::over(dial(site, target.tls()).await?).await?;
        line.keeping = refused;
        line.log_in(target, place, name).await?;
        Ok(line)
    }

    /// Takes over a stream, on which nobody has logged in yet.
    ///
    /// # Errors
    ///
    /// The stream broke.
    pub async fn over(stream: Box<dyn Duplex>) -> Result<Self, NoLine> {
        // Logging in is done here rather than by the redis crate, for errors in Redis's words.
        let info = RedisConnectionInfo::default().set_skip_set_lib_name();
        let (commands, driver) =
            MultiplexedConnection::new_with_config(&info, stream, multiplexing())
                .await
                // The redis crate's texts may repeat what a server sent; its kinds do not.
                .map_err(|error| NoLine::new(Cause::Unreachable, error.category()))?;
        Ok(Self::new(commands, driver, Keeping::Unwanted))
    }

    fn new(
        commands: MultiplexedConnection,
        driver: impl Future<Output = ()> + Send + 'static,
        keeping: Keeping,
    ) -> Self {
        let ends = Arc::new(Ends::default());
        let told = match &keeping {
            Keeping::On { tracking, .. } => Some(Arc::clone(tracking)),
            _ => None,
        };
        Self {
            commands,
            since: Instant::now(),
            password: Mutex::default(),
            _driver: AbortOnDrop::spawn(drive(driver, Arc::clone(&ends), told)),
            ends,
            keeping,
        }
    }

    /// Sends a request and waits for the answer. With `asking`, a node of a cluster carries it
    /// out although it is only about to take over the key's slot.
    pub async fn send(&self, request: &Request, asking: bool) -> Reply {
        let answer = match request {
            Request::One(command) if !asking => self.one(command).await,
            Request::One(command) => {
                let mut commands = Pipeline::with_capacity(2);
                commands.cmd("ASKING").ignore();
                commands.add_command(command.clone());
                self.last_of(&commands, 2).await
            }
            Request::Kept(commands) => self.kept(commands, asking).await,
            Request::Transaction(commands) if !asking => self.transaction(commands).await,
            Request::Transaction(commands) => {
                let mut all = Pipeline::with_capacity(commands.len() + 3);
                all.cmd("ASKING").cmd("MULTI");
                for command in commands.cmd_iter() {
                    all.add_command(command.clone());
                }
                all.cmd("EXEC");
                self.last_of(&all, all.len()).await.map(first_refusal)
            }
        };
        match answer {
            Ok(Value::ServerError(refusal)) => Reply::Refusal(unscripted(refusal)),
            Ok(answer) => Reply::Answer(answer),
            // A transaction that Redis refused comes as an error; any other one is the connection's.
            Err(error) => match error.into_server_errors().as_deref() {
                Some([(_, refusal), ..]) => Reply::Refusal(refusal.clone()),
                _ => Reply::Lost,
            },
        }
    }

    /// Whether the connection has broken, so that nothing sent now would reach Redis.
    pub fn is_closed(&self) -> bool {
        self.ends.closed.load(Ordering::Acquire)
    }

    /// Has the supervisor ask whether Redis still answers.
    pub fn suspect(&self) {
        self.ends.on_suspicion.notify_one();
    }

    /// Has the supervisor find the primary again: the server says that it is a replica.
    pub fn demoted(&self) {
        if self.since.elapsed() >= DEMOTABLE_AFTER {
            self.ends.demoted.store(true, Ordering::Release);
            self.suspect();
        }
    }

    /// Whether the server has said that it is a replica.
    pub fn is_demoted(&self) -> bool {
        self.ends.demoted.load(Ordering::Acquire)
    }

    /// Waits until somebody is suspicious.
    pub async fn suspected(&self) {
        self.ends.on_suspicion.notified().await;
    }

    /// Waits until the connection has broken.
    pub async fn closed(&self) {
        let closing = self.ends.on_close.notified();
        if !self.is_closed() {
            closing.await;
        }
    }

    /// Whether Redis answers at all.
    pub async fn answers(&self) -> bool {
        !matches!(
            self.send(&Request::One(redis::cmd("PING")), false).await,
            Reply::Lost
        )
    }

    async fn one(&self, command: &Cmd) -> RedisResult<Value> {
        self.commands.clone().send_packed_command(command).await
    }

    /// Sends `MULTI`, the commands and `EXEC`; all answers but the last only say `QUEUED`.
    async fn transaction(&self, commands: &Pipeline) -> RedisResult<Value> {
        self.last_of(commands, commands.len() + 2)
            .await
            .map(first_refusal)
    }

    /// Sends commands that have so many answers, and waits for the last.
    async fn last_of(&self, commands: &Pipeline, answers: usize) -> RedisResult<Value> {
        let answers = self
            .commands
            .clone()
            .send_packed_commands(commands, answers - 1, 1)
            .await?;
        Ok(answers.into_iter().next().unwrap_or_default())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.retire();
    }
}

/// Moves bytes until the connection breaks, and says so at once.
async fn drive(driver: impl Future<Output = ()>, ends: Arc<Ends>, tracking: Option<Arc<Tracking>>) {
    driver.await;
    if let Some(tracking) = tracking {
        tracking.end();
    }
    ends.closed.store(true, Ordering::Release);
    ends.on_close.notify_waiters();
}

/// How the redis crate is to share a connection.
fn multiplexing() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_response_timeout(None)
        .set_pipeline_buffer_size(QUEUED_COMMANDS)
}

/// The answer of a transaction, or the refusal of one of its commands, which is that of all.
fn first_refusal(answer: Value) -> Value {
    match answer {
        Value::Array(answers) => answers
            .iter()
            .find(|answer| matches!(answer, Value::ServerError(_)))
            .cloned()
            .unwrap_or(Value::Array(answers)),
        answer => answer,
    }
}
