//! Links that were put while the provider was starting.
//!
//! A host tells a new process of the links there are, and later of each link that is put. One that
//! is put in between, after the host data was written and before the process listens, reaches
//! nobody, and no host puts it again. So a call over a link that nobody told of, soon after the
//! start, is worth the question whether the lattice has that link. If so the process ends, and the
//! host starts it anew with all links, secrets included. Over a link from the provider nobody calls:
//! hosts are asked for those soon after the start.

use std::future::pending;
use std::time::Duration;

use async_nats::{Client, Request};
use serde::Deserialize;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::debug;

use crate::links::Links;
use crate::watcher::Watchers;

/// How long after the start a link may have been missed: components may take that long to call.
const SOON: Duration = Duration::from_secs(120);
/// How long hosts may take to answer.
const ANSWER: Duration = Duration::from_secs(1);

/// The pause between two questions: calls without a link may be many.
const BETWEEN: Duration = Duration::from_millis(250);

/// How long after the start hosts are asked for watching links, and once more for a missed one.
const SETTLED: Duration = Duration::from_secs(2);

/// A host's answer, as far as it is of interest.
#[derive(Deserialize)]
struct Answer {
    response: Option<Vec<Link>>,
}

#[derive(Deserialize)]
struct Link {
    source_id: String,
    target: String,
    name: String,
    #[serde(default)]
    interfaces: Vec<String>,
}

/// Waits until it is sure that a link to `provider` was missed; answers whose. Usually for ever.
pub async fn link(nats: &Client, lattice: &str, provider: &str, links: &Links) -> (String, String) {
    let until = Instant::now() + SOON;
    while let Ok((component, name)) = timeout_at(until, links.unknown()).await {
        let known = known_links(nats, lattice).await;
        let missed = known.iter().any(|link| {
            link.target == provider && link.source_id == component && link.name == name
        });
        // It may have arrived while the hosts were asked.
        if missed && links.find(&component, &name).is_err() {
            return (component, name);
        }
        sleep(BETWEEN).await;
    }
    pending().await
}

/// Finds out whether a link from `provider` to a component that watches was missed; answers whose.
/// Usually for ever.
pub async fn watching_link(
    nats: &Client,
    lattice: &str,
    provider: &str,
    watchers: &Watchers,
) -> (String, String) {
    let mut suspected = Vec::new();
    for _ in 0..2 {
        sleep(SETTLED).await;
        let mut missed: Vec<(String, String)> = known_links(nats, lattice)
            .await
            .into_iter()
            .filter(|link| link.source_id == provider)
            .filter(|link| link.interfaces.iter().any(|name| name == super::WATCHER))
            .map(|link| (link.target, link.name))
            .filter(|(component, name)| !watchers.has(component, name))
            .collect();
        // One that is just being put or deleted is not missing twice.
        if let Some(at) = missed.iter().position(|link| suspected.contains(link)) {
            return missed.swap_remove(at);
        }
        suspected = missed;
    }
    pending().await
}

/// The links of the lattice, as any of its hosts knows them; none if no host answers.
async fn known_links(nats: &Client, lattice: &str) -> Vec<Link> {
    let subject = format!("wasmbus.ctl.v1.{lattice}.link.get");
    let request = Request::new().timeout(Some(ANSWER));
    match nats.send_request(subject, request).await {
        Ok(answer) => serde_json::from_slice::<Answer>(&answer.payload)
            .ok()
            .and_then(|answer| answer.response)
            .unwrap_or_default(),
        Err(error) => {
            debug!(%error, "no host says which links there are");
            Vec::new()
        }
    }
}
