//! Watching: components that are called when a key changes. The table of links from the provider
//! to a component, by component and name of the link.
//!
//! `watch` is one such link at work: `connection::subscription` hears what Redis tells, `changes`
//! knows what that means, `queue` keeps it until `delivery` calls the component through
//! `serve::caller`; `lease` decides which of several processes does. Links are put and deleted by
//! `provider`.

mod changes;
mod delivery;
mod lease;
mod queue;
mod watch;

use std::collections::HashMap;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::time::timeout;
use tracing::{error, info};

use crate::links::{Definition, Links};
use crate::serve::caller::Caller;
use crate::settings::{Layer, Origin, Settings};
use watch::Watch;
pub(crate) use watch::{channels, flags};

/// A deletion that comes so soon after a link was put over another one is taken as the deletion of
/// that other one: the two messages travel separately, and may overtake each other.
const OVERTAKEN: Duration = Duration::from_millis(50);
/// How long giving up leases may take when the provider stops.
const STOP: Duration = Duration::from_millis(250);

/// All watching links of this process.
#[derive(Debug)]
pub struct Watchers {
    caller: Arc<Caller>,
    /// Keeps track of what has been warned of.
    links: Arc<Links>,
    table: Mutex<Table>,
}

#[derive(Debug)]
struct Table {
    /// By component and name of the link.
    watches: HashMap<(String, String), Kept>,
    provider_secrets: Layer,
    provider_config: Layer,
}

#[derive(Debug)]
struct Kept {
    definition: Option<Definition>,
    /// `None` where the settings are wrong.
    watch: Option<Watch>,
    /// When it was put over an earlier one that nobody had deleted.
    put_over: Option<Instant>,
}

impl Watchers {
    /// No links yet; the layers are the provider's own secrets and configuration.
    pub fn new(links: Arc<Links>, caller: Arc<Caller>, provider: (Layer, Layer)) -> Self {
        let (provider_secrets, provider_config) = provider;
        Self {
            caller,
            links,
            table: Mutex::new(Table {
                watches: HashMap::new(),
                provider_secrets,
                provider_config,
            }),
        }
    }

    /// Adds a link, or replaces the one of the same component and name.
    pub fn put(&self, definition: Definition) {
        let mut table = self.table();
        let put_over = table.knows(&definition).then(Instant::now);
        self.start(&mut table, definition, put_over);
    }

    /// Keeps a link that cannot work in the place of an earlier one.
    pub fn put_wrong(&self, component: &str, name: &str) {
        let key = (component.to_owned(), name.to_owned());
        let mut table = self.table();
        let wrong = Kept {
            definition: None,
            watch: None,
            put_over: None,
        };
        end(table.watches.insert(key, wrong));
    }

    /// Ends a link, if there is one.
    pub fn delete(&self, component: &str, name: &str) {
        let key = (component.to_owned(), name.to_owned());
        let mut table = self.table();
        let overtaken = table
            .watches
            .get(&key)
            .and_then(|kept| kept.put_over)
            .is_some_and(|at| at.elapsed() < OVERTAKEN);
        if overtaken {
            info!(
                component,
                link = name,
                "the watching link was replaced, not deleted"
            );
            return;
        }
        if let Some(kept) = table.watches.remove(&key) {
            info!(component, link = name, "watching link deleted");
            end(Some(kept));
        }
    }

    /// Takes new configuration of the provider; the links that use it follow.
    pub fn reconfigure(&self, provider_config: Layer) {
        let mut table = self.table();
        if table.provider_config == provider_config {
            return;
        }
        table.provider_config = provider_config;
        let definitions: Vec<Definition> = table
            .watches
            .values()
            .filter_map(|kept| kept.definition.clone())
            .collect();
        for definition in definitions {
            self.start(&mut table, definition, None);
        }
    }

    /// What keeps components from being told, with outages only if they last longer than this.
    pub fn troubles(&self, longer_than: Duration) -> Vec<String> {
        let table = self.table();
        let mut troubles = Vec::new();
        for ((component, name), kept) in &table.watches {
            let Some(watch) = &kept.watch else { continue };
            troubles.extend(watch.troubles(longer_than).into_iter().map(|trouble| {
                format!("link {name:?} to the watching component {component:?}: {trouble}")
            }));
        }
        troubles.sort();
        troubles
    }

    /// Whether there is such a link.
    pub fn has(&self, component: &str, name: &str) -> bool {
        let key = (component.to_owned(), name.to_owned());
        self.table().watches.contains_key(&key)
    }

    /// Ends all links.
    pub async fn stop(&self) {
        let watches = mem::take(&mut self.table().watches);
        let stopping = watches.into_values().filter_map(|kept| kept.watch);
        // Who cannot be told that a lease is free finds out when it expires.
        let _ = timeout(STOP, join_all(stopping.map(Watch::stop))).await;
    }

    fn start(&self, table: &mut Table, definition: Definition, put_over: Option<Instant>) {
        let Definition {
            component, name, ..
        } = &definition;
        let key = (component.clone(), name.clone());
        let settings = self.settings(table, &definition);
        let kept = table.watches.remove(&key);
        let unchanged = kept.filter(|kept| {
            let watch = kept.watch.as_ref();
            watch.is_some_and(|watch| settings.as_ref() == Ok(watch.settings()))
        });
        let watch = match unchanged.and_then(|kept| kept.watch) {
            Some(watch) => Ok(watch),
            None => settings.and_then(|settings| {
                Watch::start(component, name, settings, Arc::clone(&self.caller))
            }),
        };
        let watch = watch
            .inspect(|watch| {
                info!(
                    component,
                    link = name,
                    redis = watch.address(),
                    "watching link put"
                );
            })
            .inspect_err(|wrong| {
                error!(
                    component,
                    link = name,
                    reason = %wrong,
                    "the watching link cannot work"
                );
            });
        let kept = Kept {
            watch: watch.ok(),
            definition: Some(definition),
            put_over,
        };
        table.watches.insert(key, kept);
    }

    fn settings(&self, table: &Table, definition: &Definition) -> Result<Settings, String> {
        let reading = definition.read(&table.provider_secrets, &table.provider_config);
        self.links
            .warn_once(reading.warnings.into_iter().map(|warning| {
                let Definition {
                    component, name, ..
                } = definition;
                match warning.origin {
                    Origin::LinkSecrets | Origin::LinkConfig => {
                        format!("link {name:?} to component {component:?}: {}", warning.text)
                    }
                    Origin::ProviderSecrets | Origin::ProviderConfig => warning.text,
                }
            }));
        reading.settings.map(|settings| Settings {
            // A replica may not know yet of what the component is told of.
            read_from_replica: false,
            ..settings
        })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // The table is whole after every statement, also where a panic interrupted one.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn knows(&self, definition: &Definition) -> bool {
        let key = (definition.component.clone(), definition.name.clone());
        self.watches.contains_key(&key)
    }
}

/// Ends a link that is out of the table; giving up its lease takes a moment.
fn end(kept: Option<Kept>) {
    if let Some(watch) = kept.and_then(|kept| kept.watch) {
        tokio::spawn(watch.stop());
    }
}
