//! Links that were put without this process hearing of it.
//!
//! A host tells a new process of the links there are, and later of each link that is put. One that
//! is put after the host data was written and before the process listens, or while NATS is out of
//! reach, reaches nobody, and no host puts it again. So a call over a link that nobody told of, soon
//! after the start or after NATS came back, is worth the question whether the lattice has that link.
//! If so the process ends, and the host starts it anew with all links, secrets included; how often
//! for a link is for `ended_for`. Over a link from the provider nobody calls: hosts are asked for
//! those each time.

use std::future::pending;
use std::time::Duration;

use async_nats::{Client, Request, RequestErrorKind};
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::{debug, error};

use crate::link::registry::LinkDirection;
use crate::link::table::Links;
use crate::provider::restart_history;
use crate::provider::restart_history::RestartHistory;
use crate::watcher::Watchers;

/// For how long a link may be noticed to be missed: components may take that long to call.
const SOON: Duration = Duration::from_secs(120);
/// How long hosts may take to answer.
const ANSWER: Duration = Duration::from_secs(1);
/// The pause between two questions: calls without a link may be many.
const BETWEEN: Duration = Duration::from_millis(250);
/// What is just being put or deleted is so no longer after this time.
const SETTLED: Duration = Duration::from_secs(2);
/// How long nothing is asked when nothing came back: each word puts off the pings by which the client
/// finds out that NATS is gone.
const SILENCE: Duration = Duration::from_secs(20);

/// What calls are answered when a new start has not helped.
const LEFT_OUT: &str = "the lattice has this link, but the host does not pass it on to kvredis, also \
     not at a new start; its log says why (\"failed to resolve link config\"): most likely it \
     cannot fetch the configuration or the secrets that the link names";

/// What is needed to find such links.
#[derive(Clone)]
pub(crate) struct MissedLinkDetector<'a> {
    /// The way to the hosts.
    pub(crate) nats: Client,
    /// The lattice.
    pub(crate) lattice: &'a str,
    /// The id of this provider.
    pub(crate) provider: &'a str,
    /// When NATS was there again, or for the first time.
    pub(crate) connected: watch::Receiver<Instant>,
    /// The links that are not worth another end.
    pub(crate) ended_for: &'a RestartHistory,
}

/// A host's answer, as far as it is of interest.
#[derive(Deserialize)]
struct KnownLinksReply {
    response: Option<Vec<MissedLink>>,
}

#[derive(Deserialize)]
struct MissedLink {
    source_id: String,
    target: String,
    name: String,
    #[serde(default)]
    interfaces: Vec<String>,
}

/// Why it is not known which links there are.
enum NoReply {
    /// No host that answers is connected to NATS.
    NoHost,
    /// Nothing came back: NATS may be gone.
    Silence,
}

impl MissedLinkDetector<'_> {
    /// Waits for a link to this provider that was missed and is worth an end; answers its component
    /// and name. Usually for ever.
    pub(crate) async fn link(self, links: &Links) -> (String, String) {
        loop {
            let (component, name) = links.unknown().await;
            let may_be_missed = if links.is_undelivered(&component, &name) {
                self.ended_for
                    .may_restart((LinkDirection::FromComponent, &component, &name))
            } else {
                self.connected.borrow().elapsed() < SOON
            };
            if may_be_missed && self.is_missed(links, &component, &name).await {
                if self.is_worth_an_end((LinkDirection::FromComponent, &component, &name)) {
                    return (component, name);
                }
                links.mark_undelivered(&component, &name, LEFT_OUT);
            }
            sleep(BETWEEN).await;
        }
    }

    /// The same for a link from this provider to a component that watches.
    pub(crate) async fn watching_link(mut self, watchers: &Watchers) -> (String, String) {
        loop {
            self.connected.borrow_and_update();
            let mut suspected = Vec::new();
            let mut answers = 0;
            // Hosts may be back at NATS later than this.
            while answers < 2 && self.connected.borrow().elapsed() < SOON {
                sleep(SETTLED).await;
                let known = match self.known_links().await {
                    Ok(known) => known,
                    Err(NoReply::NoHost) => continue,
                    Err(NoReply::Silence) => {
                        sleep(SILENCE).await;
                        continue;
                    }
                };
                answers += 1;
                let missed = self.missed_of(known, watchers);
                for (component, name) in missed.iter().filter(|link| suspected.contains(*link)) {
                    if self.is_worth_an_end((LinkDirection::ToComponent, component, name)) {
                        return (component.clone(), name.clone());
                    }
                    watchers.mark_undelivered(component, name, LEFT_OUT);
                }
                suspected = missed;
            }
            if self.connected.changed().await.is_err() {
                return pending().await;
            }
        }
    }

    async fn is_missed(&self, links: &Links, component: &str, name: &str) -> bool {
        for look in 0..2 {
            if look > 0 {
                sleep(SETTLED).await;
            }
            let known = self.known_links().await.unwrap_or_default();
            let listed = known.iter().any(|link| {
                link.target == self.provider && link.source_id == component && link.name == name
            });
            // It may have arrived while the hosts were asked.
            if !listed || links.has(component, name) && !links.is_undelivered(component, name) {
                return false;
            }
        }
        true
    }

    fn missed_of(&self, known: Vec<MissedLink>, watchers: &Watchers) -> Vec<(String, String)> {
        known
            .into_iter()
            .filter(|link| link.source_id == self.provider)
            .filter(|link| link.interfaces.iter().any(|name| name == super::WATCHER))
            .map(|link| (link.target, link.name))
            .filter(|(component, name)| !watchers.has(component, name))
            .collect()
    }

    fn is_worth_an_end(&self, link: restart_history::LinkId<'_>) -> bool {
        let ended_for = self.ended_for;
        let worth = ended_for.may_restart(link) && ended_for.note(link);
        if !worth {
            let (_, component, name) = link;
            error!(component, link = name, "the host does not pass on a link");
        }
        worth
    }

    /// The links of the lattice, as any of its hosts knows them.
    async fn known_links(&self) -> Result<Vec<MissedLink>, NoReply> {
        let subject = format!("wasmbus.ctl.v1.{}.link.get", self.lattice);
        let request = Request::new().timeout(Some(ANSWER));
        match self.nats.send_request(subject, request).await {
            Ok(answer) => serde_json::from_slice::<KnownLinksReply>(&answer.payload)
                .ok()
                .and_then(|answer| answer.response)
                .ok_or(NoReply::NoHost),
            Err(error) => {
                debug!(%error, "no host says which links there are");
                Err(match error.kind() {
                    RequestErrorKind::NoResponders => NoReply::NoHost,
                    _ => NoReply::Silence,
                })
            }
        }
    }
}
