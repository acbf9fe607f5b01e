//! The links that the host has put, by component and link name: what it says of them, which settings
//! count, and which deletion is meant for which of two links.
//!
//! `links` keeps those of components that call in one, `watcher` those of components that are told
//! of changes in another; what a link does is for them.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use crate::settings::error::SettingError;
use crate::settings::link_settings::Settings;
use crate::settings::origin::Origin;
use crate::settings::source::{Layer, Sources};

/// What the host says of a link.
#[derive(Clone, Debug)]
pub(crate) struct LinkDefinition {
    /// The component that calls, or is called.
    pub(crate) component: String,
    /// The name of the link.
    pub(crate) name: String,
    /// The link's opened secrets.
    pub(crate) secrets: Layer,
    /// The link's named configuration.
    pub(crate) config: Layer,
}

/// Which way calls go over a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) enum LinkDirection {
    /// From the component to the provider.
    FromComponent,
    /// From the provider to the component.
    ToComponent,
}

/// The provider's own, for what a link does not set.
#[derive(Clone, Debug)]
pub(crate) struct ProviderLayers {
    /// Its opened secrets.
    pub(crate) secrets: Layer,
    /// Its named configuration.
    pub(crate) config: Layer,
}

/// All links of one way, each with what is made of it.
#[derive(Debug)]
pub(crate) struct Registry<T> {
    way: LinkDirection,
    provider: ProviderLayers,
    warnings: Arc<WarningLog>,
    /// By component, then by name: a look-up with two borrowed texts allocates nothing.
    links: HashMap<String, HashMap<String, RegistryEntry<T>>>,
}

#[derive(Debug)]
struct RegistryEntry<T> {
    /// `None` where it could not be read: then no settings make it work.
    definition: Option<LinkDefinition>,
    link: T,
    /// When it was put over an earlier one that nobody had deleted.
    put_over: Option<Instant>,
}

impl<T> Registry<T> {
    /// No links yet.
    pub(crate) fn new(
        way: LinkDirection,
        provider: ProviderLayers,
        warnings: Arc<WarningLog>,
    ) -> Self {
        Self {
            way,
            provider,
            warnings,
            links: HashMap::new(),
        }
    }

    /// What was made of a link.
    pub(crate) fn get(&self, component: &str, name: &str) -> Option<&T> {
        let kept = self.links.get(component)?.get(name)?;
        Some(&kept.link)
    }

    /// All links, each with its component and name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str, &T)> {
        self.links.iter().flat_map(|(component, links)| {
            links
                .iter()
                .map(|(name, kept)| (component.as_str(), name.as_str(), &kept.link))
        })
    }

    /// Adds a link, or replaces the one of the same component and name; `make` is told its settings,
    /// or what is wrong with them, and what was made of the earlier one.
    pub(crate) fn put(
        &mut self,
        definition: LinkDefinition,
        make: impl FnOnce(&LinkDefinition, Result<Settings, SettingError>, Option<T>) -> T,
    ) {
        let put_over = self
            .get(&definition.component, &definition.name)
            .map(|_| Instant::now());
        self.make(definition, put_over, make);
    }

    /// Puts a link that cannot work, whatever is set; answers what was made of the earlier one.
    pub(crate) fn insert_invalid(&mut self, component: &str, name: &str, link: T) -> Option<T> {
        let wrong = RegistryEntry {
            definition: None,
            link,
            put_over: None,
        };
        self.keep(component, name, wrong)
    }

    /// Takes new configuration of the provider, and makes each link anew.
    pub(crate) fn reconfigure(
        &mut self,
        config: Layer,
        mut make: impl FnMut(&LinkDefinition, Result<Settings, SettingError>, Option<T>) -> T,
    ) {
        if self.provider.config == config {
            return;
        }
        self.provider.config = config;
        let definitions: Vec<LinkDefinition> = self
            .links
            .values()
            .flat_map(HashMap::values)
            .filter_map(|kept| kept.definition.clone())
            .collect();
        for definition in definitions {
            self.make(definition, None, &mut make);
        }
    }

    /// Forgets a link, if there is one; answers what was made of it.
    ///
    /// The host's messages that put a link and delete one travel separately, and may overtake each
    /// other. A deletion that comes sooner than `overtaken` after a link was put over another one is
    /// taken as the deletion of that other one.
    pub(crate) fn delete(
        &mut self,
        component: &str,
        name: &str,
        overtaken: impl FnOnce(&T) -> Duration,
    ) -> Option<T> {
        let Entry::Occupied(mut of_component) = self.links.entry(component.to_owned()) else {
            return None;
        };
        let Entry::Occupied(kept) = of_component.get_mut().entry(name.to_owned()) else {
            return None;
        };
        let put_over = kept.get().put_over;
        if put_over.is_some_and(|at| at.elapsed() < overtaken(&kept.get().link)) {
            info!(component, link = name, "the link was replaced, not deleted");
            return None;
        }
        let kept = kept.remove();
        if of_component.get().is_empty() {
            of_component.remove();
        }
        self.warnings.forget(&self.way.about(component, name));
        Some(kept.link)
    }

    /// Forgets all links; answers what was made of them.
    pub(crate) fn clear(&mut self) -> impl Iterator<Item = T> + use<T> {
        let links = mem::take(&mut self.links).into_values();
        links.flat_map(HashMap::into_values).map(|kept| kept.link)
    }

    fn make(
        &mut self,
        definition: LinkDefinition,
        put_over: Option<Instant>,
        make: impl FnOnce(&LinkDefinition, Result<Settings, SettingError>, Option<T>) -> T,
    ) {
        let settings = self.settings(&definition);
        let LinkDefinition {
            component, name, ..
        } = definition.clone();
        let earlier = self
            .links
            .get_mut(&component)
            .and_then(|links| links.remove(&name));
        let made = RegistryEntry {
            link: make(&definition, settings, earlier.map(|kept| kept.link)),
            definition: Some(definition),
            put_over,
        };
        self.keep(&component, &name, made);
    }

    fn keep(&mut self, component: &str, name: &str, kept: RegistryEntry<T>) -> Option<T> {
        let of_component = self.links.entry(component.to_owned()).or_default();
        let earlier = of_component.insert(name.to_owned(), kept)?;
        Some(earlier.link)
    }

    /// A link's settings, with what it does not set from what the provider was given.
    fn settings(&self, definition: &LinkDefinition) -> Result<Settings, SettingError> {
        let reading = Settings::parse(&Sources::new(
            definition.secrets.clone(),
            definition.config.clone(),
            self.provider.secrets.clone(),
            self.provider.config.clone(),
        ));
        let about = self.way.about(&definition.component, &definition.name);
        let texts = reading
            .warnings
            .into_iter()
            .map(|warning| match warning.origin {
                Origin::LinkSecrets | Origin::LinkConfig => about.clone() + &warning.message,
                Origin::ProviderSecrets | Origin::ProviderConfig => warning.message,
            });
        self.warnings.once(texts);
        reading.settings
    }
}

impl LinkDirection {
    /// What warnings about a link begin with.
    fn about(self, component: &str, name: &str) -> String {
        match self {
            Self::FromComponent => format!("link {name:?} of component {component:?}: "),
            Self::ToComponent => format!("link {name:?} to component {component:?}: "),
        }
    }
}

/// What has been said of settings, so that it is said once in the life of the process.
#[derive(Debug, Default)]
pub(crate) struct WarningLog(Mutex<HashSet<String>>);

impl WarningLog {
    /// Logs each text that has not been logged before.
    pub(crate) fn once(&self, texts: impl IntoIterator<Item = String>) {
        let mut said = self.said();
        for text in texts {
            if !said.contains(&text) {
                warn!(reason = %text, "a setting deserves a look");
                said.insert(text);
            }
        }
    }

    /// Of deleted links nothing is kept, or components that come and go would fill it.
    fn forget(&self, about: &str) {
        self.said().retain(|text| !text.starts_with(about));
    }

    fn said(&self) -> MutexGuard<'_, HashSet<String>> {
        self.0.lock()
    }
}
