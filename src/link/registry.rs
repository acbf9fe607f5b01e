//! The links that the host has put, by component and link name: their definitions, their settings, and the
//! order of the host's messages.
//!
//! `link::table` has a registry of the links over which components call, `watcher` one of the links over
//! which components are called.

use std::collections::hash_map;
use std::collections::{HashMap, HashSet};
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tracing::{error, info, warn};

use crate::error::Error;
use crate::settings::error::SettingError;
use crate::settings::link_settings::Settings;
use crate::settings::origin::Origin;
use crate::settings::source::{Layer, Sources};

/// A host's message that deletes a link may overtake the one that puts its successor. A deletion that
/// arrives within this time after a link was replaced is taken as the deletion of the replaced link.
pub(crate) const REORDER_WINDOW: Duration = Duration::from_millis(50);

/// A link as the host defines it.
#[derive(Clone, Debug)]
pub(crate) struct LinkDefinition {
    /// The component that calls, or is called.
    pub(crate) component: String,
    /// The name of the link.
    pub(crate) name: String,
    /// The link's decrypted secrets.
    pub(crate) secrets: Layer,
    /// The link's named configuration.
    pub(crate) config: Layer,
}

/// The direction of the calls over a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) enum LinkDirection {
    /// From the component to the provider.
    FromComponent,
    /// From the provider to the component.
    ToComponent,
}

/// The provider's own secrets and configuration, for settings that a link does not have.
#[derive(Clone, Debug)]
pub(crate) struct ProviderLayers {
    /// Its decrypted secrets.
    pub(crate) secrets: Layer,
    /// Its named configuration.
    pub(crate) config: Layer,
}

/// The state of a link.
#[derive(Debug)]
pub(crate) enum LinkState<T> {
    /// It works, or will as soon as Redis is reachable.
    Ready(T),
    /// It cannot work until it is put again, or the provider's configuration changes.
    Misconfigured(Error),
    /// Hosts have the link, but did not deliver it to this process.
    Undelivered(Error),
}

impl<T> LinkState<T> {
    pub(crate) fn ready(&self) -> Option<&T> {
        match self {
            Self::Ready(link) => Some(link),
            Self::Misconfigured(_) | Self::Undelivered(_) => None,
        }
    }

    pub(crate) fn into_ready(self) -> Option<T> {
        match self {
            Self::Ready(link) => Some(link),
            Self::Misconfigured(_) | Self::Undelivered(_) => None,
        }
    }
}

/// All links of one direction.
#[derive(Debug)]
pub(crate) struct Registry<T> {
    direction: LinkDirection,
    provider: ProviderLayers,
    warnings: Arc<WarningLog>,
    /// By component, then by name: a lookup by two borrowed texts allocates nothing.
    links: HashMap<String, HashMap<String, RegistryEntry<T>>>,
}

#[derive(Debug)]
struct RegistryEntry<T> {
    /// `None` if it could not be read, or was not delivered: no settings make the link ready.
    definition: Option<LinkDefinition>,
    state: LinkState<T>,
    /// The time at which the link replaced one that had not been deleted.
    replaced_at: Option<Instant>,
}

impl<T> Registry<T> {
    pub(crate) fn new(
        direction: LinkDirection,
        provider: ProviderLayers,
        warnings: Arc<WarningLog>,
    ) -> Self {
        Self {
            direction,
            provider,
            warnings,
            links: HashMap::new(),
        }
    }

    pub(crate) fn get(&self, component: &str, name: &str) -> Option<&LinkState<T>> {
        let entry = self.links.get(component)?.get(name)?;
        Some(&entry.state)
    }

    /// The links that are ready, each with its component and name.
    pub(crate) fn ready(&self) -> impl Iterator<Item = (&str, &str, &T)> {
        self.links.iter().flat_map(|(component, links)| {
            links.iter().filter_map(|(name, entry)| {
                Some((component.as_str(), name.as_str(), entry.state.ready()?))
            })
        })
    }

    /// Adds a link, or replaces the one of the same component and name. `create` receives its settings
    /// and the replaced link, if that was ready. Returns true if a link was replaced.
    pub(crate) fn put(
        &mut self,
        definition: LinkDefinition,
        create: impl FnOnce(&LinkDefinition, Settings, Option<T>) -> Result<T, SettingError>,
    ) -> bool {
        let is_replacement = self.get(&definition.component, &definition.name).is_some();
        let replaced_at = is_replacement.then(Instant::now);
        self.create(definition, replaced_at, create);
        is_replacement
    }

    /// Adds a link whose definition cannot be read. Returns the replaced link, if that was ready.
    pub(crate) fn insert_invalid(
        &mut self,
        component: &str,
        name: &str,
        reason: Error,
    ) -> Option<T> {
        self.insert_without_definition(component, name, LinkState::Misconfigured(reason))
    }

    /// Adds a link that hosts have, but did not deliver. Returns the replaced link, if that was ready.
    pub(crate) fn mark_undelivered(
        &mut self,
        component: &str,
        name: &str,
        reason: Error,
    ) -> Option<T> {
        self.insert_without_definition(component, name, LinkState::Undelivered(reason))
    }

    /// Applies a new configuration of the provider to each link.
    pub(crate) fn reconfigure(
        &mut self,
        config: Layer,
        mut create: impl FnMut(&LinkDefinition, Settings, Option<T>) -> Result<T, SettingError>,
    ) {
        if self.provider.config == config {
            return;
        }
        self.provider.config = config;
        let definitions: Vec<LinkDefinition> = self
            .links
            .values()
            .flat_map(HashMap::values)
            .filter_map(|entry| entry.definition.clone())
            .collect();
        for definition in definitions {
            self.create(definition, None, &mut create);
        }
    }

    /// Removes a link, unless the deletion is that of the link it replaced: see [`REORDER_WINDOW`], for
    /// which `reorder_window` may return a shorter time. Returns its state.
    pub(crate) fn delete(
        &mut self,
        component: &str,
        name: &str,
        reorder_window: impl FnOnce(&LinkState<T>) -> Duration,
    ) -> Option<LinkState<T>> {
        let hash_map::Entry::Occupied(mut links) = self.links.entry(component.to_owned()) else {
            return None;
        };
        let hash_map::Entry::Occupied(entry) = links.get_mut().entry(name.to_owned()) else {
            return None;
        };
        let replaced_at = entry.get().replaced_at;
        if replaced_at.is_some_and(|at| at.elapsed() < reorder_window(&entry.get().state)) {
            info!(component, link = name, "the link was replaced, not deleted");
            return None;
        }
        let entry = entry.remove();
        if links.get().is_empty() {
            links.remove();
        }
        self.warnings.forget(&self.direction.about(component, name));
        Some(entry.state)
    }

    /// Removes all links. Returns those that were ready.
    pub(crate) fn clear(&mut self) -> impl Iterator<Item = T> + use<T> {
        let links = mem::take(&mut self.links).into_values();
        links
            .flat_map(HashMap::into_values)
            .filter_map(|entry| entry.state.into_ready())
    }

    fn create(
        &mut self,
        definition: LinkDefinition,
        replaced_at: Option<Instant>,
        create: impl FnOnce(&LinkDefinition, Settings, Option<T>) -> Result<T, SettingError>,
    ) {
        let (component, name) = (definition.component.clone(), definition.name.clone());
        let replaced = self
            .links
            .get_mut(&component)
            .and_then(|links| links.remove(&name))
            .and_then(|entry| entry.state.into_ready());
        let created = self
            .settings(&definition)
            .and_then(|settings| create(&definition, settings, replaced));
        let state = match created {
            Ok(link) => LinkState::Ready(link),
            Err(error) => {
                let reason = Error::from(error);
                self.direction.log_misconfigured(&component, &name, &reason);
                LinkState::Misconfigured(reason)
            }
        };
        let entry = RegistryEntry {
            definition: Some(definition),
            state,
            replaced_at,
        };
        self.insert(&component, &name, entry);
    }

    fn insert_without_definition(
        &mut self,
        component: &str,
        name: &str,
        state: LinkState<T>,
    ) -> Option<T> {
        let entry = RegistryEntry {
            definition: None,
            state,
            replaced_at: None,
        };
        self.insert(component, name, entry)
    }

    fn insert(&mut self, component: &str, name: &str, entry: RegistryEntry<T>) -> Option<T> {
        let links = self.links.entry(component.to_owned()).or_default();
        let replaced = links.insert(name.to_owned(), entry)?;
        replaced.state.into_ready()
    }

    /// The settings of a link; those that it does not have are the provider's.
    fn settings(&self, definition: &LinkDefinition) -> Result<Settings, SettingError> {
        let outcome = Settings::parse(&Sources::new(
            definition.secrets.clone(),
            definition.config.clone(),
            self.provider.secrets.clone(),
            self.provider.config.clone(),
        ));
        let about = self
            .direction
            .about(&definition.component, &definition.name);
        let warnings = outcome
            .warnings
            .into_iter()
            .map(|warning| match warning.origin {
                Origin::LinkSecrets | Origin::LinkConfig => about.clone() + &warning.message,
                Origin::ProviderSecrets | Origin::ProviderConfig => warning.message,
            });
        self.warnings.once(warnings);
        outcome.settings
    }
}

impl LinkDirection {
    /// The start of warnings about a link.
    fn about(self, component: &str, name: &str) -> String {
        match self {
            Self::FromComponent => format!("link {name:?} of component {component:?}: "),
            Self::ToComponent => format!("link {name:?} to component {component:?}: "),
        }
    }

    fn log_misconfigured(self, component: &str, name: &str, reason: &Error) {
        match self {
            Self::FromComponent => {
                error!(component, link = name, %reason, "the link cannot work");
            }
            Self::ToComponent => {
                error!(component, link = name, %reason, "the watching link cannot work");
            }
        }
    }
}

/// Configuration warnings, each of which is logged once per process.
#[derive(Debug, Default)]
pub(crate) struct WarningLog(Mutex<HashSet<String>>);

impl WarningLog {
    /// Logs each text that has not been logged before.
    pub(crate) fn once(&self, texts: impl IntoIterator<Item = String>) {
        let mut logged = self.0.lock();
        for text in texts {
            if !logged.contains(&text) {
                warn!(reason = %text, "configuration warning");
                logged.insert(text);
            }
        }
    }

    /// Forgets the warnings about a deleted link: components that come and go would fill the memory.
    fn forget(&self, about: &str) {
        self.0.lock().retain(|text| !text.starts_with(about));
    }
}
