//! A way into connections for who only wants to know how they are (`kvredis check`): the steps by
//! which a link connects one by one, and single questions over the result.
//!
//! What a step does is the same code as a link's. A probe tries once, and takes no longer than the
//! settings' time limits. What the answers mean is for `check`.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use redis::{ServerError, Value};
use tokio::time::timeout;

pub(crate) use crate::redis::cluster::slot_ranges::Range;
pub(crate) use crate::redis::connect_error::ConnectError;
pub(crate) use crate::redis::pubsub::keyspace_events::{
    SETTING as NOTIFICATIONS, current as notifications_set, to_set as notifications_to_set,
};
pub(crate) use crate::redis::resolve::ServerSelector;
pub(crate) use crate::redis::transport::ServerAddr;

use crate::cache::read_through::Cache;
use crate::redis::cluster::slot_ranges::ranges;
use crate::redis::command::admin::AdminCommand;
use crate::redis::options::ConnectOptions;
use crate::redis::pubsub::connection;
use crate::redis::pubsub::connection::PubSubConnection;
use crate::redis::pubsub::{Listener, Message};
use crate::redis::server_error::in_words;
use crate::redis::session::{Session, SessionReply};
use crate::redis::transport::tls;
use crate::redis::transport::{connect, dial};
use crate::settings::address::Endpoint;

/// What Redis shows for the connection (`CLIENT LIST`).
const NAME: &str = "kvredis:check";

/// An established connection, on which somebody has logged in.
#[derive(Debug)]
pub(crate) struct Probe {
    line: Session,
    limit: Duration,
}

/// Which server it is at the moment.
///
/// # Errors
///
/// The sentinels do not say.
pub(crate) async fn find(
    target: &ConnectOptions,
    place: &ServerSelector,
) -> Result<ServerAddr, ConnectError> {
    within(target.connection_timeout, place.find(target)).await
}

/// Connects, and does no more.
///
/// # Errors
///
/// Why there is no connection, without secrets.
pub(crate) async fn reach(target: &ConnectOptions, site: &ServerAddr) -> Result<(), ConnectError> {
    within(target.connection_timeout, dial(site, None))
        .await
        .map(drop)
}

/// Secures a connection; answers the version of TLS that is spoken, `None` where it is not used.
///
/// # Errors
///
/// Why there is no connection, without secrets.
pub(crate) async fn tls_version(
    target: &ConnectOptions,
    site: &ServerAddr,
) -> Result<Option<String>, ConnectError> {
    let (ServerAddr::Tcp(endpoint), Some(tls)) = (site, target.tls()) else {
        return Ok(None);
    };
    let secured = async {
        // As links do, which hear what the server says of their certificate.
        drop(dial(site, Some(tls)).await?);
        let stream = connect(endpoint).await?;
        tls::secure(stream, &endpoint.host, tls).await
    };
    let stream = within(target.connection_timeout, secured).await?;
    let version = stream.get_ref().1.protocol_version();
    Ok(version.and_then(|version| version.as_str()).map(|version| {
        // `TLSv1_3` as people write it.
        version.replace("TLSv", "TLS ").replace('_', ".")
    }))
}

/// Connects and logs in, selects the database and announces itself, as a link does.
///
/// # Errors
///
/// Why there is no connection, without secrets.
pub(crate) async fn open(
    target: &ConnectOptions,
    place: &ServerSelector,
) -> Result<Probe, ConnectError> {
    let line = within(
        target.connection_timeout,
        Session::open(target, place, NAME, None),
    )
    .await?;
    Ok(Probe {
        line,
        limit: target.response_timeout,
    })
}

/// Whether what is read there may be kept in memory: opens a connection as a link with a cache does.
/// `None` where the settings want none.
///
/// # Errors
///
/// Why nothing is kept, without secrets.
pub(crate) async fn keeps(
    target: &ConnectOptions,
    place: &ServerSelector,
) -> Option<Result<(), String>> {
    let cache = Arc::new(Cache::new(target.cache?));
    let opened = Session::open(target, place, NAME, Some(&cache));
    let line = match within(target.connection_timeout, opened).await {
        Ok(line) => line,
        Err(why) => return Some(Err(why.into_words())),
    };
    let refused = line.tracking_disabled_reason().cloned();
    Some(refused.map_or(Ok(()), Err))
}

/// Subscribes to patterns of channels over a connection of its own, as a watching link does.
///
/// # Errors
///
/// Why it is not subscribed, without secrets.
pub(crate) async fn subscribe(
    target: &ConnectOptions,
    place: &ServerSelector,
    patterns: &[String],
) -> Result<(), String> {
    let login = connection::login(target)?;
    let heard = Arc::<AtomicU64>::default();
    let listener = (
        Arc::new(NullListener) as Arc<dyn Listener>,
        Arc::clone(&heard),
    );
    let limit = target.connection_timeout;
    let opened = connection::open(target, place, &login, 0, listener);
    let (commands, driver) = timeout(limit, opened)
        .await
        .unwrap_or_else(|_| Err(ConnectError::late(limit).into_words()))?;
    let mut hearing = PubSubConnection {
        commands,
        heard,
        limit: target.response_timeout,
    };
    tokio::select! {
        () = driver => Err(connection::BROKE.to_owned()),
        subscribed = hearing.subscribe(patterns) => subscribed,
    }
}

impl Probe {
    /// Asks something, and answers what Redis answers or refuses.
    ///
    /// # Errors
    ///
    /// There is no answer: the connection broke, or time is up.
    pub(crate) async fn ask(
        &self,
        command: AdminCommand<'_>,
    ) -> Result<Result<Value, ServerError>, String> {
        match timeout(self.limit, self.line.send(&command.into(), false)).await {
            Ok(SessionReply::Value(answer)) => Ok(Ok(answer)),
            Ok(SessionReply::ServerError(refusal)) => Ok(Err(refusal)),
            Ok(SessionReply::Disconnected) => Err(connection::BROKE.to_owned()),
            Err(_) => Err(format!("no answer within {} ms", self.limit.as_millis())),
        }
    }

    /// Which nodes of the cluster have which slots; `asked` is where this connection leads.
    ///
    /// # Errors
    ///
    /// Why that is not known.
    pub(crate) async fn slots(&self, asked: &Endpoint) -> Result<Vec<Range>, String> {
        let answer = self.ask(AdminCommand::ClusterSlots).await?;
        let answer = answer.map_err(|refusal| in_words(&refusal))?;
        ranges(&answer, asked).ok_or_else(|| "CLUSTER SLOTS has no slots in it".to_owned())
    }
}

/// Hears nothing: who checks is not interested in what is published.
struct NullListener;

impl Listener for NullListener {
    fn heard(&self, _: Message<'_>) {}

    fn missed(&self, _: &str, _: Duration) {}
}

async fn within<T>(
    limit: Duration,
    step: impl Future<Output = Result<T, ConnectError>>,
) -> Result<T, ConnectError> {
    timeout(limit, step)
        .await
        .unwrap_or_else(|_| Err(ConnectError::late(limit)))
}
