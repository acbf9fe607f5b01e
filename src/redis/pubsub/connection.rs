//! One established connection that receives what Redis publishes, and executes commands meanwhile
//! (RESP3).
//!
//! It is never repaired: `node_subscription` replaces it.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, PushInfo, PushKind, RedisError, ServerError, Value};
use tokio::time::timeout;

use crate::redis::command::admin::AdminCommand;
use crate::redis::command_error::CommandError;
use crate::redis::connect_error::ConnectError;
use crate::redis::handshake::resp3_login;
use crate::redis::options::ConnectOptions;
use crate::redis::pubsub::listener::{Listener, Message};
use crate::redis::resolve::resolve;
use crate::redis::selector::ServerSelector;
use crate::redis::server_error::ServerErrorExt as _;
use crate::redis::transport::dial;

pub(crate) struct PubSubConnection {
    connection: MultiplexedConnection,
    /// Counts the messages. Relaxed: it orders nothing else.
    messages: Arc<AtomicU64>,
    response_timeout: Duration,
}

/// Boxed, because the type of the redis crate's future refers to the credentials.
pub(crate) type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The reason why a node is not subscribed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SubscribeError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the subscription is refused: {}", .0.message())]
    Refused(ServerError),
    #[error(transparent)]
    Command(#[from] CommandError),
}

impl PubSubConnection {
    /// Connects and authenticates. Also returns the driver: nothing happens unless it is polled, and it
    /// completes when the connection breaks. `id` marks the messages of this connection.
    pub(crate) async fn open(
        options: &ConnectOptions,
        selector: &ServerSelector,
        id: u64,
        listener: Arc<dyn Listener>,
    ) -> Result<(Self, Driver), ConnectError> {
        let login = resp3_login(options)?.set_db(i64::from(options.address.database));
        let addr = resolve(selector, options).await?.addr;
        let stream = dial(&addr, options.tls()).await?;
        let messages = Arc::<AtomicU64>::default();
        let counter = Arc::clone(&messages);
        let config = AsyncConnectionConfig::new()
            .set_response_timeout(None)
            .set_push_sender(move |push: PushInfo| {
                counter.fetch_add(1, Ordering::Relaxed);
                forward(&*listener, id, &push);
                Ok::<(), ()>(())
            });
        let (connection, driver) = MultiplexedConnection::new_with_config(&login, stream, config)
            .await
            .map_err(ConnectError::redis)?;
        let opened = Self {
            connection,
            messages,
            response_timeout: options.response_timeout,
        };
        Ok((opened, Box::pin(driver)))
    }

    pub(crate) async fn execute(
        &mut self,
        command: AdminCommand<'_>,
    ) -> Result<Value, CommandError> {
        let command = command.pack();
        let reply = self.connection.send_packed_command(&command);
        match await_reply(reply, &self.messages, self.response_timeout).await? {
            Ok(Value::ServerError(error)) => Err(CommandError::ServerError(error)),
            Ok(reply) => Ok(reply),
            Err(_) => Err(CommandError::Disconnected),
        }
    }

    /// Subscribes to patterns of channels.
    pub(crate) async fn subscribe(&mut self, patterns: &[String]) -> Result<(), SubscribeError> {
        let reply = self.connection.psubscribe(patterns);
        let reply = await_reply(reply, &self.messages, self.response_timeout).await?;
        reply.map_err(
            |error: RedisError| match error.into_server_errors().as_deref() {
                Some([(_, error), ..]) => SubscribeError::Refused(error.clone()),
                _ => CommandError::Disconnected.into(),
            },
        )
    }
}

/// Forwards a published message, and ignores all other pushes.
fn forward(listener: &dyn Listener, connection: u64, push: &PushInfo) {
    if let (
        PushKind::PMessage,
        [
            Value::BulkString(pattern),
            Value::BulkString(channel),
            Value::BulkString(payload),
        ],
    ) = (&push.kind, push.data.as_slice())
    {
        listener.on_message(Message {
            connection,
            pattern,
            channel,
            payload,
        });
    }
}

/// Waits for a reply as long as messages arrive: the reply follows the messages published before it.
async fn await_reply<T>(
    reply: impl Future<Output = T>,
    messages: &AtomicU64,
    limit: Duration,
) -> Result<T, CommandError> {
    let mut reply = pin!(reply);
    loop {
        let before = messages.load(Ordering::Relaxed);
        match timeout(limit, &mut reply).await {
            Ok(reply) => return Ok(reply),
            Err(_) if messages.load(Ordering::Relaxed) != before => {}
            Err(_) => return Err(CommandError::Timeout(limit)),
        }
    }
}
