//! Restarts the provider for a link that the host has put, but whose message did not arrive.
//!
//! A host sends a new process the existing links, and later each link that is put. A link that is
//! put after the host wrote the host data and before the process subscribed, or while NATS is
//! unreachable, is lost, and no host sends it again. Such a link is *suspected* when a call arrives
//! over it, or when a host lists it soon after NATS connected. It is *missed* when a host lists it
//! again after [`SETTLE_TIME`]. Then the process exits, and the host restarts it with all links,
//! secrets included; or, if a restart has not helped, the link is *undelivered*: its calls fail with
//! the reason until the link arrives or another restart is due.

use std::fs::{self, OpenOptions};
use std::future::pending;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use async_nats::{Client, Request, RequestErrorKind};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::{debug, error};
use wasmcloud_provider_sdk::HostData;

use crate::link::registry::LinkDirection;
use crate::link::table::Links;
use crate::watcher::Watchers;

/// The interface of links from the provider to a component.
pub(crate) const WATCHER: &str = "watcher";
/// The time after a connection to NATS within which a link may be suspected: components may take that
/// long to call.
const SUSPECT_WITHIN: Duration = Duration::from_secs(120);
const QUERY_TIMEOUT: Duration = Duration::from_secs(1);
/// The pause between two suspicions: calls without a link may be many.
const PAUSE: Duration = Duration::from_millis(250);
/// A message about a link that a host lists has arrived after this time, if it ever does.
const SETTLE_TIME: Duration = Duration::from_secs(2);
/// The pause after a query without a reply. Each message postpones the pings by which `async_nats`
/// detects that NATS is gone.
const SILENCE: Duration = Duration::from_secs(20);
/// The time from the first restart for a link to the second, from that to the third, and so on. A
/// host omits a link whose configuration or secrets it cannot fetch at every start, and restarts
/// interrupt the other links; but a later fetch may succeed, and hosts do not report that.
const RESTART_GAPS: [Duration; 4] = [
    Duration::from_secs(30),
    Duration::from_secs(2 * 60),
    Duration::from_secs(10 * 60),
    Duration::from_secs(60 * 60),
];

/// The error of calls over an undelivered link.
const UNDELIVERED: &str = "the lattice has this link, but the host does not pass it on to kvredis, \
     not even after a restart; its log gives the reason (\"failed to resolve link config\"): most \
     likely it cannot fetch the configuration or the secrets that the link names";

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct LinkId {
    direction: LinkDirection,
    pub(crate) component: String,
    pub(crate) name: String,
}

/// Detects missed links.
pub(crate) struct MissedLinkDetector<'a> {
    pub(crate) nats: Client,
    pub(crate) lattice: &'a str,
    pub(crate) provider: &'a str,
    /// When NATS connected last.
    pub(crate) connected: watch::Receiver<Instant>,
    pub(crate) history: &'a RestartHistory,
}

/// The restarts for missed links by earlier processes, in a file for temporary files: a process knows
/// nothing else of the one before it. If the file is not writable, the process never restarts for a
/// missed link.
#[derive(Debug)]
pub(crate) struct RestartHistory {
    file: PathBuf,
}

#[derive(Debug, Deserialize, Serialize)]
struct RestartRecord {
    link: LinkId,
    restarts: usize,
    last: SystemTime,
}

/// A host's reply with the links of the lattice.
#[derive(Deserialize)]
struct LinksReply {
    response: Option<Vec<ListedLink>>,
}

#[derive(Deserialize)]
struct ListedLink {
    source_id: String,
    target: String,
    name: String,
    #[serde(default)]
    interfaces: Vec<String>,
}

enum QueryError {
    /// No host is connected to NATS, or it replied with an error.
    NoHost,
    /// No reply arrived: NATS may be gone.
    NoReply,
}

impl LinkId {
    pub(crate) fn new(direction: LinkDirection, component: &str, name: &str) -> Self {
        Self {
            direction,
            component: component.to_owned(),
            name: name.to_owned(),
        }
    }
}

impl MissedLinkDetector<'_> {
    /// Waits for a missed link that is worth a restart: usually forever.
    pub(crate) async fn next(&self, links: &Links, watchers: &Watchers) -> LinkId {
        tokio::select! {
            link = self.next_called(links) => link,
            link = self.next_watching(watchers) => link,
        }
    }

    /// Suspects links over which calls arrive.
    async fn next_called(&self, links: &Links) -> LinkId {
        loop {
            let (component, name) = links.unknown().await;
            let link = LinkId::new(LinkDirection::FromComponent, &component, &name);
            let is_suspected = if links.is_undelivered(&component, &name) {
                self.history.may_restart(&link)
            } else {
                self.has_connected_recently()
            };
            if is_suspected && self.is_missed(links, &link).await {
                if self.restarts_for(&link) {
                    return link;
                }
                links.mark_undelivered(&component, &name, UNDELIVERED);
            }
            sleep(PAUSE).await;
        }
    }

    /// Suspects links to components that watch, over which no calls arrive: hosts are queried after
    /// each connection to NATS.
    async fn next_watching(&self, watchers: &Watchers) -> LinkId {
        let mut connected = self.connected.clone();
        loop {
            connected.mark_unchanged();
            let mut suspects = None;
            // Hosts may connect to NATS later than this process.
            while self.has_connected_recently() {
                sleep(SETTLE_TIME).await;
                let listed = match self.listed_links().await {
                    Ok(listed) => listed,
                    Err(QueryError::NoHost) => continue,
                    Err(QueryError::NoReply) => {
                        sleep(SILENCE).await;
                        continue;
                    }
                };
                let absent = self.absent_watching(listed, watchers);
                let Some(suspects) = suspects.replace(absent.clone()) else {
                    continue;
                };
                for link in absent.into_iter().filter(|link| suspects.contains(link)) {
                    if self.restarts_for(&link) {
                        return link;
                    }
                    watchers.mark_undelivered(&link.component, &link.name, UNDELIVERED);
                }
                break;
            }
            if connected.changed().await.is_err() {
                return pending().await;
            }
        }
    }

    fn has_connected_recently(&self) -> bool {
        self.connected.borrow().elapsed() < SUSPECT_WITHIN
    }

    /// Queries hosts twice, because the message about the link may be in transit.
    async fn is_missed(&self, links: &Links, link: &LinkId) -> bool {
        let (component, name) = (&*link.component, &*link.name);
        for attempt in 0..2 {
            if attempt > 0 {
                sleep(SETTLE_TIME).await;
            }
            let listed = self.listed_links().await.unwrap_or_default();
            let is_listed = listed.iter().any(|listed| {
                listed.target == self.provider
                    && listed.source_id == component
                    && listed.name == name
            });
            let has_arrived = links.has(component, name) && !links.is_undelivered(component, name);
            if !is_listed || has_arrived {
                return false;
            }
        }
        true
    }

    fn absent_watching(&self, listed: Vec<ListedLink>, watchers: &Watchers) -> Vec<LinkId> {
        listed
            .into_iter()
            .filter(|link| link.source_id == self.provider)
            .filter(|link| link.interfaces.iter().any(|name| name == WATCHER))
            .filter(|link| !watchers.has(&link.target, &link.name))
            .map(|link| LinkId::new(LinkDirection::ToComponent, &link.target, &link.name))
            .collect()
    }

    /// Decides about a missed link: a restart, which is recorded, or none.
    fn restarts_for(&self, link: &LinkId) -> bool {
        let restarts = self.history.may_restart(link) && self.history.record_restart(link).is_ok();
        if !restarts {
            error!(
                component = link.component,
                link = link.name,
                "the host does not pass on a link"
            );
        }
        restarts
    }

    /// The links of the lattice as the first host that replies knows them.
    async fn listed_links(&self) -> Result<Vec<ListedLink>, QueryError> {
        let subject = format!("wasmbus.ctl.v1.{}.link.get", self.lattice);
        let request = Request::new().timeout(Some(QUERY_TIMEOUT));
        match self.nats.send_request(subject, request).await {
            Ok(reply) => serde_json::from_slice::<LinksReply>(&reply.payload)
                .ok()
                .and_then(|reply| reply.response)
                .ok_or(QueryError::NoHost),
            Err(error) => {
                debug!(%error, "no host lists the links of the lattice");
                Err(match error.kind() {
                    RequestErrorKind::NoResponders => QueryError::NoHost,
                    _ => QueryError::NoReply,
                })
            }
        }
    }
}

impl RestartHistory {
    /// The history of this provider on this host.
    pub(crate) fn new(folder: &Path, host_data: &HostData) -> Self {
        let mut hasher = DefaultHasher::new();
        let lattice = &host_data.lattice_rpc_prefix;
        (lattice, &host_data.host_id, &host_data.provider_key).hash(&mut hasher);
        Self {
            file: folder.join(format!("kvredis-{:016x}.restarts.json", hasher.finish())),
        }
    }

    fn may_restart(&self, link: &LinkId) -> bool {
        let record = self.read().into_iter().find(|record| record.link == *link);
        record.is_none_or(|record| record.may_restart())
    }

    /// # Errors
    ///
    /// The file cannot be written.
    fn record_restart(&self, link: &LinkId) -> io::Result<()> {
        let mut records = self.read();
        let earlier = records.iter().position(|record| record.link == *link);
        let restarts = earlier.map_or(0, |index| records.remove(index).restarts);
        records.push(RestartRecord {
            link: link.clone(),
            restarts: restarts + 1,
            last: SystemTime::now(),
        });
        self.write(&records)
    }

    /// Removes the record of a link that has arrived.
    pub(crate) fn remove(&self, link: &LinkId) {
        let mut records = self.read();
        let before = records.len();
        records.retain(|record| record.link != *link);
        if records.is_empty() {
            self.clear();
        } else if records.len() < before {
            // If this fails, the link's next restart is due later.
            let _ = self.write(&records);
        }
    }

    /// Removes all records: the host or the operator stops the provider.
    pub(crate) fn clear(&self) {
        // The file exists only after a restart.
        let _ = fs::remove_file(&self.file);
    }

    fn read(&self) -> Vec<RestartRecord> {
        // All users can write to the folder: the path may lead to a pipe, which would block.
        let is_file = fs::symlink_metadata(&self.file).is_ok_and(|found| found.is_file());
        is_file
            .then(|| fs::read(&self.file).ok())
            .flatten()
            .and_then(|json| serde_json::from_slice(&json).ok())
            .unwrap_or_default()
    }

    fn write(&self, records: &[RestartRecord]) -> io::Result<()> {
        // A new file: a symbolic link that another user has put there is not followed.
        self.clear();
        let json = serde_json::to_vec(records)?;
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&self.file)?
            .write_all(&json)
    }
}

impl RestartRecord {
    fn may_restart(&self) -> bool {
        let gap = self.restarts.checked_sub(1);
        let gap = gap.and_then(|index| RESTART_GAPS.get(index));
        // A time in the future, after the clock was set back, is not elapsed.
        gap.is_some_and(|gap| self.last.elapsed().is_ok_and(|elapsed| elapsed > *gap))
    }
}

#[cfg(test)]
mod tests;
