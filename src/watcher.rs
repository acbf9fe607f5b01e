//! Watching: links from the provider to components that are called when a key changes.
//!
//! [`watch`] is one such link: [`listener`] receives the notifications from `redis::pubsub`, which
//! [`keyspace_event`] interprets, [`queue`] holds the changes until [`delivery`] calls the component through
//! `wrpc::client`, and [`election`] decides by a [`lease`] which process delivers. `provider` puts and deletes the links.

pub(crate) mod delivery;
pub(crate) mod election;
pub(crate) mod glob;
pub(crate) mod keyspace_event;
pub(crate) mod lease;
pub(crate) mod listener;
pub(crate) mod queue;
pub(crate) mod watch;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::{Mutex, MutexGuard};
use tokio::time::timeout;
use tracing::info;

use crate::error::{Error, ErrorKind};
use crate::link::registry::{
    LinkDefinition, LinkDirection, LinkState, ProviderLayers, REORDER_WINDOW, Registry, WarningLog,
};
use crate::settings::error::SettingError;
use crate::settings::link_settings::Settings;
use crate::settings::source::Layer;
use crate::tasks;
use crate::telemetry::watching::Loss;
use crate::watcher::watch::Watch;
use crate::wrpc::client::ComponentClient;

/// The time limits for calls in progress when the provider stops, and in total.
const STOP_CALLS_TIMEOUT: Duration = Duration::from_secs(1);
const STOP_TIMEOUT: Duration = Duration::from_secs(2);
/// The time limit for calls in progress when a link is deleted: longer than any call takes.
const DELETE_CALLS_TIMEOUT: Duration = Duration::from_secs(30);

/// All watching links of this process.
#[derive(Debug)]
pub(crate) struct Watchers {
    client: Arc<ComponentClient>,
    table: Mutex<Registry<Watch>>,
}

impl Watchers {
    pub(crate) fn new(
        provider: ProviderLayers,
        warnings: Arc<WarningLog>,
        client: ComponentClient,
    ) -> Self {
        Self {
            client: Arc::new(client),
            table: Mutex::new(Registry::new(
                LinkDirection::ToComponent,
                provider,
                warnings,
            )),
        }
    }

    /// Adds a link, or replaces the one of the same component and name.
    pub(crate) fn put(&self, definition: LinkDefinition) {
        let (component, name) = (definition.component.clone(), definition.name.clone());
        let mut table = self.table();
        let is_replacement = table.put(definition, |definition, settings, replaced| {
            self.watch(definition, settings, replaced)
        });
        let watch = table.get(&component, &name).and_then(LinkState::ready);
        info!(
            component,
            link = name,
            redis = watch.map(Watch::address),
            "{}",
            if is_replacement {
                "watching link put again"
            } else {
                "watching link put"
            }
        );
    }

    /// Adds a link whose definition cannot be read.
    pub(crate) fn insert_invalid(&self, component: &str, name: &str, reason: String) {
        let reason = Error::other(reason);
        let replaced = self.table().insert_invalid(component, name, reason);
        stop_in_background(replaced, Loss::Replaced);
    }

    /// Adds a link that hosts have, but did not deliver.
    pub(crate) fn mark_undelivered(&self, component: &str, name: &str, reason: &str) {
        let reason = Error::new(ErrorKind::NoLink, reason);
        let replaced = self.table().mark_undelivered(component, name, reason);
        stop_in_background(replaced, Loss::Replaced);
    }

    /// Removes a link, if there is one.
    pub(crate) fn delete(&self, component: &str, name: &str) {
        let deleted = self.table().delete(component, name, |_| REORDER_WINDOW);
        if let Some(state) = deleted {
            info!(component, link = name, "watching link deleted");
            stop_in_background(state.into_ready(), Loss::Deleted);
        }
    }

    /// Applies a new configuration of the provider to the links that depend on it.
    pub(crate) fn reconfigure(&self, provider_config: Layer) {
        self.table()
            .reconfigure(provider_config, |definition, settings, replaced| {
                self.watch(definition, settings, replaced)
            });
    }

    /// The reasons why components do not receive changes; outages only if they last longer than
    /// `longer_than`.
    pub(crate) fn health_issues(&self, longer_than: Duration) -> Vec<String> {
        let table = self.table();
        let mut issues = Vec::new();
        for (component, name, watch) in table.ready() {
            issues.extend(watch.health_issues(longer_than).into_iter().map(|issue| {
                format!("link {name:?} to the watching component {component:?}: {issue}")
            }));
        }
        issues.sort();
        issues
    }

    /// Returns true if there is such a link, in any state.
    pub(crate) fn has(&self, component: &str, name: &str) -> bool {
        self.table().get(component, name).is_some()
    }

    /// Ends all links.
    pub(crate) async fn stop(&self) {
        let watches = self.table().clear();
        let stops = watches.map(|watch| watch.stop(Loss::Stopped, STOP_CALLS_TIMEOUT));
        // A lease that cannot be released in time expires.
        let _ = timeout(STOP_TIMEOUT, join_all(stops)).await;
    }

    /// The watch of a definition: the replaced one, if its settings are the same; a different one
    /// hands over to the new one.
    fn watch(
        &self,
        definition: &LinkDefinition,
        settings: Settings,
        replaced: Option<Watch>,
    ) -> Result<Watch, SettingError> {
        let settings = Settings {
            // A replica may lag behind the notification of a change.
            read_from_replica: false,
            ..settings
        };
        let replaced = match replaced {
            Some(watch) if *watch.settings() == settings => return Ok(watch),
            replaced => replaced,
        };
        let LinkDefinition {
            component, name, ..
        } = definition;
        Watch::start(
            component,
            name,
            settings,
            Arc::clone(&self.client),
            replaced,
        )
    }

    fn table(&self) -> MutexGuard<'_, Registry<Watch>> {
        self.table.lock()
    }
}

/// Ends a link that has left the table; calls in progress may complete.
fn stop_in_background(watch: Option<Watch>, loss: Loss) {
    if let Some(watch) = watch {
        tasks::spawn(
            "end of a watching link",
            watch.stop(loss, DELETE_CALLS_TIMEOUT),
        )
        .detach();
    }
}
