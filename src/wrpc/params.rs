//! Parameters that did not fit into the first message of a call, and come in more of them.
//!
//! One subscription takes the rest of all such calls, told apart by a token in the subject: a call
//! needs no subscription of its own. A parcel ends with an empty message; one that never ends is
//! forgotten with its call.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, Message, Subject, Subscriber};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::task::AbortOnDrop;
use crate::wrpc::budget::Reservation;

/// How long a caller may pause. A host sends the rest at once; who does not has gone.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How much is reserved before it is there.
const MOST_RESERVED: usize = 64 * 1024;

/// Where the rest of parameters arrives.
#[derive(Debug)]
pub(crate) struct ParamStreams {
    inbox: String,
    table: Arc<Mutex<ParamTable>>,
    _router: AbortOnDrop,
}

#[derive(Debug, Default)]
struct ParamTable {
    next_token: u64,
    open: HashMap<u64, ParamChunk>,
}

#[derive(Debug)]
struct ParamChunk {
    bytes: BytesMut,
    limit: usize,
    held: Reservation,
    latest: Instant,
    complete: oneshot::Sender<Result<(Bytes, Reservation), ParamsError>>,
}

/// Why the rest of the parameters is not there.
#[derive(Debug)]
pub(crate) enum ParamsError {
    /// They became more than one call may have.
    TooLarge,
    /// They did not come.
    Timeout,
}

/// Parameters on their way; forgotten when dropped.
#[derive(Debug)]
pub(crate) struct PendingParams {
    token: u64,
    table: Arc<Mutex<ParamTable>>,
    complete: oneshot::Receiver<Result<(Bytes, Reservation), ParamsError>>,
}

impl ParamStreams {
    /// Subscribes to an inbox of its own.
    ///
    /// # Errors
    ///
    /// The NATS client is closed.
    pub(crate) async fn start(nats: &Client) -> Result<Self, async_nats::SubscribeError> {
        let inbox = nats.new_inbox();
        let rest = nats.subscribe(format!("{inbox}.*.params")).await?;
        let table = Arc::new(Mutex::new(ParamTable::default()));
        Ok(Self {
            _router: AbortOnDrop::spawn(route(rest, inbox.len() + 1, Arc::clone(&table))),
            inbox,
            table,
        })
    }

    /// Expects the rest of parameters, of which at least `missing` bytes are to come. The sender
    /// is to be told the subject; what it sends there may make up to `limit` bytes.
    pub(crate) fn expect(
        &self,
        missing: usize,
        limit: usize,
        held: Reservation,
    ) -> (Subject, PendingParams) {
        let (sender, complete) = oneshot::channel();
        let mut table = lock(&self.table);
        let token = table.next_token;
        table.next_token += 1;
        table.open.insert(
            token,
            ParamChunk {
                // A claim is only a claim: more than this is reserved as it comes.
                bytes: BytesMut::with_capacity(missing.min(MOST_RESERVED)),
                limit,
                held,
                latest: Instant::now(),
                complete: sender,
            },
        );
        let expected = PendingParams {
            token,
            table: Arc::clone(&self.table),
            complete,
        };
        (Subject::from(format!("{}.{token}", self.inbox)), expected)
    }

    /// A subject for senders who have nothing more to send: nobody listens there.
    pub(crate) fn nobody(&self) -> Subject {
        Subject::from(format!("{}.all.here", self.inbox))
    }
}

impl PendingParams {
    /// Waits for the end of the parameters.
    ///
    /// # Errors
    ///
    /// It does not come.
    pub(crate) async fn complete(
        &mut self,
        deadline: Instant,
    ) -> Result<(Bytes, Reservation), ParamsError> {
        loop {
            let limit = deadline.min(self.latest() + LONGEST_PAUSE);
            match timeout_at(limit, &mut self.complete).await {
                Ok(complete) => return complete.unwrap_or(Err(ParamsError::Timeout)),
                Err(_) if limit < deadline && self.latest() + LONGEST_PAUSE > limit => {}
                Err(_) => return Err(ParamsError::Timeout),
            }
        }
    }

    /// When the latest message of the parcel came.
    fn latest(&self) -> Instant {
        let table = lock(&self.table);
        let parcel = table.open.get(&self.token);
        parcel.map_or_else(Instant::now, |parcel| parcel.latest)
    }
}

impl Drop for PendingParams {
    fn drop(&mut self) {
        lock(&self.table).open.remove(&self.token);
    }
}

/// Hands every message to its parcel; `token_at` is where the token begins in the subject.
async fn route(mut rest: Subscriber, token_at: usize, table: Arc<Mutex<ParamTable>>) {
    while let Some(message) = rest.next().await {
        let token = message
            .subject
            .get(token_at..)
            .and_then(|tail| tail.strip_suffix(".params"))
            .and_then(|token| token.parse().ok());
        if let Some(token) = token {
            lock(&table).add(token, &message);
        }
    }
}

impl ParamTable {
    fn add(&mut self, token: u64, message: &Message) {
        let Some(parcel) = self.open.get_mut(&token) else {
            return;
        };
        let outcome = if message.payload.is_empty() {
            Ok(())
        } else if parcel.bytes.len() + message.payload.len() > parcel.limit {
            Err(ParamsError::TooLarge)
        } else {
            parcel.latest = Instant::now();
            parcel.held.grow(message.payload.len());
            parcel.bytes.extend_from_slice(&message.payload);
            return;
        };
        if let Some(parcel) = self.open.remove(&token) {
            let complete = outcome.map(|()| (parcel.bytes.freeze(), parcel.held));
            // The call may have been given up in the meantime.
            let _ = parcel.complete.send(complete);
        }
    }
}

fn lock(table: &Mutex<ParamTable>) -> MutexGuard<'_, ParamTable> {
    table.lock()
}
