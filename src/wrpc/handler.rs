//! Handles one call: the handshake, the parameters, the execution, and the result.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, HeaderMap, Message, Subject, SubscribeError};
use bytes::Bytes;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, warn};

use crate::error::{Error, ErrorKind};
use crate::keyvalue::call::Call;
use crate::keyvalue::dispatch::dispatch;
use crate::link::Link;
use crate::link::table::Links;
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
}

/// The properties of a call besides its parameters.
struct CallContext<'a> {
    reply: &'a Subject,
    headers: Option<&'a HeaderMap>,
    call_span: &'a CallSpan,
    deadline: Instant,
}

/// An encoded result, and the bytes that the call holds until it is published.
struct EncodedResult {
    body: Writer,
    reservation: Option<Reservation>,
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
        })
    }

    /// Ends the calls in progress with an error.
    pub(crate) fn cancel(&self) {
        self.cancel.cancel();
    }

    /// Handles a call; returns when its result is published.
    pub(crate) async fn handle(&self, message: Message) {
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
        };
        let respond = async {
            let result = self.run(function, message.payload, &context).await;
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
                self.execute(call, reservation, context).await
            }
            call => {
                let result = match self.budget.reserve(first.len(), context.deadline).await {
                    Ok(reservation) => self.execute(call, reservation, context).await,
                    Err(error) => failed(context, overloaded(error)),
                };
                // The caller has sent all parameters, so it does not wait for the handshake, which is
                // sent together with the result: a message of its own would cost a wake-up.
                self.accept(context.reply, &self.discard_subject).await;
                result
            }
        }
    }

    /// The handshake, without which the host fails the call. The host sends the rest of the
    /// parameters to `params`.
    async fn accept(&self, reply: &Subject, params: &Subject) {
        // Without a connection to NATS the caller is disconnected as well.
        let _ = self
            .nats
            .publish_with_reply(reply.clone(), params.clone(), Bytes::new())
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
            self.accept(context.reply, &self.discard_subject).await;
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
                self.accept(context.reply, &self.discard_subject).await;
                return Err(overloaded(error));
            }
        };
        let (subject, pending) = self.param_streams.open(missing, limit - first, reservation);
        self.accept(context.reply, &subject).await;
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
        call: Result<Call<'_>, DecodeError>,
        reservation: Reservation,
        context: &CallContext<'_>,
    ) -> EncodedResult {
        let call = match call {
            Ok(call) => call,
            Err(error) => return failed(context, self.malformed_params(error)),
        };
        let link = match self.link(context.headers) {
            Ok(link) => link,
            Err(error) => return failed(context, error),
        };
        let is_write = call.is_write();
        let response = pin!(dispatch(&link, call, context.deadline));
        let result = tokio::select! {
            result = response => result,
            () = self.cancel.cancelled() => {
                let stopping = Error::other("the provider is stopping");
                return failed(context, if is_write { stopping.ambiguous() } else { stopping });
            }
        };
        if let Err(error) = &result {
            context.call_span.record_error(error);
        }
        EncodedResult {
            body: encode_result(result),
            reservation: Some(reservation),
        }
    }

    fn link(&self, headers: Option<&HeaderMap>) -> Result<Arc<Link>, Error> {
        let header = |name| headers.and_then(|headers| headers.get(name));
        let component = header(SOURCE_ID).map(|id| id.as_str()).ok_or_else(|| {
            Error::other("the call does not name its component (header source-id)")
        })?;
        let name = header(LINK_NAME).map_or(DEFAULT_LINK, |name| name.as_str());
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
