//! One watching link: its subscription, its delivery and its lease.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::link::Link;
use crate::link::keyspace::Bucket;
use crate::redis::connection::Connection;
use crate::redis::options::ConnectOptions;
use crate::redis::pubsub::listener::Listener;
use crate::redis::pubsub::node_subscription::SubscriptionSpec;
use crate::redis::pubsub::subscription::Subscription;
use crate::settings::error::SettingError;
use crate::settings::link_settings::{HealthPolicy, Settings};
use crate::settings::watch::WatchPattern;
use crate::tasks;
use crate::telemetry::log_throttle::LogThrottle;
use crate::telemetry::watching;
use crate::telemetry::watching::Loss;
use crate::watcher::delivery::Delivery;
use crate::watcher::election::{Election, flush};
use crate::watcher::glob;
use crate::watcher::keyspace_event::ChangeKind;
use crate::watcher::lease::Lease;
use crate::watcher::listener::KeyspaceListener;
use crate::watcher::queue::{Change, LANES, MAX_CHANGES, Queue};
use crate::wrpc::client::ComponentClient;

/// The time limit for a successor to subscribe, while the replaced link still listens.
const OVERLAP_LIMIT: Duration = Duration::from_secs(10);
/// The interval of checks whether a link is subscribed, or its deliveries have ended.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// A running watching link. If it is dropped, and not stopped, its queued changes count as lost, and its
/// lease expires.
pub(crate) struct Watch {
    link: Arc<Link>,
    subscription: Arc<Subscription>,
    listener: Arc<KeyspaceListener>,
    backlog: Backlog,
    /// Takes over from a replaced link, and then takes part in the election.
    task: Option<AbortOnDropHandle<()>>,
    has_taken_over: Arc<AtomicBool>,
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
        replaced: Option<Self>,
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
            lease,
            losses: LogThrottle::default(),
            absences: LogThrottle::default(),
        });
        let prefix = channel_prefix(settings);
        let listener = Arc::new(KeyspaceListener::new(
            prefix,
            watched,
            Arc::clone(&delivery),
        ));
        watching::register();
        let subscription = Arc::new(Subscription::start(
            publishers,
            options,
            &client_name,
            spec,
            Arc::clone(&listener) as Arc<dyn Listener>,
        ));
        let backlog = Backlog::start(Arc::clone(&delivery));
        let mut watch = Self {
            link,
            subscription,
            listener,
            backlog,
            task: None,
            has_taken_over: Arc::default(),
        };
        watch.task = Some(watch.spawn_task(replaced));
        Ok(watch)
    }

    /// Spawns the task that opens the queue.
    fn spawn_task(&self, replaced: Option<Self>) -> AbortOnDropHandle<()> {
        let successor = Successor {
            delivery: Arc::clone(&self.backlog.delivery),
            subscription: Arc::clone(&self.subscription),
            listener: Arc::clone(&self.listener),
        };
        let has_taken_over = Arc::clone(&self.has_taken_over);
        tasks::spawn("takeover of a watching link", async move {
            if let Some(replaced) = replaced {
                replaced.hand_over(&successor).await;
            }
            has_taken_over.store(true, Ordering::Release);
            let Successor {
                delivery,
                subscription,
                ..
            } = successor;
            let Some(lease) = delivery.lease.clone() else {
                delivery.queue.open();
                return;
            };
            let election = Election {
                lease,
                delivery,
                subscription,
            };
            // Held by this task, and aborted with it.
            let election = tasks::spawn_essential("lease", async move { election.run().await });
            let _ = election.await;
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
            let lease = self.backlog.delivery.lease.as_ref();
            let error = lease.and_then(|lease| lease.error());
            issues.extend(error.map(|error| format!("the lease cannot be acquired: {error}")));
        }
        issues
    }

    /// Ends the delivery: calls in progress may complete within `limit`. The other changes are left to the
    /// process that takes over the lease, or count as lost.
    pub(crate) async fn stop(self, loss: Loss, limit: Duration) {
        let Self {
            subscription,
            backlog,
            task,
            ..
        } = self;
        let delivery = Arc::clone(&backlog.delivery);
        flush(&subscription, &delivery).await;
        delivery.queue.close();
        let _ = timeout(limit, backlog.wait_idle()).await;
        drop((subscription, task));
        let mut is_taken_over = false;
        if let Some(lease) = &delivery.lease {
            // The deletion reaches all processes.
            let inheritable = loss == Loss::Stopped;
            let behind = delivery.queue.behind(inheritable);
            let released = lease.release(behind, delivery.queue.behind(false)).await;
            is_taken_over = inheritable && released;
        }
        if is_taken_over {
            drop(delivery.queue.take_all());
        }
        backlog.discard(loss);
    }

    /// Hands the queued changes to a successor that still watches their keys, once that is subscribed.
    async fn hand_over(self, successor: &Successor) {
        let Self {
            link,
            subscription,
            backlog,
            task,
            has_taken_over,
            ..
        } = self;
        while !has_taken_over.load(Ordering::Acquire) {
            sleep(POLL_INTERVAL).await;
        }
        let delivery = Arc::clone(&backlog.delivery);
        let new = &successor.delivery;
        let is_same_server = is_same_database(link.settings(), new.link.settings());
        if is_same_server {
            // Its election, and what it takes over itself, continue meanwhile.
            let subscribed = async {
                while successor.subscription.complete_since().is_none() {
                    sleep(POLL_INTERVAL).await;
                }
            };
            if timeout(OVERLAP_LIMIT, subscribed).await.is_ok() {
                flush(&subscription, &delivery).await;
            } else {
                successor.listener.on_gap(&link.address(), OVERLAP_LIMIT);
            }
        }
        drop(subscription);
        delivery.queue.close();
        backlog.wait_idle().await;
        drop(task);
        if let Some(lease) = &delivery.lease {
            match &new.lease {
                Some(inheritor) if is_same_server && inheritor.key() == lease.key() => {
                    inheritor.inherit(lease);
                }
                _ => {
                    let behind = delivery.queue.behind(false);
                    lease.release(behind, behind).await;
                }
            }
        }
        let mut kept = Vec::new();
        let mut lost = 0;
        for change in delivery.queue.take_all() {
            match successor.watched(&link, change) {
                Some(change) if is_same_server => kept.push(change),
                _ => lost += 1,
            }
        }
        new.queue.prepend(kept);
        let reason = "they were queued when the link was replaced by one that does not watch them";
        // Another process that has the lease delivers its own.
        if delivery.is_active() {
            delivery.record_loss(lost, Loss::Replaced, reason);
        }
    }
}

/// The parts of a new link that a replaced one hands over to.
struct Successor {
    delivery: Arc<Delivery>,
    subscription: Arc<Subscription>,
    listener: Arc<KeyspaceListener>,
}

impl Successor {
    /// A change of a replaced link as this one reports it, or `None` if the key is not watched.
    fn watched(&self, replaced: &Link, change: Change) -> Option<Change> {
        let (old, link) = (replaced.settings(), &self.delivery.link);
        let settings = link.settings();
        let old_bucket = replaced.bucket(&old.watch_bucket).ok()?;
        let bucket = link.bucket(&settings.watch_bucket).ok()?;
        let redis_key = old_bucket.redis_key(change.key_text());
        let key = bucket.key_of(&redis_key)?;
        let is_watched = settings.watch.iter().any(|watched| {
            let is_wanted = match change.kind {
                ChangeKind::Set => watched.on_set,
                ChangeKind::Deleted => watched.on_delete,
            };
            is_wanted && glob::matches(watched.pattern.as_bytes(), key.as_bytes())
        });
        let key = key.to_owned();
        is_watched.then(|| Change {
            key: change.key.map(|_| key.clone()).map_err(|_| key),
            ..change
        })
    }
}

/// The queue of a link with the tasks that deliver it. The changes left when it is dropped count as lost.
struct Backlog {
    delivery: Arc<Delivery>,
    lanes: Vec<AbortOnDropHandle<()>>,
    loss: Loss,
}

impl Backlog {
    fn start(delivery: Arc<Delivery>) -> Self {
        let lanes = (0..LANES).map(|lane| {
            let delivery = Arc::clone(&delivery);
            let queue_of = Arc::clone(&delivery);
            tasks::spawn_watched(
                "delivery",
                async move { delivery.run(lane).await },
                move || queue_of.queue.is_closed(),
            )
        });
        Self {
            lanes: lanes.collect(),
            delivery,
            loss: Loss::Replaced,
        }
    }

    /// Waits until no change is being delivered, after the queue was closed.
    async fn wait_idle(&self) {
        while !self.lanes.iter().all(AbortOnDropHandle::is_finished) {
            sleep(POLL_INTERVAL).await;
        }
    }

    /// Counts what is left as lost.
    fn discard(mut self, loss: Loss) {
        self.loss = loss;
    }
}

impl Drop for Backlog {
    fn drop(&mut self) {
        self.lanes.clear();
        self.delivery.queue.close();
        // The holder of the lease counts, and another process delivers, what waits here.
        if self.delivery.is_active() {
            let reason = match self.loss {
                Loss::Deleted => "they were queued when the link was deleted",
                Loss::Stopped => "they were queued when the process stopped",
                _ => "they were queued when the link was replaced",
            };
            let left = self.delivery.queue.take_all().len();
            self.delivery.record_loss(left, self.loss, reason);
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

/// Returns true if a key of one link can be the same key of the other.
fn is_same_database(one: &Settings, other: &Settings) -> bool {
    one.address.server == other.address.server && one.address.database == other.address.database
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
