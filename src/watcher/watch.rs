//! One link that watches: what it subscribes to, and what becomes of what is heard.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tracing::warn;

use crate::link::Link;
use crate::link::keyspace::Bucket;
use crate::redis::connection::Connection;
use crate::redis::options::ConnectOptions;
use crate::redis::pubsub::{Listener, Message, Subscription, SubscriptionSpec};
use crate::settings::error::SettingError;
use crate::settings::link_settings::{HealthPolicy, Settings};
use crate::settings::watch::WatchPattern;
use crate::task::AbortOnDrop;
use crate::telemetry::log_throttle::LogThrottle;
use crate::telemetry::watching;
use crate::telemetry::watching::Loss;
use crate::watcher::delivery::Delivery;
use crate::watcher::keyspace_event::{ChangeKind, PatternDedup};
use crate::watcher::lease::{Lease, is_lease};
use crate::watcher::queue::{Change, LANES, MOST_CHANGES, Queue};
use crate::wrpc::client::ComponentClient;

/// A watching link at work; it ends when dropped.
pub(crate) struct Watch {
    link: Arc<Link>,
    subscription: Subscription,
    lease: Option<Arc<Lease>>,
    tasks: Vec<AbortOnDrop>,
}

/// Hears what Redis tells, and puts what the component is to be told into its queue.
struct KeyspaceListener {
    /// What stands before the key in a channel.
    channel: String,
    /// By the pattern of the channel.
    watched: HashMap<Vec<u8>, WatchPattern>,
    repetitions: Mutex<PatternDedup>,
    interruptions: LogThrottle,
    delivery: Arc<Delivery>,
}

impl Watch {
    /// Starts watching, in the background.
    ///
    /// # Errors
    ///
    /// What is wrong with the settings.
    pub(crate) fn start(
        component: &str,
        name: &str,
        settings: Settings,
        caller: Arc<ComponentClient>,
    ) -> Result<Self, SettingError> {
        if settings.watch.is_empty() {
            return Err(SettingError::missing(
                "WATCH",
                "expected SET@key and DEL@key, separated by commas, in the link's configuration",
            ));
        }
        let client = format!("kvredis:{component}:{name}");
        let target = ConnectOptions::new(&settings);
        let connection = Arc::new(Connection::start(target.clone(), &client));
        let places = connection.publishers();
        let link = Arc::new(Link::new(settings, connection));
        let settings = link.settings();
        let bucket = link.bucket(&settings.watch_bucket).map_err(|_| {
            SettingError::conflict(
                format!("WATCH_BUCKET={:?}", settings.watch_bucket),
                "expected the name of a bucket of this link (BUCKETS, BUCKET_LAYOUT)",
            )
        })?;
        let channel_start = channel_start(settings);
        let watched: HashMap<Vec<u8>, WatchPattern> = channel_patterns(settings, &bucket)
            .map(|(pattern, watched)| (pattern.into_bytes(), watched.clone()))
            .collect();
        let wish = SubscriptionSpec {
            patterns: watched
                .keys()
                .map(|pattern| String::from_utf8_lossy(pattern).into_owned())
                .collect(),
            flags: required_flags(&settings.watch),
            may_configure: settings.watch_configure_redis,
        };
        let (lattice, provider) = caller.identity();
        let lease_name = format!("{lattice}:{provider}:{component}:{name}");
        let lease = settings
            .watch_once
            .then(|| Arc::new(Lease::new(Arc::clone(&link), &lease_name)));
        let delivery = Arc::new(Delivery {
            caller,
            component: component.to_owned(),
            name: name.to_owned(),
            link: Arc::clone(&link),
            queue: Queue::new(MOST_CHANGES),
            lease: lease.clone(),
            losses: LogThrottle::default(),
            absences: LogThrottle::default(),
        });
        let mut tasks: Vec<AbortOnDrop> = (0..LANES)
            .map(|lane| {
                let delivery = Arc::clone(&delivery);
                AbortOnDrop::spawn(async move { delivery.run(lane).await })
            })
            .collect();
        if let Some(lease) = lease.clone() {
            let delivery = Arc::clone(&delivery);
            tasks.push(AbortOnDrop::spawn(async move {
                lease.keep(|| delivery.give_up()).await;
            }));
        }
        let ear = Arc::new(KeyspaceListener {
            channel: channel_start,
            watched,
            repetitions: Mutex::default(),
            interruptions: LogThrottle::default(),
            delivery,
        });
        watching::begins();
        let subscription = Subscription::start(places, target, &client, wish, ear);
        Ok(Self {
            link,
            subscription,
            lease,
            tasks,
        })
    }

    /// What was set.
    pub(crate) fn settings(&self) -> &Settings {
        self.link.settings()
    }

    /// The address of its Redis, without credentials.
    pub(crate) fn address(&self) -> String {
        self.link.address()
    }

    /// What keeps the component from being told, with outages only if they last longer.
    pub(crate) fn health_issues(&self, longer_than: Duration) -> Vec<String> {
        if self.settings().health == HealthPolicy::Process {
            return Vec::new();
        }
        let mut health_issues = self.subscription.missing();
        let outages = self.subscription.outages().into_iter();
        // The connection for the values says best what is wrong.
        let outages = self.link.outage().into_iter().chain(outages);
        let lasting = outages.filter(|outage| outage.since.elapsed() > longer_than);
        health_issues.extend(lasting.map(|outage| outage.failure.to_string()).take(1));
        if health_issues.is_empty() {
            let failure = self.lease.as_ref().and_then(|lease| lease.failure());
            health_issues.extend(failure.map(|why| format!("the lease cannot be taken: {why}")));
        }
        health_issues
    }

    /// Tells the component of nothing more, and lets another process do so.
    pub(crate) async fn stop(self) {
        drop(self.subscription);
        drop(self.tasks);
        if let Some(lease) = self.lease {
            lease.release().await;
        }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("link", &self.link)
            .finish_non_exhaustive()
    }
}

impl Listener for KeyspaceListener {
    fn heard(&self, message: Message<'_>) {
        let Some(watched) = self.watched.get(message.pattern) else {
            return;
        };
        let Some(kind) = ChangeKind::of(message.payload) else {
            return;
        };
        let wanted = match kind {
            ChangeKind::Set => watched.on_set,
            ChangeKind::Deleted => watched.on_delete,
        };
        let mut repetitions = self.repetitions.lock();
        let first = repetitions.is_first(message, wanted);
        drop(repetitions);
        if first {
            self.take(kind, message.channel);
        }
    }

    fn missed(&self, address: &str, during: Duration) {
        let mut repetitions = self.repetitions.lock();
        repetitions.start_over();
        drop(repetitions);
        watching::lost(1, Loss::Interrupted);
        let Some(times) = self.interruptions.record(1) else {
            return;
        };
        warn!(
            times,
            component = self.delivery.component,
            link = self.delivery.name,
            redis = address,
            ms = u64::try_from(during.as_millis()).unwrap_or(u64::MAX),
            "watching again after a time without a connection: changes of that time may have been \
             missed"
        );
    }
}

impl KeyspaceListener {
    fn take(&self, kind: ChangeKind, channel: &[u8]) {
        let delivery = &self.delivery;
        if delivery
            .lease
            .as_ref()
            .is_some_and(|lease| !lease.is_held())
        {
            return;
        }
        let Some(redis_key) = channel.strip_prefix(self.channel.as_bytes()) else {
            return;
        };
        let Ok(redis_key) = std::str::from_utf8(redis_key) else {
            delivery.lost(1, Loss::Unnameable, "its key is no UTF-8");
            return;
        };
        if is_lease(redis_key) {
            return;
        }
        let link = &delivery.link;
        let Ok(bucket) = link.bucket(&link.settings().watch_bucket) else {
            return;
        };
        if let Some(key) = bucket.key_of(redis_key) {
            let key = key.to_owned();
            let dropped = delivery.queue.push(Change { key, kind });
            delivery.lost(dropped, Loss::Dropped, "too many wait for the component");
        }
    }
}

/// What stands before the key in a channel.
fn channel_start(settings: &Settings) -> String {
    format!("__keyspace@{}__:", settings.address.database)
}

/// The patterns of the channels to subscribe to, and what is watched there.
pub(crate) fn channel_patterns<'s>(
    settings: &'s Settings,
    bucket: &Bucket<'_>,
) -> impl Iterator<Item = (String, &'s WatchPattern)> {
    let start = channel_start(settings);
    settings.watch.iter().map(move |watched| {
        let pattern = format!("{start}{}", bucket.pattern_of(&watched.pattern));
        (pattern, watched)
    })
}

/// The flags of `notify-keyspace-events` for all commands that set, or delete, a string.
pub(crate) fn required_flags(watched: &[WatchPattern]) -> &'static str {
    let on_set = watched.iter().any(|watched| watched.on_set);
    let on_delete = watched.iter().any(|watched| watched.on_delete);
    match (on_set, on_delete) {
        (true, false) => "K$g",
        (false, true) => "Kgxe",
        _ => "K$gxe",
    }
}
