//! The links over which components call, by component and link name.
//!
//! `provider` puts and deletes them. Calls over a link that is not ready return the reason.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;
use tracing::info;

use crate::error::{Error, ErrorKind};
use crate::link::Link;
use crate::link::registry::{
    LinkDefinition, LinkDirection, LinkState, ProviderLayers, REORDER_WINDOW, Registry, WarningLog,
};
use crate::redis::connection::Connection;
use crate::redis::options::ConnectOptions;
use crate::settings::link_settings::{HealthPolicy, Settings};
use crate::settings::source::Layer;

/// The reorder window of a link over which Redis has replied to a call: a deletion is rarely that late, and
/// one that is meant for the link itself should not be ignored.
const REORDER_WINDOW_IN_USE: Duration = Duration::from_millis(20);

/// All links of this process over which components call.
#[derive(Debug)]
pub(crate) struct Links {
    table: Mutex<LinkTable>,
    /// The component and link name of the latest call over an unknown link.
    unknown: watch::Sender<(String, String)>,
}

#[derive(Debug)]
struct LinkTable {
    links: Registry<Arc<Link>>,
    connections: Connections,
}

/// Connections that links share.
#[derive(Debug, Default)]
struct Connections(HashMap<ConnectOptions, Weak<Connection>>);

impl Links {
    pub(crate) fn new(provider: ProviderLayers, warnings: Arc<WarningLog>) -> Self {
        Self {
            table: Mutex::new(LinkTable {
                links: Registry::new(LinkDirection::FromComponent, provider, warnings),
                connections: Connections::default(),
            }),
            unknown: watch::Sender::default(),
        }
    }

    /// The link of a call.
    ///
    /// # Errors
    ///
    /// The component does not have such a link, or it is misconfigured.
    pub(crate) fn find(&self, component: &str, name: &str) -> Result<Arc<Link>, Error> {
        match self.table().links.get(component, name) {
            Some(LinkState::Ready(link)) => Ok(Arc::clone(link)),
            Some(LinkState::Misconfigured(reason)) => Err(reason.clone()),
            Some(LinkState::Undelivered(reason)) => {
                self.report_unknown(component, name);
                Err(reason.clone())
            }
            None => {
                self.report_unknown(component, name);
                let text = format!(
                    "no link of component {component:?} named {name:?} to this provider: link it \
                     (wasi:keyvalue), or name another link"
                );
                Err(Error::new(ErrorKind::NoLink, text))
            }
        }
    }

    fn report_unknown(&self, component: &str, name: &str) {
        self.unknown
            .send_replace((component.to_owned(), name.to_owned()));
    }

    /// Returns true if there is such a link, in any state.
    pub(crate) fn has(&self, component: &str, name: &str) -> bool {
        self.table().links.get(component, name).is_some()
    }

    /// Waits for the next call over an unknown link. Returns its component and link name.
    pub(crate) async fn unknown(&self) -> (String, String) {
        let mut unknown = self.unknown.subscribe();
        // It cannot fail: the sender lives as long as `self`.
        let _ = unknown.changed().await;
        unknown.borrow().clone()
    }

    /// Adds a link, or replaces the one of the same component and name. Calls in flight over a replaced
    /// link end on its connection.
    pub(crate) fn put(&self, definition: LinkDefinition) {
        let LinkTable { links, connections } = &mut *self.table();
        let (component, name) = (definition.component.clone(), definition.name.clone());
        let is_replacement = links.put(definition, |definition, settings, replaced| {
            Ok(connections.link(definition, settings, replaced))
        });
        let link = links.get(&component, &name).and_then(LinkState::ready);
        info!(
            component,
            link = name,
            redis = link.map(|link| link.address()),
            "{}",
            if is_replacement {
                "link put again"
            } else {
                "link put"
            }
        );
        connections.remove_unused();
    }

    /// Adds a link whose definition cannot be read; its calls return the reason.
    pub(crate) fn insert_invalid(&self, component: &str, name: &str, reason: String) {
        let mut table = self.table();
        drop(
            table
                .links
                .insert_invalid(component, name, Error::other(reason)),
        );
        table.connections.remove_unused();
    }

    /// Adds a link that hosts have, but did not deliver. It remains an unknown link for its calls.
    pub(crate) fn mark_undelivered(&self, component: &str, name: &str, reason: &str) {
        let mut table = self.table();
        let reason = Error::new(ErrorKind::NoLink, reason);
        drop(table.links.mark_undelivered(component, name, reason));
    }

    pub(crate) fn is_undelivered(&self, component: &str, name: &str) -> bool {
        let table = self.table();
        let state = table.links.get(component, name);
        matches!(state, Some(LinkState::Undelivered(_)))
    }

    /// Removes a link, if there is one.
    pub(crate) fn delete(&self, component: &str, name: &str) {
        let mut table = self.table();
        let deleted = table
            .links
            .delete(component, name, |state| match state.ready() {
                Some(link) if link.has_replied() => REORDER_WINDOW_IN_USE,
                _ => REORDER_WINDOW,
            });
        if deleted.is_some() {
            drop(deleted);
            table.connections.remove_unused();
            info!(component, link = name, "link deleted");
        }
    }

    /// Applies a new configuration of the provider to the links that depend on it.
    pub(crate) fn reconfigure(&self, provider_config: Layer) {
        let LinkTable { links, connections } = &mut *self.table();
        links.reconfigure(provider_config, |definition, settings, replaced| {
            Ok(connections.link(definition, settings, replaced))
        });
        connections.remove_unused();
    }

    /// Removes all links, so that their connections close.
    pub(crate) fn clear(&self) {
        drop(self.table().links.clear());
    }

    /// The outages that have lasted longer than `longer_than`, of links that count for the health.
    pub(crate) fn outages(&self, longer_than: Duration) -> Vec<String> {
        let table = self.table();
        let mut outages = Vec::new();
        for (component, name, link) in table.links.ready() {
            if link.settings().health == HealthPolicy::Process {
                continue;
            }
            if let Some(outage) = link.outage().filter(|o| o.since.elapsed() > longer_than) {
                let seconds = outage.since.elapsed().as_secs();
                let reason = outage.error;
                outages.push(format!(
                    "link {name:?} of component {component:?} has had no connection to Redis for \
                     {seconds} s: {reason}"
                ));
            }
        }
        outages.sort();
        outages
    }

    fn table(&self) -> MutexGuard<'_, LinkTable> {
        self.table.lock()
    }
}

impl Connections {
    /// The link of a definition: the replaced one, if its settings are the same.
    fn link(
        &mut self,
        definition: &LinkDefinition,
        settings: Settings,
        replaced: Option<Arc<Link>>,
    ) -> Arc<Link> {
        if let Some(link) = replaced.filter(|link| *link.settings() == settings) {
            link.reset();
            return link;
        }
        let connection = self.connection(definition, &settings);
        Arc::new(Link::new(settings, connection))
    }

    /// A connection with these settings, which is shared if they say so.
    fn connection(&mut self, definition: &LinkDefinition, settings: &Settings) -> Arc<Connection> {
        let options = ConnectOptions::new(settings);
        let name = format!("kvredis:{}:{}", definition.component, definition.name);
        if !settings.share_connection {
            return Arc::new(Connection::start(options, &name));
        }
        if let Some(connection) = self.0.get(&options).and_then(Weak::upgrade) {
            return connection;
        }
        let connection = Arc::new(Connection::start(options.clone(), &name));
        self.0.insert(options, Arc::downgrade(&connection));
        connection
    }

    fn remove_unused(&mut self) {
        self.0.retain(|_, connection| connection.strong_count() > 0);
    }
}
