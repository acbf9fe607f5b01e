//! Watching: components that are called when a key changes. The links from the provider to such
//! components.
//!
//! `watch` is one such link at work: `connection::subscription` hears what Redis tells, `changes`
//! knows what that means, `queue` keeps it until `delivery` calls the component through
//! `serve::caller`; `lease` decides which of several processes does. Links are put and deleted by
//! `provider`, what the host said of them is kept by `registry`.

pub(crate) mod delivery;
pub(crate) mod keyspace_event;
pub(crate) mod lease;
pub(crate) mod queue;
pub(crate) mod watch;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::{Mutex, MutexGuard};
use tokio::time::timeout;
use tracing::{error, info};

use crate::link::registry::{LinkDefinition, LinkDirection, ProviderLayers, Registry, WarningLog};
use crate::settings::error::SettingError;
use crate::settings::link_settings::Settings;
use crate::settings::source::Layer;
use crate::watcher::watch::Watch;
pub(crate) use crate::watcher::watch::{channels, flags};
use crate::wrpc::client::ComponentClient;

/// A deletion that comes so soon after a link was put over another one is that of the other one.
const OVERTAKEN: Duration = Duration::from_millis(50);
/// How long giving up leases may take when the provider stops.
const STOP: Duration = Duration::from_millis(250);

/// All watching links of this process.
#[derive(Debug)]
pub(crate) struct Watchers {
    caller: Arc<ComponentClient>,
    /// `None` for a link that cannot work.
    table: Mutex<Registry<Option<Watch>>>,
}

impl Watchers {
    /// No links yet.
    pub(crate) fn new(
        provider: ProviderLayers,
        warnings: Arc<WarningLog>,
        caller: ComponentClient,
    ) -> Self {
        Self {
            caller: Arc::new(caller),
            table: Mutex::new(Registry::new(
                LinkDirection::ToComponent,
                provider,
                warnings,
            )),
        }
    }

    /// Adds a link, or replaces the one of the same component and name.
    pub(crate) fn put(&self, definition: LinkDefinition) {
        self.table()
            .put(definition, |definition, settings, earlier| {
                let again = earlier.is_some();
                let watch = self.watch(definition, settings, earlier);
                info!(
                    component = definition.component,
                    link = definition.name,
                    redis = watch.as_ref().map(Watch::address),
                    "{}",
                    if again {
                        "watching link put again"
                    } else {
                        "watching link put"
                    }
                );
                watch
            });
    }

    /// Keeps a link that cannot work in the place of an earlier one.
    pub(crate) fn insert_invalid(&self, component: &str, name: &str) {
        end(self.table().insert_invalid(component, name, None));
    }

    /// Ends a link, if there is one.
    pub(crate) fn delete(&self, component: &str, name: &str) {
        let deleted = self.table().delete(component, name, |_| OVERTAKEN);
        if deleted.is_some() {
            info!(component, link = name, "watching link deleted");
        }
        end(deleted);
    }

    /// Takes new configuration of the provider; the links that use it follow.
    pub(crate) fn reconfigure(&self, provider_config: Layer) {
        self.table()
            .reconfigure(provider_config, |definition, settings, earlier| {
                self.watch(definition, settings, earlier)
            });
    }

    /// What keeps components from being told, with outages only if they last longer than this.
    pub(crate) fn health_issues(&self, longer_than: Duration) -> Vec<String> {
        let table = self.table();
        let mut health_issues = Vec::new();
        for (component, name, watch) in table.iter() {
            let Some(watch) = watch else { continue };
            health_issues.extend(watch.health_issues(longer_than).into_iter().map(|trouble| {
                format!("link {name:?} to the watching component {component:?}: {trouble}")
            }));
        }
        health_issues.sort();
        health_issues
    }

    /// Whether there is such a link.
    pub(crate) fn has(&self, component: &str, name: &str) -> bool {
        self.table().get(component, name).is_some()
    }

    /// Ends all links.
    pub(crate) async fn stop(&self) {
        let watches = self.table().clear();
        // Who cannot be told that a lease is free finds out when it expires.
        let _ = timeout(STOP, join_all(watches.flatten().map(Watch::stop))).await;
    }

    /// The watch that a definition asks for: the earlier one, if nothing changed. One that is
    /// replaced keeps its lease for the new one.
    fn watch(
        &self,
        definition: &LinkDefinition,
        settings: Result<Settings, SettingError>,
        earlier: Option<Option<Watch>>,
    ) -> Option<Watch> {
        let LinkDefinition {
            component, name, ..
        } = definition;
        let settings = settings.map(|settings| Settings {
            // A replica may not know yet of what the component is told of.
            read_from_replica: false,
            ..settings
        });
        let unchanged = earlier
            .flatten()
            .filter(|watch| settings.as_ref() == Ok(watch.settings()));
        if unchanged.is_some() {
            return unchanged;
        }
        settings
            .and_then(|settings| Watch::start(component, name, settings, Arc::clone(&self.caller)))
            .inspect_err(|wrong| {
                error!(
                    component,
                    link = name,
                    reason = %wrong,
                    "the watching link cannot work"
                );
            })
            .ok()
    }

    fn table(&self) -> MutexGuard<'_, Registry<Option<Watch>>> {
        self.table.lock()
    }
}

/// Ends a link that is out of the table; giving up its lease takes a moment.
fn end(watch: Option<Option<Watch>>) {
    if let Some(watch) = watch.flatten() {
        tokio::spawn(watch.stop());
    }
}
