//! Handles one call: the handshake, the parameters, the execution, and the result.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::header::HeaderName;
use async_nats::{Client, HeaderMap, Message, Subject, SubscribeError};
use bytes::Bytes;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, error, warn};

use crate::error::{Error, ErrorKind};
use crate::fault_injection::panic_at;
use crate::keyvalue::call::Call;
use crate::keyvalue::dispatch::dispatch;
use crate::link::Link;
use crate::link::table::Links;
use crate::tasks::{Panicked, catch_panic};
use crate::telemetry::calls::CallSpan;
use crate::telemetry::log_throttle::LogThrottle;
use crate::wrpc::budget::{Budget, BudgetError, Reservation};
use crate::wrpc::codec::{DecodeError, Writer};
use crate::wrpc::functions::{Function, encode_result};
use crate::wrpc::params::{ParamStreams, ParamsError};
use crate::wrpc::protocol::{HeaderCarrier, LINK_NAME, SOURCE_ID, publish_stream};

const DEFAULT_LINK: &str = "default";

/// The dependencies of every call.
pub(crate) struct CallHandler {
    nats: Client,
    links: Arc<Links>,
    budget: Budget,
    param_streams: ParamStreams,
    /// The subject for further parameters where none are expected; it has no subscription.
    discard_subject: Subject,
    /// The offset of the function's name in a subject.
    function_offset: usize,
    call_timeout: Duration,
    cancel: CancellationToken,
    malformed: LogThrottle,
    panics: LogThrottle,
}

/// The properties of a call besides its parameters.
struct CallContext<'a> {
    reply: &'a Subject,
    headers: Option<&'a HeaderMap>,
    call_span: &'a CallSpan,
    deadline: Instant,
    /// True once the handshake is published.
    is_accepted: AtomicBool,
}

/// An encoded result, and the bytes that the call holds until it is published.
struct EncodedResult {
    body: Writer,
    reservation: Option<Reservation>,
}

impl CallContext<'_> {
    fn header(&self, name: HeaderName) -> Option<&str> {
        Some(self.headers?.get(name)?.as_str())
    }

    fn component(&self) -> Option<&str> {
        self.header(SOURCE_ID)
    }
}

impl CallHandler {
    /// # Errors
    ///
    /// The NATS client is closed.
    pub(crate) async fn start(
        nats: Client,
        links: Arc<Links>,
        max_bytes_in_flight: usize,
        function_offset: usize,
        call_timeout: Duration,
    ) -> Result<Self, SubscribeError> {
        Ok(Self {
            param_streams: ParamStreams::start(&nats).await?,
            discard_subject: nats.new_inbox().into(),
            nats,
            links,
            budget: Budget::new(max_bytes_in_flight),
            function_offset,
            call_timeout,
            cancel: CancellationToken::new(),
            malformed: LogThrottle::default(),
            panics: LogThrottle::default(),
        })
    }

    /// Ends the calls in progress with an error.
    pub(crate) fn cancel(&self) {
        self.cancel.cancel();
    }

    /// Handles a call; returns when its result is published. A panic concerns this call only.
    pub(crate) async fn handle(&self, message: Message) {
        // `respond` handles the panics that leave a result to publish.
        if catch_panic(self.respond(message)).await.is_err() {
            self.log_panic("unknown");
        }
    }

    async fn respond(&self, message: Message) {
        let deadline = Instant::now() + self.call_timeout;
        let name = message.subject.get(self.function_offset..);
        let Some(function) = name.and_then(Function::named) else {
            self.warn_malformed("the function is not one of wrpc:keyvalue 0.2.0-draft");
            return;
        };
        let Some(reply) = &message.reply else {
            self.warn_malformed("the reply subject is missing");
            return;
        };
        let headers = message.headers.as_ref();
        let call_span = CallSpan::server(
            function.interface(),
            function.name(),
            headers.map(HeaderCarrier).as_ref(),
        );
        let context = CallContext {
            reply,
            headers,
            call_span: &call_span,
            deadline,
            is_accepted: AtomicBool::new(false),
        };
        let respond = async {
            let result = match catch_panic(self.run(function, message.payload, &context)).await {
                Ok(result) => result,
                Err(Panicked) => self.panicked(function, &context).await,
            };
            self.publish_result(reply, result).await;
        };
        respond.instrument(call_span.span()).await;
    }

    async fn run(
        &self,
        function: Function,
        first: Bytes,
        context: &CallContext<'_>,
    ) -> EncodedResult {
        match function.decode(&first) {
            Err(DecodeError::Incomplete(missing)) => {
                // Boxed: few calls need it, and it would make the future of all calls larger.
                let params = Box::pin(self.receive_params(first.len(), missing, context)).await;
                let (rest, reservation) = match params {
                    Ok(params) => params,
                    Err(error) => return failed(context, error),
                };
                let whole;
                let call = match function.decode_split(&first, &rest) {
                    Some(call) => Ok(call),
                    None => {
                        whole = [first, rest].concat();
                        function.decode(&whole)
                    }
                };
                self.execute(function, call, reservation, context).await
            }
            call => {
                let result = match self.budget.reserve(first.len(), context.deadline).await {
                    Ok(reservation) => self.execute(function, call, reservation, context).await,
                    Err(error) => failed(context, overloaded(error)),
                };
                // The caller has sent all parameters, so it does not wait for the handshake:
                // together with the result it costs no wake-up of its own.
                self.accept(context, &self.discard_subject).await;
                result
            }
        }
    }

    /// The handshake, without which the host fails the call. The host sends the rest of the
    /// parameters to `params`.
    async fn accept(&self, context: &CallContext<'_>, params: &Subject) {
        context.is_accepted.store(true, Ordering::Relaxed);
        // Without a connection to NATS the caller is disconnected as well.
        let _ = self
            .nats
            .publish_with_reply(context.reply.clone(), params.clone(), Bytes::new())
            .await;
    }

    /// Receives the rest of parameters of which `first` bytes have arrived.
    async fn receive_params(
        &self,
        first: usize,
        missing: usize,
        context: &CallContext<'_>,
    ) -> Result<(Bytes, Reservation), Error> {
        let limit = self.budget.limit();
        let too_large = || {
            let text = format!(
                "the parameters are larger than the {limit} bytes that this provider holds \
                 (MAX_BYTES_IN_FLIGHT)"
            );
            Error::new(ErrorKind::InvalidParameters, text)
        };
        if first.saturating_add(missing) > limit {
            self.accept(context, &self.discard_subject).await;
            self.warn_malformed("the parameters claim to be larger than MAX_BYTES_IN_FLIGHT");
            return Err(too_large());
        }
        let reserved = self
            .budget
            .reserve_announced(first, missing, context.deadline)
            .await;
        let reservation = match reserved {
            Ok(reservation) => reservation,
            Err(error) => {
                self.accept(context, &self.discard_subject).await;
                return Err(overloaded(error));
            }
        };
        let (subject, pending) = self.param_streams.open(missing, limit - first, reservation);
        self.accept(context, &subject).await;
        pending
            .complete(context.deadline)
            .await
            .map_err(|error| match error {
                ParamsError::TooLarge => too_large(),
                ParamsError::Timeout => {
                    self.warn_malformed("the rest of the parameters did not arrive");
                    Error::new(
                        ErrorKind::InvalidParameters,
                        "the parameters of the call did not arrive in time",
                    )
                }
            })
    }

    async fn execute(
        &self,
        function: Function,
        call: Result<Call<'_>, DecodeError>,
        reservation: Reservation,
        context: &CallContext<'_>,
    ) -> EncodedResult {
        let call = match call {
            Ok(call) => call,
            Err(error) => return failed(context, self.malformed_params(error)),
        };
        let link = match self.link(context) {
            Ok(link) => link,
            Err(error) => return failed(context, error),
        };
        let is_write = function.is_write();
        let component = context.component().unwrap_or_default();
        panic_at("call", component);
        let response = pin!(dispatch(&link, call, context.deadline));
        let result = tokio::select! {
            result = response => result,
            () = self.cancel.cancelled() => {
                let stopping = Error::other("the provider is stopping");
                return failed(context, if is_write { stopping.ambiguous() } else { stopping });
            }
        };
        panic_at("result", component);
        if let Err(error) = &result {
            context.call_span.record_error(error);
        }
        EncodedResult {
            body: encode_result(result),
            reservation: Some(reservation),
        }
    }

    /// The result of a call that panicked.
    async fn panicked(&self, function: Function, context: &CallContext<'_>) -> EncodedResult {
        self.log_panic(function.name());
        if !context.is_accepted.load(Ordering::Relaxed) {
            self.accept(context, &self.discard_subject).await;
        }
        let error = Error::other("a fault of kvredis ended the call; its log has the location");
        failed(
            context,
            if function.is_write() {
                error.ambiguous()
            } else {
                error
            },
        )
    }

    fn log_panic(&self, function: &str) {
        if let Some(calls) = self.panics.record(1) {
            error!(
                function,
                calls, "calls ended by a fault of kvredis (most recent function shown)"
            );
        }
    }

    fn link(&self, context: &CallContext<'_>) -> Result<Arc<Link>, Error> {
        let component = context.component().ok_or_else(|| {
            Error::other("the call does not name its component (header source-id)")
        })?;
        let name = context.header(LINK_NAME).unwrap_or(DEFAULT_LINK);
        self.links.find(component, name)
    }

    async fn publish_result(&self, reply: &Subject, result: EncodedResult) {
        let EncodedResult {
            body,
            mut reservation,
        } = result;
        let subject = Subject::from([reply.as_str(), ".results"].concat());
        let pieces = body.finish().inspect(|piece| {
            if let Some(reservation) = &mut reservation {
                reservation.grow(piece.len());
            }
        });
        // Without a connection to NATS the caller is disconnected as well.
        let _ = publish_stream(&self.nats, subject, pieces).await;
    }

    fn malformed_params(&self, error: DecodeError) -> Error {
        let reason = match error {
            DecodeError::Incomplete(_) => "they end too early",
            DecodeError::Invalid(reason) => reason,
        };
        self.warn_malformed(reason);
        let text = format!(
            "the parameters are not those of the function in wrpc:keyvalue@0.2.0-draft: {reason}"
        );
        Error::new(ErrorKind::InvalidParameters, text)
    }

    fn warn_malformed(&self, reason: &str) {
        if let Some(messages) = self.malformed.record(1) {
            warn!(
                messages,
                reason, "malformed calls ignored (most recent reason shown)"
            );
        }
    }
}

/// The result of a call that was not executed; it holds no bytes.
fn failed(context: &CallContext<'_>, error: Error) -> EncodedResult {
    context.call_span.record_error(&error);
    EncodedResult {
        body: encode_result(Err(error)),
        reservation: None,
    }
}

fn overloaded(error: BudgetError) -> Error {
    let reason = match error {
        BudgetError::QueueFull => "the queue is full",
        BudgetError::DeadlineExceeded => "timed out in the queue",
    };
    let text =
        format!("the memory for in-flight calls is exhausted (MAX_BYTES_IN_FLIGHT): {reason}");
    Error::new(ErrorKind::Overloaded, text)
}
