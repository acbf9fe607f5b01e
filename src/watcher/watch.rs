//! One watching link: its subscription, its delivery and its lease.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::AbortOnDropHandle;

use crate::link::Link;
use crate::link::keyspace::Bucket;
use crate::redis::connection::Connection;
use crate::redis::options::ConnectOptions;
use crate::redis::pubsub::node_subscription::SubscriptionSpec;
use crate::redis::pubsub::subscription::Subscription;
use crate::settings::error::SettingError;
use crate::settings::link_settings::{HealthPolicy, Settings};
use crate::settings::watch::WatchPattern;
use crate::tasks;
use crate::telemetry::log_throttle::LogThrottle;
use crate::telemetry::watching;
use crate::watcher::delivery::Delivery;
use crate::watcher::lease::Lease;
use crate::watcher::listener::KeyspaceListener;
use crate::watcher::queue::{LANES, MAX_CHANGES, Queue};
use crate::wrpc::client::ComponentClient;

/// A running watching link. It ends when dropped, without releasing its lease.
pub(crate) struct Watch {
    link: Arc<Link>,
    subscription: Subscription,
    lease: Option<Arc<Lease>>,
    tasks: Vec<AbortOnDropHandle<()>>,
}

impl Watch {
    /// Starts watching in the background.
    ///
    /// # Errors
    ///
    /// The settings of the link are not those of a watching link.
    pub(crate) fn start(
        component: &str,
        link_name: &str,
        settings: Settings,
        client: Arc<ComponentClient>,
    ) -> Result<Self, SettingError> {
        if settings.watch.is_empty() {
            return Err(SettingError::missing(
                "WATCH",
                "expected SET@key and DEL@key, separated by commas, in the link's configuration",
            ));
        }
        let client_name = format!("kvredis:{component}:{link_name}");
        let options = ConnectOptions::new(&settings);
        let connection = Arc::new(Connection::start(options.clone(), &client_name));
        let publishers = connection.publishers();
        let link = Arc::new(Link::new(settings, connection));
        let settings = link.settings();
        let bucket = link.bucket(&settings.watch_bucket).map_err(|_| {
            SettingError::conflict(
                format!("WATCH_BUCKET={:?}", settings.watch_bucket),
                "expected the name of a bucket of this link (BUCKETS, BUCKET_LAYOUT)",
            )
        })?;
        let watched: HashMap<Vec<u8>, WatchPattern> = channel_patterns(settings, &bucket)
            .map(|(channels, watched)| (channels.into_bytes(), watched.clone()))
            .collect();
        let spec = SubscriptionSpec {
            patterns: channel_patterns(settings, &bucket)
                .map(|(channels, _)| channels)
                .collect(),
            flags: required_flags(&settings.watch),
            may_configure: settings.watch_configure_redis,
        };
        let (lattice, provider) = client.identity();
        let lease_name = format!("{lattice}:{provider}:{component}:{link_name}");
        let lease = settings
            .watch_once
            .then(|| Arc::new(Lease::new(Arc::clone(&link), &lease_name)));
        let delivery = Arc::new(Delivery {
            client,
            component: component.to_owned(),
            link_name: link_name.to_owned(),
            link: Arc::clone(&link),
            queue: Queue::new(MAX_CHANGES),
            lease: lease.clone(),
            losses: LogThrottle::default(),
            absences: LogThrottle::default(),
        });
        let tasks = spawn_tasks(&delivery, lease.as_ref());
        let prefix = channel_prefix(settings);
        let listener = Arc::new(KeyspaceListener::new(prefix, watched, delivery));
        watching::register();
        let subscription = Subscription::start(publishers, options, &client_name, spec, listener);
        Ok(Self {
            link,
            subscription,
            lease,
            tasks,
        })
    }

    pub(crate) fn settings(&self) -> &Settings {
        self.link.settings()
    }

    /// The address of its Redis, without credentials.
    pub(crate) fn address(&self) -> String {
        self.link.address()
    }

    /// The reasons why the component does not receive changes; outages only if they last longer than
    /// `longer_than`.
    pub(crate) fn health_issues(&self, longer_than: Duration) -> Vec<String> {
        if self.settings().health == HealthPolicy::Process {
            return Vec::new();
        }
        let mut issues = self.subscription.missing_flags();
        let outages = self.subscription.outages().into_iter();
        // One reason suffices, and the connection that reads the values has the best one.
        let outages = self.link.outage().into_iter().chain(outages);
        let lasting = outages.filter(|outage| outage.since.elapsed() > longer_than);
        issues.extend(lasting.map(|outage| outage.error.to_string()).take(1));
        if issues.is_empty() {
            let error = self.lease.as_ref().and_then(|lease| lease.error());
            issues.extend(error.map(|error| format!("the lease cannot be acquired: {error}")));
        }
        issues
    }

    /// Ends the delivery, and releases the lease for another process.
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

/// Spawns the delivery of each lane, and the renewal of the lease.
fn spawn_tasks(delivery: &Arc<Delivery>, lease: Option<&Arc<Lease>>) -> Vec<AbortOnDropHandle<()>> {
    let lanes = (0..LANES).map(|lane| {
        let delivery = Arc::clone(delivery);
        tasks::spawn_essential("delivery", async move { delivery.run(lane).await })
    });
    let renewal = lease.map(|lease| {
        let (lease, delivery) = (Arc::clone(lease), Arc::clone(delivery));
        tasks::spawn_essential("lease", async move {
            lease.run(|| delivery.drop_queue()).await;
        })
    });
    lanes.chain(renewal).collect()
}

/// The part of a channel's name before the key.
fn channel_prefix(settings: &Settings) -> String {
    format!("__keyspace@{}__:", settings.address.database)
}

/// The patterns of the channels to subscribe to, each with the pattern of keys that it watches.
pub(crate) fn channel_patterns<'s>(
    settings: &'s Settings,
    bucket: &Bucket<'_>,
) -> impl Iterator<Item = (String, &'s WatchPattern)> {
    let prefix = channel_prefix(settings);
    settings.watch.iter().map(move |watched| {
        let channels = format!("{prefix}{}", bucket.pattern_of(&watched.pattern));
        (channels, watched)
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
