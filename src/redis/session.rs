//! One established connection to a Redis server: the multiplexing of the redis crate over a stream,
//! and the state of the connection until it is closed.
//!
//! A session is never repaired. `connector` opens it, `supervisor` replaces it.

pub(crate) mod state;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Cmd, Pipeline, PushInfo, RedisConnectionInfo, RedisResult, ServerError,
    Value,
};
use tokio::sync::OnceCell;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::redis::client_tracking::{ClientTracker, Tracking};
use crate::redis::command::admin::AdminCommand;
use crate::redis::command::{Command, Packed};
use crate::redis::connect_error::ConnectError;
use crate::redis::listing::RunId;
use crate::redis::reply::text;
use crate::redis::server_error::ServerErrorExt as _;
use crate::redis::session::state::{SessionState, StateCell};
use crate::redis::transport::AsyncStream;
use crate::tasks::{self, catch_panic};

/// Commands that may be queued for the socket. The limiters of the links are the real limit.
const QUEUE_CAPACITY: usize = 1024;
/// A younger session is not replaced because its server is a replica: resolving the primary again
/// would give the same server so soon.
const DEMOTABLE_AFTER: Duration = Duration::from_millis(500);

/// An established connection.
#[derive(Debug)]
pub(crate) struct Session {
    connection: MultiplexedConnection,
    state: Arc<StateCell>,
    opened_at: Instant,
    run_id: OnceCell<RunId>,
    transactions_tried: OnceCell<()>,
    tracking: Tracking,
    _heartbeat: Option<AbortOnDropHandle<()>>,
    _driver: AbortOnDropHandle<()>,
}

/// The outcome of a command that was sent.
#[derive(Debug)]
pub(crate) enum SessionReply {
    Value(Value),
    ServerError(ServerError),
    /// The connection broke; whether Redis has executed the command is unknown.
    Disconnected,
}

impl Session {
    /// Takes over a stream, in RESP2 and without authentication.
    pub(crate) async fn open(stream: Box<dyn AsyncStream>) -> Result<Self, ConnectError> {
        // The handshake is not left to the redis crate, whose errors hide Redis's messages.
        let info = RedisConnectionInfo::default().set_skip_set_lib_name();
        let (connection, driver) =
            MultiplexedConnection::new_with_config(&info, stream, multiplexing())
                .await
                .map_err(ConnectError::redis)?;
        Ok(Self::new(connection, driver, Tracking::Off))
    }

    /// Takes over a stream, and authenticates in RESP3, in which the server can push invalidations
    /// to the tracker.
    pub(crate) async fn open_tracked(
        stream: Box<dyn AsyncStream>,
        login: &RedisConnectionInfo,
        tracker: ClientTracker,
    ) -> RedisResult<Self> {
        let tracker = Arc::new(tracker);
        let pushed_to = Arc::clone(&tracker);
        let config = multiplexing().set_push_sender(move |push: PushInfo| {
            pushed_to.on_push(&push);
            Ok::<(), ()>(())
        });
        let (connection, driver) =
            MultiplexedConnection::new_with_config(login, stream, config).await?;
        Ok(Self::new(connection, driver, Tracking::On(tracker)))
    }

    fn new(
        connection: MultiplexedConnection,
        driver: impl Future<Output = ()> + Send + 'static,
        tracking: Tracking,
    ) -> Self {
        let state = Arc::new(StateCell::default());
        let tracker = match &tracking {
            Tracking::On(tracker) => Some(Arc::clone(tracker)),
            _ => None,
        };
        let driver = drive(driver, Arc::clone(&state), tracker);
        Self {
            connection,
            state,
            opened_at: Instant::now(),
            run_id: OnceCell::new(),
            transactions_tried: OnceCell::new(),
            tracking,
            _heartbeat: None,
            _driver: tasks::spawn("session", driver),
        }
    }

    /// Records why a session in RESP2 does not cache.
    pub(crate) fn set_tracking_unsupported(&mut self, reason: String) {
        self.tracking = Tracking::Unsupported(reason);
    }

    /// Enables client tracking for subsequent reads, if the session was opened for it.
    pub(crate) async fn enable_tracking(&mut self) -> Result<(), ConnectError> {
        if let Tracking::On(tracker) = &self.tracking {
            self._heartbeat = tracker.enable(self.connection.clone()).await?;
        }
        Ok(())
    }

    /// Sends a command and waits for the reply. With `asking`, prefixes `ASKING` for a slot that the
    /// node is importing.
    pub(crate) async fn send(&self, command: &Command<'_>, asking: bool) -> SessionReply {
        let packed = command.pack();
        if matches!(packed, Packed::Transaction(_))
            && let Err(refused) = Box::pin(self.try_transactions()).await
        {
            return refused;
        }
        let reply = match packed {
            Packed::One(command) if !asking => self.send_one(&command).await,
            Packed::One(command) => {
                let mut commands = Pipeline::with_capacity(2);
                commands.cmd("ASKING").ignore();
                commands.add_command(command);
                self.send_for_last(&commands, 2).await
            }
            Packed::Tracked(commands) => self.cached_get(&commands, asking).await,
            Packed::Transaction(commands) if !asking => self
                .send_for_last(&commands, commands.len() + 2)
                .await
                .map(first_server_error),
            Packed::Transaction(commands) => {
                let mut all = Pipeline::with_capacity(commands.len() + 3);
                all.cmd("ASKING").cmd("MULTI");
                for command in commands.cmd_iter() {
                    all.add_command(command.clone());
                }
                all.cmd("EXEC");
                self.send_for_last(&all, all.len())
                    .await
                    .map(first_server_error)
            }
        };
        match reply {
            Ok(Value::ServerError(error)) => SessionReply::ServerError(error.innermost()),
            Ok(reply) => SessionReply::Value(reply),
            // The redis crate turns an aborted transaction into an error; any other error means that
            // the connection broke.
            Err(error) => match error.into_server_errors().as_deref() {
                Some([(_, error), ..]) => SessionReply::ServerError(error.clone()),
                _ => SessionReply::Disconnected,
            },
        }
    }

    /// Tries a transaction without commands before the first one. If the ACL forbids `MULTI`, Redis
    /// executes the commands of a transaction one by one; if it forbids `EXEC`, the connection stays
    /// within the transaction, and every later command is queued.
    ///
    /// # Errors
    ///
    /// The reply of a server that does not execute transactions.
    async fn try_transactions(&self) -> Result<(), SessionReply> {
        let tried = self.transactions_tried.get_or_try_init(|| async {
            match Box::pin(self.send(&AdminCommand::Exec.into(), false)).await {
                // EXEC without MULTI.
                SessionReply::ServerError(error)
                    if error
                        .details()
                        .is_some_and(|text| text.contains("without MULTI")) => {}
                SessionReply::Value(_) => {}
                refused => return Err(refused),
            }
            let mut empty = Pipeline::with_capacity(2);
            empty.cmd("MULTI").cmd("EXEC");
            let mut connection = self.connection.clone();
            match connection.send_packed_commands(&empty, 0, 2).await {
                Ok(replies) => match replies.into_iter().next() {
                    Some(Value::ServerError(error)) => Err(SessionReply::ServerError(error)),
                    _ => Ok(()),
                },
                Err(_) => Err(SessionReply::Disconnected),
            }
        });
        tried.await.copied()
    }

    /// The identity of the server process, which does not change until the process ends.
    ///
    /// # Errors
    ///
    /// The reply of a server that cannot return it now.
    pub(crate) async fn run_id(&self) -> Result<RunId, SessionReply> {
        let run_id = self.run_id.get_or_try_init(|| async {
            let info = AdminCommand::Info { section: "server" }.into();
            match self.send(&info, false).await {
                SessionReply::Value(info) => Ok(parse_run_id(&info)),
                // The ACL forbids it, or a proxy does not know it.
                SessionReply::ServerError(error) if !error.is_transient() => Ok(RunId::default()),
                reply => Err(reply),
            }
        });
        run_id.await.copied()
    }

    /// Returns true if the server replies at all.
    pub(crate) async fn ping(&self) -> bool {
        !matches!(
            self.send(&AdminCommand::Ping.into(), false).await,
            SessionReply::Disconnected
        )
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state.load() == SessionState::Closed
    }

    /// Makes the supervisor check whether the server still replies.
    pub(crate) fn request_health_check(&self) {
        self.state.raise(SessionState::Suspected);
    }

    /// Makes the supervisor resolve the primary again: the server replied that it is a replica.
    pub(crate) fn mark_demoted(&self) {
        if self.opened_at.elapsed() >= DEMOTABLE_AFTER {
            self.state.raise(SessionState::Demoted);
        }
    }

    /// Waits until the state is not [`SessionState::Open`]. Withdraws a suspicion, so that one that
    /// arises during the check leads to another check.
    pub(crate) async fn next_state(&self) -> SessionState {
        self.state.next().await
    }

    /// The tracker of the reads over this session.
    pub(crate) fn tracking(&self) -> Option<&ClientTracker> {
        match &self.tracking {
            Tracking::On(tracker) => Some(tracker),
            _ => None,
        }
    }

    /// The reason why reads over this session are not cached, although the settings enable the cache.
    pub(crate) fn tracking_disabled_reason(&self) -> Option<&str> {
        match &self.tracking {
            Tracking::Off => None,
            Tracking::On(tracker) => tracker.disabled_reason(),
            Tracking::Unsupported(reason) => Some(reason),
        }
    }

    /// Ends the use of all values that were read over this session, which is about to be replaced.
    pub(crate) fn revoke_cache(&self) {
        if let Some(tracker) = self.tracking() {
            tracker.revoke();
        }
    }

    /// Reads a value that is to be cached, and its time to live; the value alone where the server
    /// would not report its change.
    async fn cached_get(&self, commands: &Pipeline, asking: bool) -> RedisResult<Value> {
        let uncached = |value| match value {
            Value::ServerError(_) => value,
            value => Value::Array(vec![value, Value::Nil]),
        };
        let tracker = self.tracking().filter(|t| t.freshness().is_some());
        let (Some(tracker), false) = (tracker, asking) else {
            let Some(get) = commands.cmd_iter().nth(1) else {
                return Ok(Value::Nil);
            };
            if !asking {
                return self.send_one(get).await.map(uncached);
            }
            let mut pipeline = Pipeline::with_capacity(2);
            pipeline.cmd("ASKING");
            pipeline.add_command(get.clone());
            return self.send_for_last(&pipeline, 2).await.map(uncached);
        };
        let replies = self
            .connection
            .clone()
            .send_packed_commands(commands, 0, commands.len())
            .await?;
        let Ok([caching, value, ttl]) = <[Value; 3]>::try_from(replies) else {
            return Ok(Value::Nil);
        };
        if let Value::ServerError(error) = value {
            return Ok(Value::ServerError(error));
        }
        for (name, reply) in [("CLIENT CACHING", &caching), ("PTTL", &ttl)] {
            if let Value::ServerError(error) = reply {
                // Without the first the server would not report the change of the value, without the
                // second the value might outlive its key.
                if error.is_permanent() {
                    tracker.disable(format!("{name}: {}", error.message()));
                    self.request_health_check();
                }
                return Ok(uncached(value));
            }
        }
        Ok(Value::Array(vec![value, ttl]))
    }

    async fn send_one(&self, command: &Cmd) -> RedisResult<Value> {
        self.connection.clone().send_packed_command(command).await
    }

    /// Sends commands that have this number of replies, and waits for the last reply.
    async fn send_for_last(&self, commands: &Pipeline, replies: usize) -> RedisResult<Value> {
        let replies = self
            .connection
            .clone()
            .send_packed_commands(commands, replies - 1, 1)
            .await?;
        Ok(replies.into_iter().next().unwrap_or_default())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.revoke_cache();
    }
}

/// Moves bytes until the connection breaks.
async fn drive(
    driver: impl Future<Output = ()>,
    state: Arc<StateCell>,
    tracker: Option<Arc<ClientTracker>>,
) {
    // The supervisor replaces a connection whose driver panics, like one that broke.
    let _ = catch_panic(driver).await;
    if let Some(tracker) = tracker {
        tracker.revoke();
    }
    state.raise(SessionState::Closed);
}

/// The redis crate's defaults are a time limit of 500 ms for replies and a queue of 50 commands
/// (`client.rs`, `multiplexed_connection.rs` of redis 1.8); the callers have their own time limits.
fn multiplexing() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_response_timeout(None)
        .set_pipeline_buffer_size(QUEUE_CAPACITY)
}

/// The `run_id` in the reply to `INFO server`.
fn parse_run_id(info: &Value) -> RunId {
    let mut lines = text(info).unwrap_or_default().lines();
    let run_id = lines.find_map(|line| line.strip_prefix("run_id:"));
    run_id.map(RunId::of).unwrap_or_default()
}

/// The reply of a transaction, or the first error of its commands, which fails all of them.
fn first_server_error(reply: Value) -> Value {
    match reply {
        Value::Array(replies) => replies
            .iter()
            .find(|reply| matches!(reply, Value::ServerError(_)))
            .cloned()
            .unwrap_or(Value::Array(replies)),
        reply => reply,
    }
}
