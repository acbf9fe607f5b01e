//! One established connection to a Redis server: sockets, log-in, and the redis crate's
//! multiplexing over it.
//!
//! A line breaks once and for all; replacing it is for `supervisor`.

use std::future::Future;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Cmd, Pipeline, RedisConnectionInfo, RedisError, RedisResult,
    ServerError, Value,
};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Notify;

use super::Request;
use crate::error::in_words;
use crate::settings::address::Server;
use crate::settings::{Address, Secret};
use crate::task::AbortOnDrop;

/// Commands that may be queued for the socket. The gates of the links are the real limit.
const QUEUED_COMMANDS: usize = 1024;
/// How long a silent peer is trusted before the kernel asks, how often it asks, and when it gives
/// the connection up.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(15);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 3;
/// How long sent bytes may stay unacknowledged.
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

/// An established connection.
#[derive(Debug)]
pub struct Line {
    commands: MultiplexedConnection,
    ends: Arc<Ends>,
    _driver: AbortOnDrop,
}

/// What happens to a line from outside.
#[derive(Debug, Default)]
struct Ends {
    closed: AtomicBool,
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
    /// Nobody there, or nobody who speaks Redis's protocol.
    Unreachable(String),
    /// Redis itself refused: waiting does not help, somebody has to act.
    Refused(String),
}

impl Line {
    /// Connects, logs in, selects the database, and announces `name`.
    ///
    /// # Errors
    ///
    /// Why there is no connection, without secrets.
    pub async fn open(address: &Address, name: &str) -> Result<Self, NoLine> {
        let opened = match &address.server {
            Server::Tcp { host, port } => {
                let stream = connect_tcp(host, *port)
                    .await
                    .map_err(|e| unreachable(&e))?;
                Self::over(stream).await
            }
            Server::Unix { path } => {
                let stream = connect_unix(path).await.map_err(|e| unreachable(&e))?;
                Self::over(stream).await
            }
        };
        let line = opened.map_err(|error| NoLine::Unreachable(without_data(&error)))?;
        line.log_in(address, name).await?;
        Ok(line)
    }

    /// Sends a request and waits for the answer.
    pub async fn send(&self, request: &Request) -> Reply {
        let answer = match request {
            Request::One(command) => self.one(command).await,
            Request::Transaction(commands) => self.transaction(commands).await,
        };
        match answer {
            Ok(Value::ServerError(refusal)) => Reply::Refusal(refusal),
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
            self.send(&Request::One(redis::cmd("PING"))).await,
            Reply::Lost
        )
    }

    async fn over(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> RedisResult<Self> {
        // Logging in is done here rather than by the redis crate, for errors in Redis's words.
        let info = RedisConnectionInfo::default().set_skip_set_lib_name();
        let config = AsyncConnectionConfig::new()
            .set_response_timeout(None)
            .set_pipeline_buffer_size(QUEUED_COMMANDS);
        let (commands, driver) =
            MultiplexedConnection::new_with_config(&info, stream, config).await?;
        let ends = Arc::new(Ends::default());
        Ok(Self {
            commands,
            _driver: AbortOnDrop::spawn(drive(driver, Arc::clone(&ends))),
            ends,
        })
    }

    async fn one(&self, command: &Cmd) -> RedisResult<Value> {
        self.commands.clone().send_packed_command(command).await
    }

    /// Sends `MULTI`, the commands and `EXEC`; all answers but the last only say `QUEUED`.
    async fn transaction(&self, commands: &Pipeline) -> RedisResult<Value> {
        let queued = commands.len() + 1;
        let answers = self
            .commands
            .clone()
            .send_packed_commands(commands, queued, 1)
            .await?;
        let answer = answers.into_iter().next().unwrap_or_default();
        // A refusal of one command is the refusal of the transaction.
        Ok(match answer {
            Value::Array(answers) => answers
                .iter()
                .find(|answer| matches!(answer, Value::ServerError(_)))
                .cloned()
                .unwrap_or(Value::Array(answers)),
            answer => answer,
        })
    }

    async fn log_in(&self, address: &Address, name: &str) -> Result<(), NoLine> {
        let password = address.password.as_ref().map(Secret::reveal);
        match (&address.username, password) {
            (Some(user), password) => {
                // A user without a password is asked for one all the same, and takes any.
                let mut auth = redis::cmd("AUTH");
                auth.arg(user).arg(password.unwrap_or_default());
                self.insist(auth).await?;
            }
            (None, Some(password)) => {
                self.insist(redis::cmd("AUTH").arg(password).take()).await?;
            }
            (None, None) => {}
        }
        if address.database != 0 {
            self.insist(redis::cmd("SELECT").arg(address.database).take())
                .await?;
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
            if let Reply::Lost = self.send(&Request::One(client)).await {
                return Err(hung_up());
            }
        }
        // Redis asks for a password only when a command comes.
        match self.send(&Request::One(redis::cmd("PING"))).await {
            Reply::Refusal(refusal) if refusal.code() == "NOAUTH" => {
                Err(NoLine::Refused(in_words(&refusal)))
            }
            Reply::Lost => Err(hung_up()),
            _ => Ok(()),
        }
    }

    /// Sends a command without which the connection is of no use.
    async fn insist(&self, command: Cmd) -> Result<(), NoLine> {
        match self.send(&Request::One(command)).await {
            Reply::Answer(_) => Ok(()),
            Reply::Refusal(refusal) => Err(NoLine::Refused(in_words(&refusal))),
            Reply::Lost => Err(hung_up()),
        }
    }
}

/// Moves bytes until the connection breaks, and says so at once.
async fn drive(driver: impl Future<Output = ()>, ends: Arc<Ends>) {
    driver.await;
    ends.closed.store(true, Ordering::Release);
    ends.on_close.notify_waiters();
}

pub(super) async fn connect_tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    let socket = SockRef::from(&stream);
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_AFTER)
        .with_interval(KEEPALIVE_INTERVAL);
    #[cfg(not(target_os = "windows"))]
    let keepalive = keepalive.with_retries(KEEPALIVE_RETRIES);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
    Ok(stream)
}

pub(super) async fn connect_unix(path: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(path).await
}

/// The operating system's words, without its error number.
fn unreachable(error: &io::Error) -> NoLine {
    let words = error.to_string();
    let words = words.split(" (os error").next().unwrap_or_default();
    NoLine::Unreachable(words.to_lowercase())
}

fn hung_up() -> NoLine {
    NoLine::Unreachable("the connection was closed during the log-in".to_owned())
}

/// The redis crate's texts may repeat what a server sent; its kinds do not.
fn without_data(error: &RedisError) -> String {
    error.category().to_owned()
}
