//! The reconnecting connection to one server, as calls see it: the current session, the wait for one,
//! and the error while there is none.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use crate::cache::read_through::Cache;
use crate::error::{Error, ErrorKind};
use crate::redis::command::RetryPolicy;
use crate::redis::connect_error::Outage;
use crate::redis::connector::Connector;
use crate::redis::handshake::client_name;
use crate::redis::limiter::Admission;
use crate::redis::options::ConnectOptions;
use crate::redis::selector::ServerSelector;
use crate::redis::session::Session;
use crate::redis::supervisor;
use crate::redis::supervisor::ConnectionState;
use crate::settings::address::Endpoint;

/// A connection that reconnects until this is dropped.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) address: String,
    /// Of a node of a cluster.
    pub(crate) endpoint: Option<Endpoint>,
    state: watch::Receiver<ConnectionState>,
    _supervisor: AbortOnDropHandle<()>,
}

impl Node {
    /// Starts connecting in the background. `name` is shown in `CLIENT LIST`, `address` in logs and
    /// errors.
    pub(crate) fn start(
        options: ConnectOptions,
        selector: ServerSelector,
        address: String,
        name: &str,
        cache: Option<&Arc<Cache>>,
    ) -> Self {
        let endpoint = selector.endpoint().cloned();
        let connector = Connector {
            options,
            selector,
            client_name: client_name(name),
            cache: cache.map(Arc::clone),
        };
        let (state, supervisor) = supervisor::start(connector, address.clone());
        Self {
            address,
            endpoint,
            state,
            _supervisor: supervisor,
        }
    }

    /// The outage, if there is one at present.
    pub(crate) fn outage(&self) -> Option<Outage> {
        self.state.borrow().outage(&self.address)
    }

    /// The established session, if there is one.
    pub(crate) fn session(&self) -> Option<Arc<Session>> {
        self.state.borrow().session().map(Arc::clone)
    }

    /// Returns true if waiting for a session is useless until an operator acts.
    pub(crate) fn is_refused(&self) -> bool {
        self.state.borrow().is_refused()
    }

    /// The established session. Waits for one if there is none, among the queued calls of the limiter.
    ///
    /// # Errors
    ///
    /// That of the outage, if it is permanent or outlasts the deadline.
    pub(crate) async fn wait_for_session(
        &self,
        admission: Admission<'_>,
        policy: RetryPolicy,
    ) -> Result<Arc<Session>, Error> {
        if let Some(session) = self.session() {
            return Ok(session);
        }
        let _queued = admission.enqueue()?;
        let mut state = self.state.clone();
        let deadline = if state.borrow().is_unresponsive() {
            policy
                .deadline
                .min(Instant::now() + policy.response_timeout)
        } else {
            policy.deadline
        };
        let deadline = deadline.min(policy.wait_deadline());
        let settled = state.wait_for(|state| state.session().is_some() || state.is_refused());
        match timeout_at(deadline, settled).await {
            Ok(Ok(state)) => {
                if let Some(session) = state.session() {
                    return Ok(Arc::clone(session));
                }
            }
            Ok(Err(_)) => return Err(Error::other("the link was deleted during the call")),
            Err(_) => {}
        }
        Err(self.outage().map_or_else(
            || {
                let message = format!(
                    "cannot reach {}: the connection came too late",
                    self.address
                );
                Error::new(ErrorKind::Unreachable, message)
            },
            |outage| outage.error,
        ))
    }
}
