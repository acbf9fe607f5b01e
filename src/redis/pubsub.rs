//! Hears of changes of keys: connections that subscribe to Redis's notifications and come back
//! when they break.
//!
//! In a cluster each node tells of its own keys only, so that a subscription is at a list of
//! places, which may change. Each has a connection of its own (RESP3, so that it can be asked
//! other things meanwhile). What is heard goes to a [`Listener`] at once, in the order in which a
//! node sends it. `subscriber` keeps one such connection. What it means is for `watcher`.

pub(crate) mod connection;
pub(crate) mod keyspace_events;
pub(crate) mod node_subscription;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::redis::connect_error::Outage;
use crate::redis::options::ConnectOptions;
use crate::redis::pubsub::node_subscription::{NodeSubscription, SubscriptionState};
use crate::redis::resolve::{ServerSelector, ServerSet};
use crate::redis::supervisor::client_name;
use crate::task::AbortOnDrop;
use crate::telemetry::connections;
use crate::telemetry::connections::Purpose;

/// What is to be heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SubscriptionSpec {
    /// The glob patterns of the channels.
    pub(crate) patterns: Vec<String>,
    /// The flags of `notify-keyspace-events` that it takes.
    pub(crate) flags: &'static str,
    /// Whether missing flags may be added.
    pub(crate) may_configure: bool,
}

/// A message, on its way from Redis.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message<'a> {
    /// Which connection it came over: the order holds within one.
    pub(crate) connection: u64,
    /// The pattern that the channel matches.
    pub(crate) pattern: &'a [u8],
    /// The channel.
    pub(crate) channel: &'a [u8],
    /// What was published.
    pub(crate) payload: &'a [u8],
}

/// Who is told of messages. It must not wait.
pub(crate) trait Listener: Send + Sync + 'static {
    /// A message has come.
    fn heard(&self, message: Message<'_>);

    /// A connection that was lost is there again, or one to a place that is new among others; what
    /// was published meanwhile was not heard.
    fn missed(&self, address: &str, during: Duration);
}

/// Connections that subscribe as long as this is kept.
#[derive(Debug)]
pub(crate) struct Subscription {
    nodes: Arc<SubscribedNodes>,
    _reconciler: AbortOnDrop,
}

type SubscribedNodes = Mutex<HashMap<ServerSelector, SubscribedNode>>;

#[derive(Debug)]
struct SubscribedNode {
    state: Arc<Mutex<SubscriptionState>>,
    _task: AbortOnDrop,
}

impl Subscription {
    /// Subscribes, in the background, at each of the places. `name` is what Redis shows for the
    /// connections.
    pub(crate) fn start(
        mut places: ServerSet,
        target: ConnectOptions,
        name: &str,
        wish: SubscriptionSpec,
        listener: Arc<dyn Listener>,
    ) -> Self {
        connections::wanted(&target.address, Purpose::Notifications);
        let nodes = Arc::new(SubscribedNodes::default());
        let name = client_name(name);
        let reconciled = Arc::clone(&nodes);
        let reconciler = AbortOnDrop::spawn(async move {
            loop {
                reconcile(&reconciled, &places.now(), |place, late| NodeSubscription {
                    shown: place.to_string(),
                    name: name.clone(),
                    wish: wish.clone(),
                    listener: Arc::clone(&listener),
                    state: Arc::new(Mutex::new(SubscriptionState::new(&place, late))),
                    target: target.clone(),
                    place,
                });
                places.changed().await;
            }
        });
        Self {
            nodes,
            _reconciler: reconciler,
        }
    }

    /// The nodes that cannot be heard.
    pub(crate) fn outages(&self) -> Vec<Outage> {
        self.of_all(|state| state.outage.clone())
    }

    /// What has to be done so that Redis tells of all that is wished.
    pub(crate) fn missing(&self) -> Vec<String> {
        self.of_all(|state| state.missing.clone())
    }

    fn of_all<T>(&self, read: impl Fn(&SubscriptionState) -> Option<T>) -> Vec<T> {
        let nodes = self.nodes.lock();
        nodes
            .values()
            .filter_map(|node| read(&node.state.lock()))
            .collect()
    }
}

/// Starts what is wanted and not there, and then ends what is there and not wanted. A place that
/// comes to others is late: it has keys that they had, and may have changed some before it is heard.
fn reconcile(
    nodes: &SubscribedNodes,
    wanted: &[ServerSelector],
    subscriber: impl Fn(ServerSelector, bool) -> NodeSubscription,
) {
    let mut nodes = nodes.lock();
    let late = !nodes.is_empty();
    for place in wanted {
        nodes.entry(place.clone()).or_insert_with(|| {
            let subscriber = subscriber(place.clone(), late);
            SubscribedNode {
                state: Arc::clone(&subscriber.state),
                _task: AbortOnDrop::spawn(subscriber.run()),
            }
        });
    }
    nodes.retain(|place, _| wanted.contains(place));
}
