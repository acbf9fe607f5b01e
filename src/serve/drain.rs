//! The end of serving: no more calls are taken, none that is on its way is forgotten, and those under
//! way are answered.
//!
//! How long all that may take is for `serve`.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::time::{Instant, timeout};

use super::Server;

/// How many calls are still taken when the provider stops: more than may be on their way.
const IN_TRANSIT: u64 = 256;
/// The pause between calls, and the time, after which it no longer waits for so many.
const LULL: Duration = Duration::from_millis(10);
const LONGEST_TRANSIT: Duration = Duration::from_secs(1);

impl Server {
    /// Takes no more calls, and waits until those under way are answered.
    pub(super) async fn drain(&mut self) {
        if self.end_by_count().await.is_ok() && self.unsubscribe().await.is_ok() {
            while let Some(message) = self.calls.next().await {
                self.take(message);
            }
        }
        self.answered().await;
    }

    /// Lets the subscription end after a number of calls. When it is ended otherwise, the client
    /// forgets the calls that the server sent before it knew; with a number, both end at the same
    /// call. Where so many do not come, hardly one is on its way.
    async fn end_by_count(&mut self) -> Result<(), async_nats::Error> {
        self.calls
            .unsubscribe_after(self.taken + IN_TRANSIT)
            .await?;
        let give_up = Instant::now() + LONGEST_TRANSIT;
        while Instant::now() < give_up
            && let Ok(Some(message)) = timeout(LULL, self.calls.next()).await
        {
            self.take(message);
        }
        Ok(())
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

    pub(super) async fn answered(&self) {
        self.under_way.close();
        self.under_way.wait().await;
        let _ = self.shared.nats.flush().await;
    }
}
