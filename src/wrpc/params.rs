//! Parameters that exceed the first message of a call and follow in further messages.
//!
//! A parameter stream ends with an empty message. A stream that never ends is dropped with its call.

use std::mem;
use std::time::Duration;

use async_nats::{Client, Message, Subject, SubscribeError};
use bytes::{Bytes, BytesMut};
use tokio::time::{Instant, timeout_at};

use crate::wrpc::budget::Reservation;
use crate::wrpc::inbox::{Conversation, Inbox, Registration};

/// Longest pause between two messages. A host sends the rest at once, so that a longer one means
/// that the caller is gone.
const MAX_PAUSE: Duration = Duration::from_secs(2);
/// Limit for memory that is reserved before the bytes arrive, whatever size the caller announces.
const MAX_RESERVED: usize = 64 * 1024;

/// The parameter streams of all calls.
#[derive(Debug)]
pub(crate) struct ParamStreams(Inbox<ParamStream>);

/// The parameter stream of one call, until it is dropped.
#[derive(Debug)]
pub(crate) struct PendingParams(Registration<ParamStream>);

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ParamsError {
    /// More bytes arrived than one call may have.
    TooLarge,
    /// The end did not arrive before the deadline, or the caller paused for too long.
    Timeout,
}

#[derive(Debug)]
enum ParamStream {
    Receiving {
        bytes: BytesMut,
        limit: usize,
        reservation: Reservation,
        last_received: Instant,
    },
    Complete(Bytes, Reservation),
    TooLarge,
    /// The call has taken its parameters.
    Taken,
}

impl ParamStreams {
    /// # Errors
    ///
    /// The NATS client is closed.
    pub(crate) async fn start(nats: &Client) -> Result<Self, SubscribeError> {
        Inbox::subscribe(nats).await.map(Self)
    }

    /// Opens a stream for at least `missing` and at most `limit` bytes. The caller has to be sent
    /// the subject.
    pub(crate) fn open(
        &self,
        missing: usize,
        limit: usize,
        reservation: Reservation,
    ) -> (Subject, PendingParams) {
        let (subject, registration) = self.0.register(ParamStream::Receiving {
            bytes: BytesMut::with_capacity(missing.min(MAX_RESERVED)),
            limit,
            reservation,
            last_received: Instant::now(),
        });
        (subject, PendingParams(registration))
    }
}

impl PendingParams {
    /// Waits for the end of the stream.
    ///
    /// # Errors
    ///
    /// See [`ParamsError`].
    pub(crate) async fn complete(
        &self,
        deadline: Instant,
    ) -> Result<(Bytes, Reservation), ParamsError> {
        loop {
            let limit = deadline.min(self.pause_limit());
            match timeout_at(limit, self.0.wait_for(ParamStream::take)).await {
                Ok(params) => return params,
                Err(_) if limit < deadline && self.pause_limit() > limit => {}
                Err(_) => return Err(ParamsError::Timeout),
            }
        }
    }

    fn pause_limit(&self) -> Instant {
        let last_received = match &*self.0.state() {
            ParamStream::Receiving { last_received, .. } => *last_received,
            _ => Instant::now(),
        };
        last_received + MAX_PAUSE
    }
}

impl ParamStream {
    /// The parameters, if the stream has ended.
    fn take(&mut self) -> Option<Result<(Bytes, Reservation), ParamsError>> {
        match mem::replace(self, Self::Taken) {
            Self::Complete(bytes, reservation) => Some(Ok((bytes, reservation))),
            Self::TooLarge => Some(Err(ParamsError::TooLarge)),
            receiving_or_taken => {
                *self = receiving_or_taken;
                None
            }
        }
    }
}

impl Conversation for ParamStream {
    fn receive(&mut self, suffix: &str, message: Message) -> bool {
        let Self::Receiving {
            bytes,
            limit,
            reservation,
            last_received,
        } = self
        else {
            return false;
        };
        let payload = message.payload;
        if suffix != "params" {
            return false;
        }
        if payload.len() > limit.saturating_sub(bytes.len()) {
            *self = Self::TooLarge;
            return true;
        }
        if !payload.is_empty() {
            *last_received = Instant::now();
            reservation.grow(payload.len());
            bytes.extend_from_slice(&payload);
            return false;
        }
        if let Self::Receiving {
            bytes, reservation, ..
        } = mem::replace(self, Self::Taken)
        {
            *self = Self::Complete(bytes.freeze(), reservation);
        }
        true
    }
}
