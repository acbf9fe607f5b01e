//! Takes calls from NATS and answers them: wRPC in, results out.
//!
//! One subscription takes the calls of all functions. A call is accepted (the handshake), its
//! parameters are read, the room of its interface carries it out, and the result is published.
//! This is the only room that knows the subjects of calls and wRPC's encoding (`wire`, `call`);
//! `rooms` is the way to those that carry calls out, `caller` calls components, `parcels` takes
//! parameters that come in several messages, `budget` counts their bytes.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_nats::header::HeaderName;
use async_nats::{Client, HeaderMap, Message, Subject, Subscriber};
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument as _, warn};

use crate::error::{Error, ErrorKind};
use crate::link::Link;
use crate::link::table::Links;
use crate::settings::ProviderSettings;
use crate::telemetry::calls::CallSpan;
use crate::telemetry::log_throttle::LogThrottle;
use crate::wrpc::budget::{Budget, BudgetError, Reservation};
use crate::wrpc::codec::{DecodeError, Writer};
use crate::wrpc::functions::{Call, Function};
use crate::wrpc::params::{ParamStreams, ParamsError};
use crate::wrpc::{dispatch, functions};

pub(crate) const PROTOCOL: &str = "wrpc.0.0.1";
pub(crate) const COMPONENT: HeaderName = HeaderName::from_static("source-id");
pub(crate) const LINK_NAME: HeaderName = HeaderName::from_static("link-name");
const DEFAULT_LINK: &str = "default";
/// The smallest payload limit that NATS is run with; results within it need no look at the limit.
const MIN_MAX_PAYLOAD: usize = 1024;
/// Where the provider sends itself what is no call, see `drain`.
const DRAIN_MARKER: &str = "kvredis.filler";
/// How long calls under way may take when the provider stops, and how long it takes to say that
/// they took too long.
const DRAIN: Duration = Duration::from_secs(5);
const DRAIN_GRACE: Duration = Duration::from_millis(500);

/// A result, and the bytes that its call holds until it is published.
struct Response {
    result: Writer,
    held: Option<Reservation>,
}

/// The side of the provider that components call.
pub(crate) struct Server {
    pub(crate) calls: Subscriber,
    /// How many messages have come.
    pub(crate) taken: u64,
    pub(crate) filler: Subject,
    pub(crate) under_way: TaskTracker,
    pub(crate) shared: Arc<Shared>,
}

/// What every call needs.
pub(crate) struct Shared {
    pub(crate) nats: Client,
    links: Arc<Links>,
    budget: Budget,
    parcels: ParamStreams,
    nobody: Subject,
    /// Where the function's name begins in a subject.
    function_at: usize,
    /// How long a call may take before the host gives up on it.
    time_limit: Duration,
    /// Ends what is still under way.
    give_up: CancellationToken,
    junk: LogThrottle,
}

impl Server {
    /// Subscribes to the calls of `provider` in `lattice`, together with the other processes of
    /// the same provider. Every call is answered within `time_limit`.
    ///
    /// # Errors
    ///
    /// The NATS client is closed.
    pub(crate) async fn start(
        nats: Client,
        (lattice, provider): (&str, &str),
        links: Arc<Links>,
        settings: &ProviderSettings,
        time_limit: Duration,
    ) -> Result<Self, async_nats::SubscribeError> {
        let parcels = ParamStreams::start(&nats).await?;
        let group = format!("{lattice}.{provider}");
        let prefix = format!("{group}.{PROTOCOL}.");
        let calls = nats.queue_subscribe(format!("{prefix}>"), group).await?;
        let shared = Shared {
            nats,
            links,
            budget: Budget::new(settings.max_bytes_in_flight),
            nobody: parcels.nobody(),
            parcels,
            function_at: prefix.len(),
            time_limit,
            give_up: CancellationToken::new(),
            junk: LogThrottle::default(),
        };
        Ok(Self {
            calls,
            taken: 0,
            filler: Subject::from(prefix + DRAIN_MARKER),
            under_way: TaskTracker::new(),
            shared: Arc::new(shared),
        })
    }

    /// Serves until `stop`; then takes no more calls, and ends when those under way are answered,
    /// at the latest after 5 s.
    pub(crate) async fn run(mut self, stop: impl Future<Output = ()>) {
        let mut stop = pin!(stop);
        loop {
            tokio::select! {
                message = self.calls.next() => match message {
                    Some(message) => self.take(message),
                    None => break,
                },
                () = &mut stop => break,
            }
        }
        if timeout(DRAIN, self.drain()).await.is_err() {
            warn!(limit = ?DRAIN, "stopping with calls under way: they take too long");
            self.shared.give_up.cancel();
            // Without NATS nobody is waiting for the answers either.
            let _ = timeout(DRAIN_GRACE, self.answered()).await;
        }
    }

    pub(crate) fn take(&mut self, message: Message) {
        self.taken += 1;
        if message.subject == self.filler {
            return;
        }
        let shared = Arc::clone(&self.shared);
        // Boxed, because spawning moves the future several times, and it is large.
        let mut call = Box::pin(async move { shared.serve(message).await });
        // What is answered from memory is answered at once, and needs no task of its own.
        if call.as_mut().now_or_never().is_none() {
            self.under_way.spawn(call);
        }
    }
}

impl Shared {
    async fn serve(&self, message: Message) {
        let deadline = Instant::now() + self.time_limit;
        let name = message.subject.get(self.function_at..).unwrap_or_default();
        let Some(function) = Function::named(name) else {
            self.junk("the function is not one of wrpc:keyvalue 0.2.0-draft");
            return;
        };
        let Some(reply) = message.reply else {
            self.junk("there is no reply subject");
            return;
        };
        let headers = message.headers.as_ref();
        let noted = CallSpan::arrived(function.interface(), function.name(), headers);
        let response = self.respond(
            (function, reply),
            (headers, message.payload),
            &noted,
            deadline,
        );
        response.instrument(noted.span()).await;
    }

    async fn respond(
        &self,
        (function, reply): (Function, Subject),
        (headers, first): (Option<&HeaderMap>, Bytes),
        noted: &CallSpan,
        deadline: Instant,
    ) {
        let result = match function.read(&first) {
            Err(DecodeError::Incomplete(missing)) => {
                let gathered = self.gather(&reply, first.len(), missing, deadline);
                match Box::pin(gathered).await {
                    Ok((rest, held)) => {
                        let whole;
                        let call = match function.read_parts(&first, &rest) {
                            Some(call) => Ok(call),
                            None => {
                                whole = [first, rest].concat();
                                function.read(&whole)
                            }
                        };
                        self.carry_out(call, headers, held, (noted, deadline)).await
                    }
                    Err(error) => failed(noted, error),
                }
            }
            call => {
                let result = match self.budget.hold(first.len(), deadline).await {
                    Ok(held) => self.carry_out(call, headers, held, (noted, deadline)).await,
                    Err(why) => failed(noted, no_room(why)),
                };
                // All parameters are here, so that nobody waits for the handshake alone: it goes
                // with the result, which spares everybody a wake-up.
                self.accept(&reply, &self.nobody).await;
                result
            }
        };
        self.answer(&reply, result).await;
    }

    /// The handshake: without it the host fails the call. The host sends the rest of the
    /// parameters to `rest`.
    async fn accept(&self, reply: &Subject, rest: &Subject) {
        // NATS gone means that the caller is gone, too.
        let _ = self
            .nats
            .publish_with_reply(reply.clone(), rest.clone(), Bytes::new())
            .await;
    }

    /// Waits for the rest of parameters of which `first` bytes are here.
    async fn gather(
        &self,
        reply: &Subject,
        first: usize,
        missing: usize,
        deadline: Instant,
    ) -> Result<(Bytes, Reservation), Error> {
        let limit = self.budget.limit();
        let too_large = || {
            let text = format!(
                "the parameters are larger than the {limit} bytes that this provider holds \
                 (MAX_BYTES_IN_FLIGHT)"
            );
            Error::new(ErrorKind::InvalidParameters, text)
        };
        let size = first.saturating_add(missing);
        if size > limit {
            self.accept(reply, &self.nobody).await;
            self.junk("the parameters claim to be larger than MAX_BYTES_IN_FLIGHT");
            return Err(too_large());
        }
        let held = match self.budget.expect(first, missing, deadline).await {
            Ok(held) => held,
            Err(why) => {
                self.accept(reply, &self.nobody).await;
                return Err(no_room(why));
            }
        };
        let (rest, mut expected) = self.parcels.expect(missing, limit - first, held);
        self.accept(reply, &rest).await;
        match expected.complete(deadline).await {
            Ok(complete) => Ok(complete),
            Err(ParamsError::TooLarge) => Err(too_large()),
            Err(ParamsError::Timeout) => {
                self.junk("the rest of the parameters did not come");
                Err(Error::new(
                    ErrorKind::InvalidParameters,
                    "the parameters of the call did not arrive in time",
                ))
            }
        }
    }

    async fn carry_out(
        &self,
        call: Result<Call<'_>, DecodeError>,
        headers: Option<&HeaderMap>,
        held: Reservation,
        (noted, deadline): (&CallSpan, Instant),
    ) -> Response {
        let call = match call {
            Ok(call) => call,
            Err(unreadable) => return failed(noted, self.unreadable(unreadable)),
        };
        let link = match self.link(headers) {
            Ok(link) => link,
            Err(error) => return failed(noted, error),
        };
        let work = pin!(dispatch::carry_out(&link, call, noted, deadline));
        tokio::select! {
            result = work => Response {
                result,
                held: Some(held),
            },
            () = self.give_up.cancelled() => {
                failed(noted, Error::other("the provider is stopping"))
            }
        }
    }

    fn link(&self, headers: Option<&HeaderMap>) -> Result<Arc<Link>, Error> {
        let header = |name: HeaderName| headers.and_then(|headers| headers.get(name));
        let component = header(COMPONENT).map(|id| id.as_str()).ok_or_else(|| {
            Error::other("the call does not say which component it is from (header source-id)")
        })?;
        let name = header(LINK_NAME).map_or(DEFAULT_LINK, |name| name.as_str());
        self.links.find(component, name)
    }

    async fn answer(&self, reply: &Subject, answer: Response) {
        let Response { result, mut held } = answer;
        let results = Subject::from([reply.as_str(), ".results"].concat());
        for mut piece in result.finish() {
            if let Some(held) = &mut held {
                held.grow(piece.len());
            }
            let mut most = MIN_MAX_PAYLOAD;
            while !piece.is_empty() {
                if piece.len() > MIN_MAX_PAYLOAD && most == MIN_MAX_PAYLOAD {
                    most = self.nats.server_info().max_payload.max(MIN_MAX_PAYLOAD);
                }
                let part = piece.split_to(piece.len().min(most));
                if self.nats.publish(results.clone(), part).await.is_err() {
                    return;
                }
            }
        }
        let _ = self.nats.publish(results, Bytes::new()).await;
    }

    fn unreadable(&self, unreadable: DecodeError) -> Error {
        let what = match unreadable {
            DecodeError::Incomplete(_) => "they end too early",
            DecodeError::Invalid(what) => what,
        };
        self.junk(what);
        let text = format!(
            "the parameters are not those of the function in wrpc:keyvalue@0.2.0-draft: {what}"
        );
        Error::new(ErrorKind::InvalidParameters, text)
    }

    fn junk(&self, what: &str) {
        if let Some(messages) = self.junk.record(1) {
            warn!(
                messages,
                reason = what,
                "messages that are no proper calls; the reason is the latest one's"
            );
        }
    }
}

/// The answer to a call that was not carried out.
fn failed(noted: &CallSpan, error: Error) -> Response {
    Response {
        result: dispatch::result(noted, Err(error), functions::unit),
        held: None,
    }
}

fn no_room(why: BudgetError) -> Error {
    let and = match why {
        BudgetError::QueueFull => "as many wait",
        BudgetError::DeadlineExceeded => "the call's time is up",
    };
    let text = format!(
        "the provider holds as many bytes of other calls as it may (MAX_BYTES_IN_FLIGHT), and {and}"
    );
    Error::new(ErrorKind::Overloaded, text)
}
