//! Whose call is this? The table of links, by the calling component and the name of the link.
//!
//! Links are put and deleted by `provider`; a link that cannot work stays in the table with its
//! reason, which is what its calls are answered. What a link can do is in `link`.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::connection::{Connection, Target};
use crate::error::{Error, Kind};
use crate::link::Link;
use crate::settings::{Health, Layer, Origin, Reading, Settings, Sources};

/// A deletion that comes so soon after a link was put over another one is taken as the deletion of
/// that other one: the two messages travel separately, and may overtake each other.
const OVERTAKEN: Duration = Duration::from_millis(20);
/// The same as long as the new link has answered no call.
const OVERTAKEN_UNUSED: Duration = Duration::from_millis(50);

/// What the host says of a link.
#[derive(Clone, Debug)]
pub struct Definition {
    /// The component that calls.
    pub component: String,
    /// The name of the link.
    pub name: String,
    /// The link's opened secrets.
    pub secrets: Layer,
    /// The link's named configuration.
    pub config: Layer,
}

impl Definition {
    /// Its settings, with what it does not set from the provider's own secrets and configuration.
    pub fn read(&self, provider_secrets: &Layer, provider_config: &Layer) -> Reading<Settings> {
        Settings::read(&Sources::new(
            self.secrets.clone(),
            self.config.clone(),
            provider_secrets.clone(),
            provider_config.clone(),
        ))
    }
}

/// All links of this process.
#[derive(Debug)]
pub struct Links {
    table: Mutex<Table>,
    /// Whose call came latest over a link that is not there.
    unknown: watch::Sender<(String, String)>,
}

#[derive(Debug)]
struct Table {
    /// By component, then by name: a look-up with two borrowed texts allocates nothing.
    links: HashMap<String, HashMap<String, Kept>>,
    provider_secrets: Layer,
    provider_config: Layer,
    shared: HashMap<Target, Weak<Connection>>,
    /// Of deleted links nothing is kept, or components that come and go would fill it.
    warned: HashSet<String>,
}

#[derive(Debug)]
struct Kept {
    definition: Definition,
    state: Result<Arc<Link>, Error>,
    /// When it was put over an earlier one that nobody had deleted.
    put_over: Option<Instant>,
}

impl Links {
    /// No links yet; the layers are the provider's own secrets and configuration.
    pub fn new(provider_secrets: Layer, provider_config: Layer) -> Self {
        Self {
            table: Mutex::new(Table {
                links: HashMap::new(),
                provider_secrets,
                provider_config,
                shared: HashMap::new(),
                warned: HashSet::new(),
            }),
            unknown: watch::Sender::default(),
        }
    }

    /// The link that a call came over.
    ///
    /// # Errors
    ///
    /// There is no such link, or its settings are wrong.
    pub fn find(&self, component: &str, name: &str) -> Result<Arc<Link>, Error> {
        let table = self.table();
        let Some(kept) = table.links.get(component).and_then(|links| links.get(name)) else {
            let whose = (component.to_owned(), name.to_owned());
            self.unknown.send_replace(whose);
            let text = format!(
                "no link of component {component:?} named {name:?} to this provider: link it \
                 (wasi:keyvalue), or name another link"
            );
            return Err(Error::of(Kind::NoLink, text));
        };
        kept.state.clone()
    }

    /// Waits for the next call over a link that is not there; answers its component and link name.
    pub async fn unknown(&self) -> (String, String) {
        let mut unknown = self.unknown.subscribe();
        // The sender lives as long as this.
        let _ = unknown.changed().await;
        unknown.borrow().clone()
    }

    /// Adds a link, or replaces the one of the same component and name. Calls that are under way
    /// over a replaced one end on its connection.
    pub fn put(&self, definition: Definition) {
        self.table().put(definition);
    }

    /// Keeps a link that cannot work, so that its calls are answered why.
    pub fn put_wrong(&self, component: &str, name: &str, why: String) {
        let definition = Definition {
            component: component.to_owned(),
            name: name.to_owned(),
            secrets: Layer::empty(Origin::LinkSecrets),
            config: Layer::empty(Origin::LinkConfig),
        };
        self.table().keep(definition, Err(Error::other(why)), None);
    }

    /// Forgets a link, if there is one.
    pub fn delete(&self, component: &str, name: &str) {
        let mut table = self.table();
        let Entry::Occupied(mut of_component) = table.links.entry(component.to_owned()) else {
            return;
        };
        let Entry::Occupied(kept) = of_component.get_mut().entry(name.to_owned()) else {
            return;
        };
        if kept.get().was_overtaken() {
            info!(component, link = name, "the link was replaced, not deleted");
            return;
        }
        kept.remove();
        if of_component.get().is_empty() {
            of_component.remove();
        }
        table.forget_unused();
        let of_link = about_link(component, name);
        table
            .warned
            .retain(|warning| !warning.starts_with(&of_link));
        info!(component, link = name, "link deleted");
    }

    /// Takes new configuration of the provider; the links that use it follow.
    pub fn reconfigure(&self, provider_config: Layer) {
        let mut table = self.table();
        if table.provider_config == provider_config {
            return;
        }
        table.provider_config = provider_config;
        let definitions: Vec<Definition> = table
            .links
            .values()
            .flat_map(HashMap::values)
            .map(|kept| kept.definition.clone())
            .collect();
        for definition in definitions {
            let state = table.state_of(&definition);
            table.keep(definition, state, None);
        }
        table.forget_unused();
    }

    /// Forgets all links, so that their connections close.
    pub fn clear(&self) {
        self.table().links.clear();
    }

    /// The links that have been without their Redis for longer than this, each with its reason;
    /// but for those that do not count for the health.
    pub fn outages(&self, longer_than: Duration) -> Vec<String> {
        let table = self.table();
        let mut outages = Vec::new();
        for kept in table.links.values().flat_map(HashMap::values) {
            let Definition {
                component, name, ..
            } = &kept.definition;
            let Ok(link) = &kept.state else { continue };
            if link.settings().health == Health::Process {
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

    /// Logs each text once in the life of the process.
    pub fn warn_once(&self, warnings: impl IntoIterator<Item = String>) {
        self.table().warn_once(warnings);
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // The table is whole after every statement, also where a panic interrupted one.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// Whether a deletion that comes now is that of the link which this one was put over.
    fn was_overtaken(&self) -> bool {
        let used = self.state.as_ref().is_ok_and(|link| link.has_answered());
        let limit = if used { OVERTAKEN } else { OVERTAKEN_UNUSED };
        self.put_over.is_some_and(|at| at.elapsed() < limit)
    }
}

impl Table {
    fn put(&mut self, definition: Definition) {
        let state = self.state_of(&definition);
        let earlier = self
            .links
            .get(&definition.component)
            .is_some_and(|links| links.contains_key(&definition.name));
        info!(
            component = definition.component,
            link = definition.name,
            redis = state.as_ref().ok().map(|link| link.address()),
            "{}",
            if earlier {
                "link put again"
            } else {
                "link put"
            }
        );
        self.keep(definition, state, earlier.then(Instant::now));
        self.forget_unused();
    }

    /// The link that a definition asks for: the one there is, if nothing changed.
    fn state_of(&mut self, definition: &Definition) -> Result<Arc<Link>, Error> {
        let reading = definition.read(&self.provider_secrets, &self.provider_config);
        self.warn_once(reading.warnings.iter().map(|warning| match warning.origin {
            Origin::LinkSecrets | Origin::LinkConfig => {
                about_link(&definition.component, &definition.name) + &warning.text
            }
            Origin::ProviderSecrets | Origin::ProviderConfig => warning.text.clone(),
        }));
        let settings = reading.settings.map_err(|wrong| {
            error!(
                component = definition.component,
                link = definition.name,
                reason = %wrong,
                "the link cannot work"
            );
            Error::other(wrong)
        })?;
        let present = self
            .links
            .get(&definition.component)
            .and_then(|links| links.get(&definition.name))
            .and_then(|kept| kept.state.as_ref().ok())
            .filter(|link| *link.settings() == settings);
        if let Some(link) = present {
            link.starts_over();
            return Ok(Arc::clone(link));
        }
        let connection = self.connection(definition, &settings);
        Ok(Arc::new(Link::new(settings, connection)))
    }

    /// A connection for these settings: a shared one where that is asked for.
    fn connection(&mut self, definition: &Definition, settings: &Settings) -> Arc<Connection> {
        let target = Target::new(settings);
        let name = format!("kvredis:{}:{}", definition.component, definition.name);
        if !settings.share_connection {
            return Arc::new(Connection::start(target, &name));
        }
        if let Some(connection) = self.shared.get(&target).and_then(Weak::upgrade) {
            return connection;
        }
        let connection = Arc::new(Connection::start(target.clone(), &name));
        self.shared.insert(target, Arc::downgrade(&connection));
        connection
    }

    fn keep(
        &mut self,
        definition: Definition,
        state: Result<Arc<Link>, Error>,
        put_over: Option<Instant>,
    ) {
        self.links
            .entry(definition.component.clone())
            .or_default()
            .insert(
                definition.name.clone(),
                Kept {
                    definition,
                    state,
                    put_over,
                },
            );
    }

    fn forget_unused(&mut self) {
        self.shared
            .retain(|_, connection| connection.strong_count() > 0);
    }

    fn warn_once(&mut self, warnings: impl IntoIterator<Item = String>) {
        for warning in warnings {
            if !self.warned.contains(&warning) {
                warn!(reason = %warning, "a setting deserves a look");
                self.warned.insert(warning);
            }
        }
    }
}

/// What warnings about a link begin with.
fn about_link(component: &str, name: &str) -> String {
    format!("link {name:?} of component {component:?}: ")
}
