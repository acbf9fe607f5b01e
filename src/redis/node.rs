//! The connection to one server that mends itself, and the attempts of a request to get its
//! answer there.
//!
//! `supervisor` keeps it up, `line` is one established connection. Which server a request belongs
//! to, and where to go when that changes, is for `connection` and `cluster`.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::cache::read_through::Cache;
use crate::error::{Error, ErrorKind};
use crate::redis::command::RetryPolicy;
use crate::redis::connect_error::Outage;
use crate::redis::limiter::Admission;
use crate::redis::options::ConnectOptions;
use crate::redis::resolve::ServerSelector;
use crate::redis::session::Session;
use crate::redis::supervisor;
use crate::redis::supervisor::ConnectionState;
use crate::task::AbortOnDrop;

/// A connection that its supervisor keeps up as long as somebody holds it.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) address: String,
    state: watch::Receiver<ConnectionState>,
    _supervisor: AbortOnDrop,
}

impl Node {
    /// Starts connecting in the background. `name` is what Redis shows for it (`CLIENT LIST`),
    /// `address` what logs and errors do.
    pub(crate) fn start(
        target: ConnectOptions,
        place: ServerSelector,
        address: String,
        name: &str,
        cache: Option<&Arc<Cache>>,
    ) -> Self {
        let cache = cache.map(Arc::clone);
        let (state, supervisor) = supervisor::start(target, place, address.clone(), name, cache);
        Self {
            address,
            state,
            _supervisor: supervisor,
        }
    }

    /// Since when and why there is no connection; `None` while there is one.
    pub(crate) fn outage(&self) -> Option<Outage> {
        self.state.borrow().outage(&self.address)
    }

    /// The established connection, if there is one.
    pub(crate) fn session(&self) -> Option<Arc<Session>> {
        self.state.borrow().line()
    }

    /// Whether somebody has to act before there can be a connection.
    pub(crate) fn is_refused(&self) -> bool {
        self.state.borrow().is_refused()
    }

    /// The established connection, waiting for it if need be.
    ///
    /// # Errors
    ///
    /// Why there is none, too late or without hope.
    pub(crate) async fn line(
        &self,
        caller: Admission<'_>,
        patience: RetryPolicy,
    ) -> Result<Arc<Session>, Error> {
        if let Some(line) = self.session() {
            return Ok(line);
        }
        let _waiting = caller.wait()?;
        let mut state = self.state.clone();
        let limit = if state.borrow().is_unresponsive() {
            patience
                .deadline
                .min(Instant::now() + patience.response_timeout)
        } else {
            patience.deadline
        };
        let settled = state.wait_for(|state| state.line().is_some() || state.is_refused());
        match timeout_at(limit, settled).await {
            Ok(Ok(state)) => {
                if let Some(line) = state.line() {
                    return Ok(line);
                }
            }
            Ok(Err(_)) => return Err(Error::other("the link was deleted during the call")),
            Err(_) => {}
        }
        Err(self.outage().map_or_else(
            || {
                let text = format!(
                    "cannot reach {}: the connection came too late",
                    self.address
                );
                Error::new(ErrorKind::Unreachable, text)
            },
            |outage| outage.failure,
        ))
    }
}
