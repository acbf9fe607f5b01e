//! One established connection to a Redis server: log-in, and the redis crate's multiplexing over
//! a stream that `dial` opened.
//!
//! A line breaks once and for all; replacing it is for `supervisor`.

use std::fs;
use std::future::Future;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Cmd, Pipeline, ProtocolVersion, PushInfo, RedisConnectionInfo,
    RedisResult, ServerError, Value,
};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Target;
use super::dial::{Duplex, dial};
use super::node::passes;
use super::place::Place;
use super::request::Request;
use super::tracking::Tracking;
use crate::cache::Cache;
use crate::error::{in_words, os_words, unscripted};
use crate::settings::Secret;
use crate::settings::address::Server;
use crate::task::AbortOnDrop;

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

/// Whether what is read over a line may be kept.
#[derive(Debug)]
enum Keeping {
    /// Nobody asked for that.
    Unwanted,
    /// It may, as long as the server tells of changes.
    On {
        tracking: Arc<Tracking>,
        /// Why it may not after all.
        refused: OnceLock<String>,
        prover: OnceLock<AbortOnDrop>,
    },
    /// It may not.
    Refused(String),
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

/// Why a connection could not be established.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoLine {
    /// Nobody there, nobody who speaks Redis's protocol, or a Redis that says it needs a moment.
    Unreachable(String),
    /// Redis itself refused: waiting does not help, somebody has to act.
    Refused(String),
    /// A setting, a file or a certificate does not do: somebody has to act here, too.
    Unusable(String),
}

impl NoLine {
    /// The server closed the connection when it should have answered.
    pub fn hung_up() -> Self {
        Self::Unreachable("the connection was closed during the log-in".to_owned())
    }

    /// The reason alone.
    pub fn reason(self) -> String {
        match self {
            Self::Unreachable(words) | Self::Refused(words) | Self::Unusable(words) => words,
        }
    }

    /// The same, with the server in question.
    pub fn at(self, server: &str) -> Self {
        match self {
            Self::Unreachable(reason) => Self::Unreachable(format!("{server}: {reason}")),
            Self::Refused(words) => Self::Refused(format!("{server}: {words}")),
            Self::Unusable(words) => Self::Unusable(format!("{server}: {words}")),
        }
    }
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
        let mut refused = Keeping::Unwanted;
        if let Some(cache) = cache {
            let in_cluster = matches!(target.address.server, Server::Cluster { .. });
            let tracking = Arc::new(Tracking::new(Arc::clone(cache), in_cluster));
            let stream = dial(&site, target.tls()).await?;
            match Self::that_is_told(stream, target, tracking).await? {
                Ok(line) => {
                    line.log_in(target, place, name).await?;
                    line.begin_keeping().await?;
                    return Ok(line);
                }
                Err(reason) => refused = Keeping::Refused(reason),
            }
        }
        let mut line = Self::over(dial(&site, target.tls()).await?).await?;
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
                .map_err(|error| NoLine::Unreachable(error.category().to_owned()))?;
        Ok(Self::new(commands, driver, Keeping::Unwanted))
    }

    /// Takes over a stream, and has the server switch to the protocol in which it can tell of
    /// changes (RESP3). If the server refuses, answers why: it may take an ordinary log-in.
    async fn that_is_told(
        stream: Box<dyn Duplex>,
        target: &Target,
        tracking: Arc<Tracking>,
    ) -> Result<Result<Self, String>, NoLine> {
        let login = resp3_login(target)?;
        let told = Arc::clone(&tracking);
        let config = multiplexing().set_push_sender(move |push: PushInfo| {
            told.heard(&push);
            Ok::<(), ()>(())
        });
        match MultiplexedConnection::new_with_config(&login, stream, config).await {
            Ok((commands, driver)) => {
                let keeping = Keeping::On {
                    tracking,
                    refused: OnceLock::new(),
                    prover: OnceLock::new(),
                };
                Ok(Ok(Self::new(commands, driver, keeping)))
            }
            Err(error) => Ok(Err(format!(
                "the server refuses RESP3 (HELLO 3): {}",
                error.code().unwrap_or(error.category())
            ))),
        }
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

    /// Has the server tell of changes of what is read from now on.
    async fn begin_keeping(&self) -> Result<(), NoLine> {
        let Keeping::On {
            tracking,
            refused,
            prover,
        } = &self.keeping
        else {
            return Ok(());
        };
        // Of what was not asked for, the server is to remember nothing.
        for words in [&["TRACKING", "ON", "OPTIN"][..], &["CACHING", "YES"]] {
            let command = redis::cmd("CLIENT").arg(words).take();
            match self.send(&Request::One(command), false).await {
                Reply::Answer(_) => {}
                Reply::Refusal(refusal) => {
                    tracking.end();
                    let _ = refused.set(in_words(&refusal));
                    return Ok(());
                }
                Reply::Lost => return Err(NoLine::hung_up()),
            }
        }
        let prove = Arc::clone(tracking).prove(self.commands.clone());
        let _ = prover.set(AbortOnDrop::spawn(prove));
        Ok(())
    }

    /// Who hears of changes of what is read over this line.
    pub fn tracking(&self) -> Option<&Tracking> {
        match &self.keeping {
            Keeping::On { tracking, .. } => Some(tracking),
            _ => None,
        }
    }

    /// Why nothing that is read over this line is kept, although it should be.
    pub fn keeps_nothing(&self) -> Option<&String> {
        match &self.keeping {
            Keeping::Unwanted => None,
            Keeping::On { refused, .. } => refused.get(),
            Keeping::Refused(reason) => Some(reason),
        }
    }

    /// The line is about to be replaced: what was read over it is not to be used any more.
    pub fn retire(&self) {
        if let Some(tracking) = self.tracking() {
            tracking.end();
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

    /// Asks for a value that is to be kept, with its time to live; for the value alone where the
    /// server would not tell of its change.
    async fn kept(&self, commands: &Pipeline, asking: bool) -> RedisResult<Value> {
        let alone = |value| match value {
            Value::ServerError(_) => value,
            value => Value::Array(vec![value, Value::Nil]),
        };
        let tracking = self.tracking().filter(|t| t.vouch().is_some());
        let (Some(tracking), false) = (tracking, asking) else {
            let Some(get) = commands.cmd_iter().nth(1) else {
                return Ok(Value::Nil);
            };
            if !asking {
                return self.one(get).await.map(alone);
            }
            let mut guest = Pipeline::with_capacity(2);
            guest.cmd("ASKING");
            guest.add_command(get.clone());
            return self.last_of(&guest, 2).await.map(alone);
        };
        let answers = self
            .commands
            .clone()
            .send_packed_commands(commands, 0, commands.len())
            .await?;
        let Ok([told, value, age]) = <[Value; 3]>::try_from(answers) else {
            return Ok(Value::Nil);
        };
        if let Value::ServerError(refusal) = value {
            return Ok(Value::ServerError(refusal));
        }
        for (what, answer) in [("CLIENT CACHING", &told), ("PTTL", &age)] {
            if let Value::ServerError(refusal) = answer {
                // Without the one nobody would tell of its change, without the other it might
                // outlive its key.
                tracking.end();
                if let Keeping::On { refused, .. } = &self.keeping {
                    let _ = refused.set(format!("{what}: {}", in_words(refusal)));
                }
                self.suspect();
                return Ok(alone(value));
            }
        }
        Ok(Value::Array(vec![value, age]))
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

    async fn log_in(&self, target: &Target, place: &Place, name: &str) -> Result<(), NoLine> {
        let address = &target.address;
        let password = password(target)?;
        self.authenticate(address.username.as_deref(), password.as_ref())
            .await?;
        if address.database != 0 {
            self.insist(redis::cmd("SELECT").arg(address.database).take())
                .await?;
        }
        if matches!(place, Place::ClusterReplica(_)) {
            self.insist(redis::cmd("READONLY")).await?;
        }
        for (what, value) in [
            ("SETNAME", [Some(name), None]),
            ("SETINFO", [Some("LIB-NAME"), Some("kvredis")]),
            (
                "SETINFO",
                [Some("LIB-VER"), Some(env!("CARGO_PKG_VERSION"))],
            ),
        ] {
            let mut client = redis::cmd("CLIENT");
            client.arg(what).arg(&value[..]);
            // For whoever looks at Redis only: an old Redis or a strict ACL may refuse it.
            if let Reply::Lost = self.send(&Request::One(client), false).await {
                return Err(NoLine::hung_up());
            }
        }
        if let Some(role) = place.role() {
            self.insist_on_role(role).await?;
        }
        // Redis asks for a password only when a command comes.
        match self.send(&Request::One(redis::cmd("PING")), false).await {
            Reply::Refusal(refusal) if refusal.code() == "NOAUTH" => {
                Err(NoLine::Refused(in_words(&refusal)))
            }
            Reply::Lost => Err(NoLine::hung_up()),
            _ => Ok(()),
        }
    }

    /// Logs in, if there is somebody to log in as.
    ///
    /// # Errors
    ///
    /// Redis refuses, or the connection broke.
    pub async fn authenticate(
        &self,
        user: Option<&str>,
        password: Option<&Secret>,
    ) -> Result<(), NoLine> {
        let mut auth = redis::cmd("AUTH");
        match (user, password.map(Secret::reveal)) {
            // A user without a password is asked for one all the same, and takes any.
            (Some(user), password) => auth.arg(user).arg(password.unwrap_or_default()),
            (None, Some(password)) => auth.arg(password),
            (None, None) => return Ok(()),
        };
        self.insist(auth).await?;
        *self.password.lock().unwrap_or_else(PoisonError::into_inner) = password.cloned();
        Ok(())
    }

    /// Logs in again, if the password is another one by now. The server goes on taking commands
    /// under the old log-in until the new one has succeeded.
    ///
    /// # Errors
    ///
    /// The password cannot be read, or Redis does not take it (yet).
    pub async fn keep_logged_in(&self, target: &Target) -> Result<bool, NoLine> {
        let new = password(target)?;
        let old = self
            .password
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if new == old {
            return Ok(false);
        }
        self.authenticate(target.address.username.as_deref(), new.as_ref())
            .await?;
        Ok(true)
    }

    /// What the sentinels named may have become something else since.
    async fn insist_on_role(&self, role: &str) -> Result<(), NoLine> {
        match self.send(&Request::One(redis::cmd("ROLE")), false).await {
            Reply::Answer(Value::Array(parts)) => match parts.first() {
                Some(Value::BulkString(is)) if is != role.as_bytes() => {
                    Err(NoLine::Unreachable(format!(
                        "the server that the sentinels name is a {}, not the {role}",
                        String::from_utf8_lossy(is)
                    )))
                }
                _ => Ok(()),
            },
            Reply::Lost => Err(NoLine::hung_up()),
            // An ACL may forbid the question.
            _ => Ok(()),
        }
    }

    /// Sends a command without which the connection is of no use.
    async fn insist(&self, command: Cmd) -> Result<(), NoLine> {
        match self.send(&Request::One(command), false).await {
            Reply::Answer(_) => Ok(()),
            Reply::Refusal(refusal) if passes(refusal.code()) => {
                Err(NoLine::Unreachable(in_words(&refusal)))
            }
            Reply::Refusal(refusal) => Err(NoLine::Refused(in_words(&refusal))),
            Reply::Lost => Err(NoLine::hung_up()),
        }
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

/// What the redis crate logs in with, where the server is to speak RESP3 from the beginning.
///
/// # Errors
///
/// There is no password, although there should be one.
pub fn resp3_login(target: &Target) -> Result<RedisConnectionInfo, NoLine> {
    let mut login = RedisConnectionInfo::default()
        .set_protocol(ProtocolVersion::RESP3)
        .set_skip_set_lib_name();
    if let Some(user) = &target.address.username {
        // A user without a password is asked for one all the same, and takes any.
        login = login.set_username(user).set_password("");
    }
    if let Some(password) = password(target)? {
        login = login.set_password(password.reveal());
    }
    Ok(login)
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

/// The password as it is now: that of the file, if there is one.
///
/// # Errors
///
/// The file cannot be read, or is empty.
pub fn password(target: &Target) -> Result<Option<Secret>, NoLine> {
    match &target.password_file {
        None => Ok(target.address.password.clone()),
        Some(path) => read_password(path).map(Some),
    }
}

fn read_password(path: &Path) -> Result<Secret, NoLine> {
    let unusable = |words: &str| {
        NoLine::Unusable(format!(
            "PASSWORD_FILE: cannot read {}: {words}",
            path.display()
        ))
    };
    let text = fs::read_to_string(path).map_err(|error| unusable(&os_words(&error)))?;
    let password = text.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err(unusable("it is empty"));
    }
    Ok(Secret::from(password.to_owned()))
}
