//! One established connection to a Redis server: the redis crate's multiplexing over a stream that
//! `dial` opened.
//!
//! A line breaks once and for all; replacing it is for `supervisor`. `log_in` is what is said first,
//! `keeping` the reads that may be kept.

pub(crate) mod tracking;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Cmd, Pipeline, RedisConnectionInfo, RedisResult, ServerError, Value,
};
use tokio::sync::{Notify, OnceCell};
use tokio::time::Instant;

use crate::cache::read_through::Cache;
use crate::redis::client_tracking::ClientTracker;
use crate::redis::command::admin::AdminCommand;
use crate::redis::command::{Command, Packed, Request};
use crate::redis::connect_error::{ConnectError, ConnectErrorKind};
use crate::redis::listing::RunId;
use crate::redis::options::ConnectOptions;
use crate::redis::reply::text;
use crate::redis::resolve::ServerSelector;
use crate::redis::server_error::{is_transient, strip_script_prefix};
use crate::redis::session::tracking::Tracking;
use crate::redis::transport::{AsyncStream, ServerAddr, dial, read_unsolicited_error};
use crate::settings::secret::Secret;
use crate::task::AbortOnDrop;

/// Commands that may be queued for the socket. The gates of the links are the real limit.
const QUEUED_COMMANDS: usize = 1024;
/// A younger line is not replaced because its server is a replica: that would not help so soon.
const DEMOTABLE_AFTER: Duration = Duration::from_millis(500);

/// An established connection.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) commands: MultiplexedConnection,
    ends: Arc<SessionState>,
    since: Instant,
    /// The password of the log-in, if there was one.
    pub(crate) password: Mutex<Option<Secret>>,
    run_id: OnceCell<RunId>,
    keeping: Tracking,
    _driver: AbortOnDrop,
}

/// What happens to a line from outside.
#[derive(Debug, Default)]
struct SessionState {
    closed: AtomicBool,
    demoted: AtomicBool,
    on_close: Notify,
    on_suspicion: Notify,
}

/// What came of a request that was sent.
#[derive(Debug)]
pub(crate) enum SessionReply {
    /// The answer.
    Value(Value),
    /// Redis refused.
    ServerError(ServerError),
    /// The connection broke; whether Redis has carried out the request is unknown.
    Disconnected,
}

impl Session {
    /// Connects, logs in, selects the database, and announces `name`.
    ///
    /// # Errors
    ///
    /// Why there is no connection, without secrets.
    pub(crate) async fn open(
        target: &ConnectOptions,
        place: &ServerSelector,
        name: &str,
        cache: Option<&Arc<Cache>>,
    ) -> Result<Self, ConnectError> {
        let site = place.find(target).await?;
        match Self::open_at(&site, target, place, name, cache).await {
            Err(why) if *why.cause() == ConnectErrorKind::ClosedByPeer && !target.address.tls => {
                Err(read_unsolicited_error(&site).await.unwrap_or(why))
            }
            opened => opened,
        }
    }

    async fn open_at(
        site: &ServerAddr,
        target: &ConnectOptions,
        place: &ServerSelector,
        name: &str,
        cache: Option<&Arc<Cache>>,
    ) -> Result<Self, ConnectError> {
        let mut refused = Tracking::Off;
        if let Some(cache) = cache {
            match Self::open_with_tracking(site, target, cache).await? {
                Ok(line) => {
                    line.log_in(target, place, name).await?;
                    line.enable_tracking().await?;
                    return Ok(line);
                }
                Err(reason) => refused = Tracking::Unsupported(reason),
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
    pub(crate) async fn over(stream: Box<dyn AsyncStream>) -> Result<Self, ConnectError> {
        // Logging in is done here rather than by the redis crate, for errors in Redis's words.
        let info = RedisConnectionInfo::default().set_skip_set_lib_name();
        let (commands, driver) =
            MultiplexedConnection::new_with_config(&info, stream, multiplexing())
                .await
                // The redis crate's texts may repeat what a server sent; its kinds do not.
                .map_err(|error| {
                    ConnectError::new(ConnectErrorKind::Unreachable, error.category())
                })?;
        Ok(Self::new(commands, driver, Tracking::Off))
    }

    fn new(
        commands: MultiplexedConnection,
        driver: impl Future<Output = ()> + Send + 'static,
        keeping: Tracking,
    ) -> Self {
        let ends = Arc::new(SessionState::default());
        let told = match &keeping {
            Tracking::On { tracking, .. } => Some(Arc::clone(tracking)),
            _ => None,
        };
        Self {
            commands,
            since: Instant::now(),
            password: Mutex::default(),
            run_id: OnceCell::new(),
            _driver: AbortOnDrop::spawn(drive(driver, Arc::clone(&ends), told)),
            ends,
            keeping,
        }
    }

    /// Sends a request and waits for the answer. With `asking`, a node of a cluster carries it
    /// out although it is only about to take over the key's slot.
    pub(crate) async fn send(&self, command: &Command<'_>, asking: bool) -> SessionReply {
        let answer = match command.pack() {
            Packed::One(command) if !asking => self.one(&command).await,
            Packed::One(command) => {
                let mut commands = Pipeline::with_capacity(2);
                commands.cmd("ASKING").ignore();
                commands.add_command(command);
                self.last_of(&commands, 2).await
            }
            Packed::Tracked(commands) => self.kept(&commands, asking).await,
            Packed::Transaction(commands) if !asking => self.transaction(&commands).await,
            Packed::Transaction(commands) => {
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
            Ok(Value::ServerError(refusal)) => {
                SessionReply::ServerError(strip_script_prefix(refusal))
            }
            Ok(answer) => SessionReply::Value(answer),
            // A transaction that Redis refused comes as an error; any other one is the connection's.
            Err(error) => match error.into_server_errors().as_deref() {
                Some([(_, refusal), ..]) => SessionReply::ServerError(refusal.clone()),
                _ => SessionReply::Disconnected,
            },
        }
    }

    /// The identity of the server process, which it keeps until it ends.
    ///
    /// # Errors
    ///
    /// The reply of a server that cannot tell it now.
    pub(crate) async fn run_id(&self) -> Result<RunId, SessionReply> {
        let run_id = self.run_id.get_or_try_init(|| async {
            let info = AdminCommand::Info { section: "server" }.into();
            match self.send(&info, false).await {
                SessionReply::Value(info) => Ok(run_id_of(&info)),
                // The ACL forbids it, or a proxy does not know it.
                SessionReply::ServerError(error) if !is_transient(error.code()) => {
                    Ok(RunId::default())
                }
                reply => Err(reply),
            }
        });
        run_id.await.copied()
    }

    /// Whether the connection has broken, so that nothing sent now would reach Redis.
    pub(crate) fn is_closed(&self) -> bool {
        self.ends.closed.load(Ordering::Acquire)
    }

    /// Has the supervisor ask whether Redis still answers.
    pub(crate) fn suspect(&self) {
        self.ends.on_suspicion.notify_one();
    }

    /// Has the supervisor find the primary again: the server says that it is a replica.
    pub(crate) fn demoted(&self) {
        if self.since.elapsed() >= DEMOTABLE_AFTER {
            self.ends.demoted.store(true, Ordering::Release);
            self.suspect();
        }
    }

    /// Whether the server has said that it is a replica.
    pub(crate) fn is_demoted(&self) -> bool {
        self.ends.demoted.load(Ordering::Acquire)
    }

    /// Waits until somebody is suspicious.
    pub(crate) async fn suspected(&self) {
        self.ends.on_suspicion.notified().await;
    }

    /// Waits until the connection has broken.
    pub(crate) async fn closed(&self) {
        let closing = self.ends.on_close.notified();
        if !self.is_closed() {
            closing.await;
        }
    }

    /// Whether Redis answers at all.
    pub(crate) async fn answers(&self) -> bool {
        !matches!(
            self.send(&Request::One(redis::cmd("PING")), false).await,
            SessionReply::Disconnected
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

impl Drop for Session {
    fn drop(&mut self) {
        self.retire();
    }
}

/// Moves bytes until the connection breaks, and says so at once.
async fn drive(
    driver: impl Future<Output = ()>,
    ends: Arc<SessionState>,
    tracking: Option<Arc<ClientTracker>>,
) {
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

/// The `run_id` within the reply to `INFO server`.
fn run_id_of(info: &Value) -> RunId {
    let lines = text(info).unwrap_or_default().lines();
    lines
        .filter_map(|line| line.strip_prefix("run_id:"))
        .map(RunId::of)
        .next()
        .unwrap_or_default()
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
