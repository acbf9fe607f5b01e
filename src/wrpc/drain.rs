//! The end of serving: no more calls are taken, none that is on its way is forgotten, and those under
//! way are answered.
//!
//! How long all that may take is for `serve`.

use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::connection::State;
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::time::{Instant, timeout_at};

use crate::wrpc::server::Server;

/// How many calls are still taken when the provider stops: more than may be on their way.
const IN_TRANSIT: u64 = 1024;
/// How often what is missing to that number is sent: other processes of the provider take some.
const FILL: Duration = Duration::from_millis(10);
const LONGEST_TRANSIT: Duration = Duration::from_secs(1);

impl Server {
    /// Takes no more calls, and waits until those under way are answered.
    pub(crate) async fn drain(&mut self) {
        // Without NATS nothing is on its way.
        if self.is_connected()
            && let Ok(false) | Err(_) = self.unsubscribe_after().await
            && self.unsubscribe().await.is_ok()
        {
            while let Some(message) = self.calls.next().await {
                self.take(message);
            }
        }
        self.answered().await;
    }

    /// Lets the subscription end after a number of calls, sends itself what is missing to that
    /// number, and answers whether it has ended. When it is ended otherwise, the client forgets the
    /// calls that the server sent before it knew; with a number, both end at the same call.
    ///
    /// The server counts from the latest connection on, the client from the first one: where these
    /// are two, there is no such call.
    async fn unsubscribe_after(&mut self) -> Result<bool, async_nats::Error> {
        let connections = self.shared.nats.statistics();
        if connections.connects.load(Ordering::Relaxed) > 1 {
            return Ok(false);
        }
        self.calls
            .unsubscribe_after(self.taken + IN_TRANSIT)
            .await?;
        let give_up = Instant::now() + LONGEST_TRANSIT;
        while Instant::now() < give_up && self.is_connected() {
            for _ in 0..IN_TRANSIT {
                let filler = self.filler.clone();
                self.shared.nats.publish(filler, Bytes::new()).await?;
            }
            let next_fill = Instant::now() + FILL;
            while let Ok(message) = timeout_at(next_fill, self.calls.next()).await {
                match message {
                    Some(message) => self.take(message),
                    None => return Ok(true),
                }
            }
        }
        Ok(false)
    }

    /// Ends the subscription. The client hands out what the server had sent only when something
    /// else arrives after it: the echo of a message does.
    async fn unsubscribe(&mut self) -> Result<(), async_nats::Error> {
        let nats = &self.shared.nats;
        let inbox = nats.new_inbox();
        let mut echo = nats.subscribe(inbox.clone()).await?;
        self.calls.drain().await?;
        nats.publish(inbox, Bytes::new()).await?;
        echo.next().await;
        Ok(())
    }

    pub(crate) async fn answered(&self) {
        self.under_way.close();
        self.under_way.wait().await;
        let _ = self.shared.nats.flush().await;
    }

    fn is_connected(&self) -> bool {
        self.shared.nats.connection_state() == State::Connected
    }
}
