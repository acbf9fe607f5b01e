//! One connection that hears what Redis publishes, and can be asked other things meanwhile
//! (RESP3).
//!
//! It breaks once and for all; replacing it is for `subscriber`.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Cmd, PushInfo, PushKind, RedisConnectionInfo, ServerError, Value,
};
use tokio::time::timeout;

use crate::redis::connect_error::ConnectError;
use crate::redis::handshake::resp3_login;
use crate::redis::options::ConnectOptions;
use crate::redis::pubsub::{Listener, Message};
use crate::redis::resolve::ServerSelector;
use crate::redis::server_error::in_words;
use crate::redis::transport::dial;

/// Why a connection ended that was not hung.
pub(crate) const BROKE: &str = "the connection broke";

/// Connects and logs in; answers the way to ask, and what must be polled for anything to happen
/// until the connection breaks. Messages go to the listener as those of `connection`, and are
/// counted.
///
/// # Errors
///
/// Why there is no connection, without secrets.
pub(crate) async fn open(
    target: &ConnectOptions,
    place: &ServerSelector,
    login: &RedisConnectionInfo,
    connection: u64,
    (listener, heard): (Arc<dyn Listener>, Arc<AtomicU64>),
) -> Result<(MultiplexedConnection, impl Future<Output = ()>), String> {
    let site = place.find(target).await.map_err(ConnectError::into_words)?;
    let stream = dial(&site, target.tls())
        .await
        .map_err(ConnectError::into_words)?;
    let config = AsyncConnectionConfig::new()
        .set_response_timeout(None)
        .set_push_sender(move |push: PushInfo| {
            heard.fetch_add(1, Ordering::Relaxed);
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

/// A connection that hears and is asked.
pub(crate) struct PubSubConnection {
    /// The way to ask.
    pub(crate) commands: MultiplexedConnection,
    /// Counts what is heard.
    pub(crate) heard: Arc<AtomicU64>,
    /// Time limit for an answer.
    pub(crate) limit: Duration,
}

impl PubSubConnection {
    /// Asks something, and answers what Redis answers or refuses.
    ///
    /// # Errors
    ///
    /// Why the connection is of no more use.
    pub(crate) async fn ask(
        &mut self,
        command: &Cmd,
    ) -> Result<Result<Value, ServerError>, String> {
        let answer = self.commands.send_packed_command(command);
        match answered(answer, &self.heard, self.limit).await? {
            Ok(Value::ServerError(refusal)) => Ok(Err(refusal)),
            Ok(answer) => Ok(Ok(answer)),
            Err(_) => Err(BROKE.to_owned()),
        }
    }

    /// Subscribes to patterns of channels.
    ///
    /// # Errors
    ///
    /// Why it is not subscribed.
    pub(crate) async fn subscribe(&mut self, patterns: &[String]) -> Result<(), String> {
        let answer = self.commands.psubscribe(patterns);
        let Err(error) = answered(answer, &self.heard, self.limit).await? else {
            return Ok(());
        };
        Err(match error.into_server_errors().as_deref() {
            Some([(_, refusal), ..]) => {
                format!("the subscription is refused: {}", in_words(refusal))
            }
            _ => BROKE.to_owned(),
        })
    }
}

/// Waits for an answer as long as something is heard: it comes after what was published before.
async fn answered<T>(
    answer: impl Future<Output = T>,
    heard: &AtomicU64,
    limit: Duration,
) -> Result<T, String> {
    let mut answer = pin!(answer);
    loop {
        let before = heard.load(Ordering::Relaxed);
        match timeout(limit, &mut answer).await {
            Ok(answer) => return Ok(answer),
            Err(_) if heard.load(Ordering::Relaxed) != before => {}
            Err(_) => return Err(hung(limit)),
        }
    }
}

fn hung(limit: Duration) -> String {
    format!("it did not answer within {} ms", limit.as_millis())
}

/// What to log in with.
///
/// # Errors
///
/// There is no password, although there should be one.
pub(crate) fn login(target: &ConnectOptions) -> Result<RedisConnectionInfo, String> {
    let login = resp3_login(target).map_err(ConnectError::into_words)?;
    Ok(login.set_db(i64::from(target.address.database)))
}
