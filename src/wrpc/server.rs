//! Serves calls of components: subscribes to them, runs each, and drains them when the provider stops.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, Message, SubscribeError};
use futures_util::FutureExt as _;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tracing::warn;

use crate::link::table::Links;
use crate::settings::provider_settings::ProviderSettings;
use crate::wrpc::call_subscription::CallSubscription;
use crate::wrpc::handler::CallHandler;
use crate::wrpc::protocol::PROTOCOL;

/// The time limit for calls in progress when the provider stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// The time limit for publishing the errors of calls that took longer.
const DRAIN_GRACE: Duration = Duration::from_millis(500);

pub(crate) struct Server {
    nats: Client,
    calls: CallSubscription,
    tasks: TaskTracker,
    handler: Arc<CallHandler>,
}

impl Server {
    /// Subscribes to the calls of `provider` in `lattice`, together with the other processes of
    /// the same provider. A call has a result within `call_timeout`.
    ///
    /// # Errors
    ///
    /// The NATS client is closed.
    pub(crate) async fn start(
        nats: Client,
        (lattice, provider): (&str, &str),
        links: Arc<Links>,
        settings: &ProviderSettings,
        call_timeout: Duration,
    ) -> Result<Self, SubscribeError> {
        let group = format!("{lattice}.{provider}");
        let prefix = format!("{group}.{PROTOCOL}.");
        let handler = CallHandler::start(
            nats.clone(),
            links,
            settings.max_bytes_in_flight,
            prefix.len(),
            call_timeout,
        )
        .await?;
        Ok(Self {
            calls: CallSubscription::start(&nats, &prefix, group).await?,
            nats,
            tasks: TaskTracker::new(),
            handler: Arc::new(handler),
        })
    }

    /// Serves until `stop`; then accepts no further calls, and returns when those in progress have
    /// results, or after 5 s.
    pub(crate) async fn run(mut self, stop: impl Future<Output = ()>) {
        let mut stop = pin!(stop);
        loop {
            tokio::select! {
                message = self.calls.next() => match message {
                    Some(message) => accept_call(&self.handler, &self.tasks, message),
                    None => break,
                },
                () = &mut stop => break,
            }
        }
        if timeout(DRAIN_TIMEOUT, self.drain()).await.is_err() {
            warn!(limit = ?DRAIN_TIMEOUT, "stopping with calls in progress, which are cancelled");
            self.handler.cancel();
            // Without a connection to NATS the callers are disconnected as well.
            let _ = timeout(DRAIN_GRACE, self.wait_idle()).await;
        }
    }

    async fn drain(&mut self) {
        let (handler, tasks) = (&self.handler, &self.tasks);
        self.calls
            .drain(|message| accept_call(handler, tasks, message))
            .await;
        self.wait_idle().await;
    }

    async fn wait_idle(&self) {
        self.tasks.close();
        self.tasks.wait().await;
        let _ = self.nats.flush().await;
    }
}

fn accept_call(handler: &Arc<CallHandler>, tasks: &TaskTracker, message: Message) {
    let handler = Arc::clone(handler);
    // Boxed, because spawning moves the future several times, and it is large.
    let mut call = Box::pin(async move { handler.handle(message).await });
    // A call that is served from memory completes at the first poll and needs no task.
    if call.as_mut().now_or_never().is_none() {
        tasks.spawn(call);
    }
}
