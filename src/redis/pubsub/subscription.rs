//! A subscription at a changing set of servers.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::redis::connect_error::Outage;
use crate::redis::handshake::client_name;
use crate::redis::options::ConnectOptions;
use crate::redis::pubsub::flush::Flush;
use crate::redis::pubsub::listener::Listener;
use crate::redis::pubsub::node_subscription::{NodeSubscription, SubscriptionSpec};
use crate::redis::pubsub::server_set::ServerSet;
use crate::redis::pubsub::state::SubscriptionState;
use crate::redis::selector::ServerSelector;
use crate::tasks;
use crate::telemetry::connections;
use crate::telemetry::connections::Purpose;

/// Stays subscribed until this is dropped.
#[derive(Debug)]
pub(crate) struct Subscription {
    nodes: Arc<SubscribedNodes>,
    _reconciler: AbortOnDropHandle<()>,
}

type SubscribedNodes = Mutex<HashMap<ServerSelector, SubscribedNode>>;

#[derive(Debug)]
struct SubscribedNode {
    state: Arc<Mutex<SubscriptionState>>,
    flush: Arc<Flush>,
    _task: AbortOnDropHandle<()>,
}

impl Subscription {
    /// Subscribes in the background, at each of the servers. `name` is shown in `CLIENT LIST`.
    pub(crate) fn start(
        mut servers: ServerSet,
        options: ConnectOptions,
        name: &str,
        spec: SubscriptionSpec,
        listener: Arc<dyn Listener>,
    ) -> Self {
        connections::register(&options.address, Purpose::Notifications);
        let nodes = Arc::new(SubscribedNodes::default());
        let client_name = client_name(name);
        let reconciled = Arc::clone(&nodes);
        let reconciler = async move {
            loop {
                reconcile(&reconciled, &servers.current(), |selector, joins_others| {
                    NodeSubscription::new(
                        selector,
                        options.clone(),
                        client_name.clone(),
                        spec.clone(),
                        Arc::clone(&listener),
                        joins_others,
                    )
                });
                servers.changed().await;
            }
        };
        Self {
            nodes,
            _reconciler: tasks::spawn_essential("subscribed servers", reconciler),
        }
    }

    /// The outages of the nodes that are not subscribed.
    pub(crate) fn outages(&self) -> Vec<Outage> {
        self.collect(|state| state.outage().cloned())
    }

    /// The actions required of an operator so that Redis publishes all events.
    pub(crate) fn missing_flags(&self) -> Vec<String> {
        self.collect(|state| state.missing_flags().cloned())
    }

    /// The time since all nodes have been subscribed; `None` unless they are.
    pub(crate) fn complete_since(&self) -> Option<Instant> {
        let nodes = self.nodes.lock();
        let mut latest = None;
        for node in nodes.values() {
            latest = latest.max(Some(node.state.lock().since()?));
        }
        latest
    }

    /// Completes once everything that was published before has reached the listener. Never completes
    /// while a node is not subscribed.
    pub(crate) async fn flush(&self) {
        let nodes: Vec<_> = self
            .nodes
            .lock()
            .values()
            .map(|node| Arc::clone(&node.flush))
            .collect();
        join_all(nodes.iter().map(|flush| flush.run())).await;
    }

    fn collect<T>(&self, read: impl Fn(&SubscriptionState) -> Option<T>) -> Vec<T> {
        let nodes = self.nodes.lock();
        nodes
            .values()
            .filter_map(|node| read(&node.state.lock()))
            .collect()
    }
}

/// Starts the wanted nodes that are absent, and then ends the others, so that a key that moves from one
/// node to another is published by one of them at any time.
fn reconcile(
    nodes: &SubscribedNodes,
    wanted: &[ServerSelector],
    create: impl Fn(ServerSelector, bool) -> NodeSubscription,
) {
    let mut nodes = nodes.lock();
    let joins_others = !nodes.is_empty();
    for selector in wanted {
        nodes.entry(selector.clone()).or_insert_with(|| {
            let node = create(selector.clone(), joins_others);
            SubscribedNode {
                state: node.state(),
                flush: node.flush(),
                _task: tasks::spawn_essential("node subscription", node.run()),
            }
        });
    }
    nodes.retain(|selector, _| wanted.contains(selector));
}
