//! Links that were put while the provider was starting.
//!
//! A host tells a new process of the links there are, and later of each link that is put. One that
//! is put in between, after the host data was written and before the process listens, reaches
//! nobody, and no host puts it again. So a call over a link that nobody told of, soon after the
//! start, is worth the question whether the lattice has that link. If so the process ends, and the
//! host starts it anew with all links, secrets included.

use std::future::pending;
use std::time::Duration;

use async_nats::{Client, Request};
use serde::Deserialize;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::debug;

use crate::links::Links;

/// How long after the start a link may have been missed: components may take that long to call.
const SOON: Duration = Duration::from_secs(120);
/// How long hosts may take to answer.
const ANSWER: Duration = Duration::from_secs(1);

/// The pause between two questions: calls without a link may be many.
const BETWEEN: Duration = Duration::from_millis(250);

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
