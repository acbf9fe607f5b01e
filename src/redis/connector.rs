//! Opens sessions: resolves the server, dials it, performs the handshake, and enables client tracking
//! where the settings enable the cache.

use std::sync::Arc;
use std::time::Duration;

use redis::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::time::{sleep, timeout};

use crate::cache::read_through::Cache;
use crate::redis::client_tracking::ClientTracker;
use crate::redis::connect_error::{ConnectError, ConnectErrorKind};
use crate::redis::handshake::{handshake, resp3_login};
use crate::redis::options::ConnectOptions;
use crate::redis::resolve::{Resolved, resolve};
use crate::redis::selector::ServerSelector;
use crate::redis::server_error::ServerErrorExt as _;
use crate::redis::session::Session;
use crate::redis::transport::{ServerAddr, dial};
use crate::settings::address::ServerSpec;
use crate::settings::secret::Secret;

/// The interval at which the sentinels are queried for a replica while there is none.
const REPLICA_CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// The limits of waiting for an unsolicited error: its time and its size.
const UNSOLICITED_TIMEOUT: Duration = Duration::from_millis(200);
const MAX_UNSOLICITED_BYTES: u64 = 4096;

/// Opens the sessions to one server.
#[derive(Debug)]
pub(crate) struct Connector {
    pub(crate) options: ConnectOptions,
    pub(crate) selector: ServerSelector,
    pub(crate) client_name: String,
    pub(crate) cache: Option<Arc<Cache>>,
}

/// A session that is ready for calls.
#[derive(Debug)]
pub(crate) struct Connected {
    pub(crate) session: Session,
    /// The password that the session is authenticated with.
    pub(crate) password: Option<Secret>,
    /// True if it leads to the primary only for lack of a replica.
    pub(crate) lacks_replica: bool,
}

/// The outcome of opening a session in RESP3.
enum Resp3 {
    Opened(Box<Session>),
    /// The server may still speak RESP2.
    Unsupported(String),
}

impl Connector {
    /// Connects once, without a time limit.
    pub(crate) async fn connect(&self) -> Result<Connected, ConnectError> {
        let Resolved {
            addr,
            lacks_replica,
        } = resolve(&self.selector, &self.options).await?;
        match self.connect_to(&addr).await {
            Ok(connected) => Ok(Connected {
                lacks_replica,
                ..connected
            }),
            Err(error)
                if *error.kind() == ConnectErrorKind::ClosedByPeer && !self.options.address.tls =>
            {
                Err(read_unsolicited_error(&addr).await.unwrap_or(error))
            }
            Err(error) => Err(error),
        }
    }

    /// Waits until there is a replica to connect to.
    pub(crate) async fn replica_found(&self) {
        loop {
            sleep(REPLICA_CHECK_INTERVAL).await;
            let resolved = resolve(&self.selector, &self.options).await;
            if resolved.is_ok_and(|resolved| !resolved.lacks_replica) {
                return;
            }
        }
    }

    async fn connect_to(&self, addr: &ServerAddr) -> Result<Connected, ConnectError> {
        let mut session = match &self.cache {
            None => self.open(addr).await?,
            Some(cache) => match self.open_resp3(addr, cache).await? {
                Resp3::Opened(session) => *session,
                Resp3::Unsupported(reason) => {
                    let mut session = self.open(addr).await?;
                    session.set_tracking_unsupported(reason);
                    session
                }
            },
        };
        let (options, selector) = (&self.options, &self.selector);
        let password = handshake(&session, options, selector, &self.client_name).await?;
        session.enable_tracking().await?;
        Ok(Connected {
            session,
            password,
            lacks_replica: false,
        })
    }

    async fn open(&self, addr: &ServerAddr) -> Result<Session, ConnectError> {
        Session::open(dial(addr, self.options.tls()).await?).await
    }

    async fn open_resp3(
        &self,
        addr: &ServerAddr,
        cache: &Arc<Cache>,
    ) -> Result<Resp3, ConnectError> {
        let login = resp3_login(&self.options)?;
        let in_cluster = matches!(self.options.address.server, ServerSpec::Cluster { .. });
        let mut has_broken = false;
        loop {
            let stream = dial(addr, self.options.tls()).await?;
            let tracker = ClientTracker::new(Arc::clone(cache), in_cluster);
            let error = match Session::open_tracked(stream, &login, tracker).await {
                Ok(session) => return Ok(Resp3::Opened(Box::new(session))),
                Err(error) => error,
            };
            // Any connection may break once; a server that closes it again does not know HELLO.
            if error.is_io_error() && !has_broken {
                has_broken = true;
                continue;
            }
            let code = error.code().unwrap_or(error.category());
            let reason = format!("the server refuses RESP3 (HELLO 3): {code}");
            return match error.into_server_errors().as_deref() {
                Some([(_, error), ..]) if !error.is_permanent() => Err(ConnectError::server(error)),
                _ => Ok(Resp3::Unsupported(reason)),
            };
        }
    }
}

/// The error that a server sends before it closes a new connection: in protected mode, or because it
/// has reached `maxclients`. Redis sends it without waiting for a command, so that a client which
/// sends one at once often loses the error to the reset of the connection.
async fn read_unsolicited_error(addr: &ServerAddr) -> Option<ConnectError> {
    let stream = dial(addr, None).await.ok()?;
    let mut line = Vec::new();
    let mut reader = BufReader::new(stream.take(MAX_UNSOLICITED_BYTES));
    let read = timeout(UNSOLICITED_TIMEOUT, reader.read_until(b'\n', &mut line));
    read.await.ok()?.ok()?;
    match redis::parse_redis_value(&line) {
        Ok(Value::ServerError(error)) if error.code() == "DENIED" => {
            Some(ConnectError::server(&error))
        }
        Ok(Value::ServerError(error)) => Some(ConnectError::new(
            ConnectErrorKind::NotReady,
            error.message(),
        )),
        _ => None,
    }
}
