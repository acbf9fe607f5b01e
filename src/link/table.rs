//! Whose call is this? The links of components that call, by component and link name.
//!
//! Links are put and deleted by `provider`; a link that cannot work stays with its reason, which is
//! what its calls are answered. What the host said of them is kept by `registry`, what a link can
//! do is in `link`.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;
use tracing::{error, info};

use crate::error::{Error, ErrorKind};
use crate::link::Link;
use crate::link::registry::{LinkDefinition, LinkDirection, ProviderLayers, Registry, WarningLog};
use crate::redis::connection::Connection;
use crate::redis::options::ConnectOptions;
use crate::settings::error::SettingError;
use crate::settings::link_settings::{HealthPolicy, Settings};
use crate::settings::source::Layer;

/// A deletion that comes so soon after a link was put over another one is that of the other one.
const OVERTAKEN: Duration = Duration::from_millis(20);
/// The same as long as the new link has answered no call.
const OVERTAKEN_UNUSED: Duration = Duration::from_millis(50);

/// All links of this process over which components call.
#[derive(Debug)]
pub(crate) struct Links {
    table: Mutex<LinkTable>,
    /// Whose call came latest over a link that is not there.
    unknown: watch::Sender<(String, String)>,
}

/// A link, or what its calls are answered instead.
type Working = Result<Arc<Link>, Error>;

#[derive(Debug)]
struct LinkTable {
    links: Registry<Working>,
    connections: Connections,
}

/// Connections that links share.
#[derive(Debug, Default)]
struct Connections(HashMap<ConnectOptions, Weak<Connection>>);

impl Links {
    /// No links yet.
    pub(crate) fn new(provider: ProviderLayers, warnings: Arc<WarningLog>) -> Self {
        Self {
            table: Mutex::new(LinkTable {
                links: Registry::new(LinkDirection::FromComponent, provider, warnings),
                connections: Connections::default(),
            }),
            unknown: watch::Sender::default(),
        }
    }

    /// The link that a call came over.
    ///
    /// # Errors
    ///
    /// There is no such link, or its settings are wrong.
    pub(crate) fn find(&self, component: &str, name: &str) -> Working {
        let table = self.table();
        let Some(link) = table.links.get(component, name) else {
            self.is_unknown(component, name);
            let text = format!(
                "no link of component {component:?} named {name:?} to this provider: link it \
                 (wasi:keyvalue), or name another link"
            );
            return Err(Error::new(ErrorKind::NoLink, text));
        };
        if is_undelivered(link) {
            self.is_unknown(component, name);
        }
        link.clone()
    }

    fn is_unknown(&self, component: &str, name: &str) {
        let whose = (component.to_owned(), name.to_owned());
        self.unknown.send_replace(whose);
    }

    /// Whether there is such a link, be its settings wrong.
    pub(crate) fn has(&self, component: &str, name: &str) -> bool {
        self.table().links.get(component, name).is_some()
    }

    /// Waits for the next call over a link that is not there; answers its component and link name.
    pub(crate) async fn unknown(&self) -> (String, String) {
        let mut unknown = self.unknown.subscribe();
        // The sender lives as long as this.
        let _ = unknown.changed().await;
        unknown.borrow().clone()
    }

    /// Adds a link, or replaces the one of the same component and name. Calls that are under way
    /// over a replaced one end on its connection.
    pub(crate) fn put(&self, definition: LinkDefinition) {
        let LinkTable { links, connections } = &mut *self.table();
        links.put(definition, |definition, settings, earlier| {
            let again = earlier.is_some();
            let link = connections.link(definition, settings, earlier);
            info!(
                component = definition.component,
                link = definition.name,
                redis = link.as_ref().ok().map(|link| link.address()),
                "{}",
                if again { "link put again" } else { "link put" }
            );
            link
        });
        connections.forget_unused();
    }

    /// Keeps a link that cannot work, so that its calls are answered why.
    pub(crate) fn insert_invalid(&self, component: &str, name: &str, why: String) {
        let mut table = self.table();
        table
            .links
            .insert_invalid(component, name, Err(Error::other(why)));
        table.connections.forget_unused();
    }

    /// Keeps a link that the host has not passed on; calls over it go on being calls over a link that
    /// is not there.
    pub(crate) fn mark_undelivered(&self, component: &str, name: &str, why: &str) {
        let record_skipped_keys = Err(Error::new(ErrorKind::NoLink, why));
        self.table()
            .links
            .insert_invalid(component, name, record_skipped_keys);
    }

    /// Whether a link was left out so.
    pub(crate) fn is_undelivered(&self, component: &str, name: &str) -> bool {
        let table = self.table();
        table.links.get(component, name).is_some_and(is_undelivered)
    }

    /// Forgets a link, if there is one.
    pub(crate) fn delete(&self, component: &str, name: &str) {
        let mut table = self.table();
        let deleted = table.links.delete(component, name, |link| {
            let used = link.as_ref().is_ok_and(|link| link.has_replied());
            if used { OVERTAKEN } else { OVERTAKEN_UNUSED }
        });
        if deleted.is_some() {
            drop(deleted);
            table.connections.forget_unused();
            info!(component, link = name, "link deleted");
        }
    }

    /// Takes new configuration of the provider; the links that use it follow.
    pub(crate) fn reconfigure(&self, provider_config: Layer) {
        let LinkTable { links, connections } = &mut *self.table();
        links.reconfigure(provider_config, |definition, settings, earlier| {
            connections.link(definition, settings, earlier)
        });
        connections.forget_unused();
    }

    /// Forgets all links, so that their connections close.
    pub(crate) fn clear(&self) {
        drop(self.table().links.clear());
    }

    /// The links that have been without their Redis for longer than this, each with its reason;
    /// but for those that do not count for the health.
    pub(crate) fn outages(&self, longer_than: Duration) -> Vec<String> {
        let table = self.table();
        let mut outages = Vec::new();
        for (component, name, link) in table.links.iter() {
            let Ok(link) = link else { continue };
            if link.settings().health == HealthPolicy::Process {
                continue;
            }
            if let Some(outage) = link.outage().filter(|o| o.since.elapsed() > longer_than) {
                let seconds = outage.since.elapsed().as_secs();
                let reason = outage.failure;
                outages.push(format!(
                    "link {name:?} of component {component:?} is without its Redis for {seconds} \
                     s: {reason}"
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

fn is_undelivered(link: &Working) -> bool {
    matches!(link, Err(why) if *why.kind() == ErrorKind::NoLink)
}

impl Connections {
    /// The link that a definition asks for: the earlier one, if nothing changed.
    fn link(
        &mut self,
        definition: &LinkDefinition,
        settings: Result<Settings, SettingError>,
        earlier: Option<Working>,
    ) -> Working {
        let settings = settings.map_err(|wrong| {
            error!(
                component = definition.component,
                link = definition.name,
                reason = %wrong,
                "the link cannot work"
            );
            Error::from(wrong)
        })?;
        let unchanged = earlier
            .and_then(Result::ok)
            .filter(|link| *link.settings() == settings);
        if let Some(link) = unchanged {
            link.reset();
            return Ok(link);
        }
        let connection = self.connection(definition, &settings);
        Ok(Arc::new(Link::new(settings, connection)))
    }

    /// A connection for these settings: a shared one where that is asked for.
    fn connection(&mut self, definition: &LinkDefinition, settings: &Settings) -> Arc<Connection> {
        let target = ConnectOptions::new(settings);
        let name = format!("kvredis:{}:{}", definition.component, definition.name);
        if !settings.share_connection {
            return Arc::new(Connection::start(target, &name));
        }
        if let Some(connection) = self.0.get(&target).and_then(Weak::upgrade) {
            return connection;
        }
        let connection = Arc::new(Connection::start(target.clone(), &name));
        self.0.insert(target, Arc::downgrade(&connection));
        connection
    }

    fn forget_unused(&mut self) {
        self.0.retain(|_, connection| connection.strong_count() > 0);
    }
}
