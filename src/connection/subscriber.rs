//! One connection that subscribes to Redis's notifications: log-in, subscription, and whether all
//! flags are set that it takes.
//!
//! It never gives up. Which connections there are is for `subscription`.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Cmd, ProtocolVersion, PushInfo, PushKind, RedisConnectionInfo,
    ServerError, Value,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep, timeout};
use tracing::{error, info, warn};

use super::line::{connect_tcp, connect_unix};
use super::notifications;
use super::subscription::{Listener, Message, Wish};
use super::supervisor::{FIRST_DELAY, jittered};
use super::{Outage, Target};
use crate::error::in_words;
use crate::settings::address::Server;
use crate::settings::{Address, Secret};

/// How often it is checked that somebody is there and that all flags are set.
const CHECK: Duration = Duration::from_secs(5);
/// The same while flags are missing, and somebody may be setting them.
const CHECK_MISSING: Duration = Duration::from_secs(1);
/// How often a lasting outage is logged again.
const REMIND: Duration = Duration::from_secs(60);

/// How many connections there have been, to tell them apart.
static CONNECTIONS: AtomicU64 = AtomicU64::new(0);

/// How it is with one node.
#[derive(Debug)]
pub struct State {
    /// `None` while the subscription stands.
    pub outage: Option<Outage>,
    /// Whether it has stood, so that there may be something missed.
    stood_before: bool,
    /// What has to be done so that Redis tells of all that is wished.
    pub missing: Option<String>,
}

/// What the task of a node needs.
pub struct Subscriber {
    /// Where it is, without credentials.
    pub shown: String,
    /// Where and how to connect.
    pub target: Target,
    /// What Redis shows for the connection.
    pub name: String,
    /// What is to be heard.
    pub wish: Wish,
    /// Who hears it.
    pub listener: Arc<dyn Listener>,
    /// How it is, for those who ask.
    pub state: Arc<Mutex<State>>,
}

fn outage(reason: String) -> Outage {
    Outage {
        since: Instant::now(),
        reason,
    }
}

impl State {
    /// That of a node to which no connection was made yet.
    pub fn new(address: &Address) -> Self {
        Self {
            outage: Some(outage(format!("cannot watch {address}: not connected yet"))),
            stood_before: false,
            missing: None,
        }
    }
}

impl Subscriber {
    /// Subscribes, and does so again when that breaks, for ever.
    pub async fn run(self) {
        let mut delay = FIRST_DELAY;
        let mut logged: Option<(String, Instant)> = None;
        loop {
            let reason = self
                .session(CONNECTIONS.fetch_add(1, Ordering::Relaxed))
                .await;
            let was_up = self.lost(&reason);
            let worth_logging = was_up
                || logged
                    .as_ref()
                    .is_none_or(|(earlier, at)| *earlier != reason || at.elapsed() >= REMIND);
            if worth_logging {
                warn!(
                    client = self.name,
                    redis = self.shown,
                    "cannot watch: {reason}; trying again until it works"
                );
                logged = Some((reason, Instant::now()));
            }
            if was_up {
                delay = FIRST_DELAY;
            }
            sleep(jittered(delay)).await;
            delay = (delay * 2).min(self.target.reconnect_max_delay);
        }
    }

    /// Connects and subscribes, and stays until that breaks; answers why it did.
    async fn session(&self, connection: u64) -> String {
        let limit = self.target.connection_timeout;
        let login = login(&self.target.address);
        let opened = timeout(limit, self.open(connection, &login)).await;
        let (commands, driver) = match opened {
            Ok(Ok(opened)) => opened,
            Ok(Err(reason)) => return reason,
            Err(_) => return format!("no connection within {} ms", limit.as_millis()),
        };
        tokio::select! {
            () = driver => "the connection broke".to_owned(),
            reason = self.stay(commands) => reason,
        }
    }

    async fn open(
        &self,
        connection: u64,
        login: &RedisConnectionInfo,
    ) -> Result<(MultiplexedConnection, impl Future<Output = ()>), String> {
        let stream = stream(&self.target.address.server).await.map_err(|error| {
            let words = error.to_string();
            let words = words.split(" (os error").next().unwrap_or_default();
            words.to_lowercase()
        })?;
        let listener = Arc::clone(&self.listener);
        let config = AsyncConnectionConfig::new()
            .set_response_timeout(None)
            .set_push_sender(move |push: PushInfo| {
                pass_on(&*listener, connection, &push);
                Ok::<(), ()>(())
            });
        MultiplexedConnection::new_with_config(login, stream, config)
            .await
            // The redis crate's texts may repeat what a server sent; its kinds do not.
            .map_err(|error| match error.code() {
                Some(code) => format!("{} ({code})", error.category()),
                None => error.category().to_owned(),
            })
    }

    /// Subscribes, and looks after the subscription until it is of no more use; answers why.
    async fn stay(&self, mut commands: MultiplexedConnection) -> String {
        let mut name = redis::cmd("CLIENT");
        name.arg("SETNAME").arg(&self.name);
        let limit = self.target.response_timeout;
        // For whoever looks at Redis only: a strict ACL may refuse it.
        if let Err(reason) = ask(&mut commands, &name, limit).await {
            return reason;
        }
        let subscribed = timeout(limit, commands.psubscribe(&self.wish.patterns)).await;
        match subscribed {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                return match error.into_server_errors().as_deref() {
                    Some([(_, refusal), ..]) => {
                        format!("the subscription is refused: {}", in_words(refusal))
                    }
                    _ => "the connection broke".to_owned(),
                };
            }
            Err(_) => return hung(limit),
        }
        self.stands();
        let mut told_of_refusal = false;
        loop {
            let missing = match self.check_flags(&mut commands, limit).await {
                Ok(Ok(missing)) => missing,
                Ok(Err(refusal)) => {
                    if !std::mem::replace(&mut told_of_refusal, true) {
                        info!(
                            redis = self.shown,
                            "whether Redis tells of changes cannot be seen ({refusal}); watching \
                             all the same"
                        );
                    }
                    None
                }
                Err(reason) => return reason,
            };
            let pause = if missing.is_some() {
                CHECK_MISSING
            } else {
                CHECK
            };
            self.note_missing(missing);
            sleep(pause).await;
        }
    }

    /// Asks for the flags, and adds missing ones where that is allowed; answers what is left to be
    /// done, or within that Redis's refusal.
    async fn check_flags(
        &self,
        commands: &mut MultiplexedConnection,
        limit: Duration,
    ) -> Result<Result<Option<String>, String>, String> {
        let mut get = redis::cmd("CONFIG");
        get.arg("GET").arg(notifications::SETTING);
        let answer = match ask(commands, &get, limit).await? {
            Ok(answer) => answer,
            Err(refusal) => return Ok(Err(in_words(&refusal))),
        };
        let Some(current) = notifications::current(answer) else {
            return Ok(Err("there is no such setting".to_owned()));
        };
        let Some(to_set) = notifications::to_set(&current, self.wish.flags) else {
            return Ok(Ok(None));
        };
        let missing = notifications::in_words(&self.shown, &to_set);
        if !self.wish.may_configure {
            return Ok(Ok(Some(missing)));
        }
        let mut set = redis::cmd("CONFIG");
        set.arg("SET").arg(notifications::SETTING).arg(&to_set);
        Ok(Ok(match ask(commands, &set, limit).await? {
            Ok(_) => {
                info!(
                    redis = self.shown,
                    from = current,
                    to = to_set,
                    "{} was set, as WATCH_CONFIGURE_REDIS allows",
                    notifications::SETTING
                );
                None
            }
            Err(refusal) => Some(format!("{missing} (refused: {})", in_words(&refusal))),
        }))
    }

    /// The subscription stands from now on.
    fn stands(&self) {
        let mut state = self.state();
        let outage = state.outage.take();
        let missed = std::mem::replace(&mut state.stood_before, true);
        drop(state);
        info!(
            redis = self.shown,
            client = self.name,
            "watching changes of keys"
        );
        if let Some(outage) = outage.filter(|_| missed) {
            self.listener.missed(&self.shown, outage.since.elapsed());
        }
    }

    /// It does not stand, for this reason; answers whether it did until now.
    fn lost(&self, reason: &str) -> bool {
        let mut state = self.state();
        state.missing = None;
        let reason = format!("cannot watch {}: {reason}", self.shown);
        match &mut state.outage {
            Some(outage) => {
                outage.reason = reason;
                false
            }
            none => {
                *none = Some(outage(reason));
                true
            }
        }
    }

    fn note_missing(&self, missing: Option<String>) {
        let mut state = self.state();
        if state.missing == missing {
            return;
        }
        match &missing {
            Some(what) => error!(client = self.name, "{what}"),
            None => info!(
                redis = self.shown,
                "Redis tells of all changes that are watched"
            ),
        }
        state.missing = missing;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hands on what was published; everything else on the connection is no news.
fn pass_on(listener: &dyn Listener, connection: u64, push: &PushInfo) {
    if let (
        PushKind::PMessage,
        [
            Value::BulkString(pattern),
            Value::BulkString(channel),
            Value::BulkString(payload),
        ],
    ) = (&push.kind, push.data.as_slice())
    {
        listener.heard(Message {
            connection,
            pattern,
            channel,
            payload,
        });
    }
}

/// Redis's answer or refusal; an error is why the connection is of no more use.
async fn ask(
    commands: &mut MultiplexedConnection,
    command: &Cmd,
    limit: Duration,
) -> Result<Result<Value, ServerError>, String> {
    match timeout(limit, commands.send_packed_command(command)).await {
        Ok(Ok(Value::ServerError(refusal))) => Ok(Err(refusal)),
        Ok(Ok(answer)) => Ok(Ok(answer)),
        Ok(Err(_)) => Err("the connection broke".to_owned()),
        Err(_) => Err(hung(limit)),
    }
}

fn hung(limit: Duration) -> String {
    format!("it did not answer within {} ms", limit.as_millis())
}

fn login(address: &Address) -> RedisConnectionInfo {
    let mut login = RedisConnectionInfo::default()
        .set_protocol(ProtocolVersion::RESP3)
        .set_db(i64::from(address.database))
        .set_lib_name("kvredis", env!("CARGO_PKG_VERSION"));
    if let Some(user) = &address.username {
        // A user without a password is asked for one all the same, and takes any.
        login = login.set_username(user).set_password("");
    }
    if let Some(password) = &address.password {
        login = login.set_password(Secret::reveal(password));
    }
    login
}

/// Bytes to and from a server, whichever way they go.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

async fn stream(server: &Server) -> io::Result<Box<dyn Stream>> {
    Ok(match server {
        Server::Tcp { host, port } => Box::new(connect_tcp(host, *port).await?),
        Server::Unix { path } => Box::new(connect_unix(path).await?),
    })
}
