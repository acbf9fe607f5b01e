//! The connection to the NATS of the lattice: how it is made, and made again.
//!
//! The client reconnects by itself. It limits the time for the TCP connection only: an attempt that
//! gets no greeting, because a network forgot the connection or a server froze, would last for ever.
//! `stuck` notices that. What is said over the connection is for others.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use async_nats::connection::State;
use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};
use wasmcloud_provider_sdk::HostData;

use crate::telemetry::log_throttle::LogThrottle;

const DEFAULT_URL: &str = "nats://127.0.0.1:4222";
/// How long the first connection is tried for; then the host may start the provider anew.
const FIRST_CONNECT: Duration = Duration::from_secs(30);
/// The longest pause between attempts: callers wait for their end.
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
/// How long making a TCP connection may take. An attempt that began while NATS was unreachable
/// must not hold up the next one for long once it is back.
const TCP_CONNECT: Duration = Duration::from_millis(1_500);
/// How long the first attempt may take as a whole.
const ATTEMPT: Duration = Duration::from_secs(6);
/// How long later attempts may take: looking up a name may take seconds when a whole network is
/// coming back.
const STUCK: Duration = Duration::from_secs(15);
/// A server that falls silent is given up when the fourth of these is due.
const PING: Duration = Duration::from_secs(4);
/// How often the connection is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// The connection, and when the latest attempt to make it began.
pub(crate) struct Nats {
    /// The client.
    pub(crate) client: Client,
    /// When it connected the last time.
    pub(crate) connected: watch::Receiver<Instant>,
    latest_attempt: ConnectAttempt,
}

type ConnectAttempt = Arc<Mutex<Instant>>;

/// For what comes again and again: each attempt that fails is an error of the client.
#[derive(Default)]
struct LogThrottles {
    slow: LogThrottle,
    server_errors: LogThrottle,
    client_errors: LogThrottle,
}

impl Nats {
    /// Connects as the host data says.
    ///
    /// # Errors
    ///
    /// NATS does not take these credentials, or cannot be reached for 30 s.
    pub(crate) async fn connect(host_data: &HostData) -> anyhow::Result<Self> {
        let url = Some(host_data.lattice_rpc_url.as_str())
            .filter(|url| !url.is_empty())
            .unwrap_or(DEFAULT_URL);
        let give_up = Instant::now() + FIRST_CONNECT;
        let failures = LogThrottle::default();
        loop {
            let latest_attempt = Arc::new(Mutex::new(Instant::now()));
            let (sender, connected) = watch::channel(Instant::now());
            let options = options(host_data, sender, Arc::clone(&latest_attempt))?;
            let error = match timeout(ATTEMPT, options.connect(url)).await {
                Ok(Ok(client)) => {
                    return Ok(Self {
                        client,
                        connected,
                        latest_attempt,
                    });
                }
                Ok(Err(error)) if is_fatal(error.kind()) => Err(error)?,
                Ok(Err(error)) => anyhow::Error::from(error),
                Err(_) => anyhow::anyhow!("it does not answer"),
            };
            if Instant::now() >= give_up {
                return Err(error);
            }
            if let Some(attempts) = failures.record(1) {
                warn!(attempts, reason = %format!("{error:#}"), "cannot connect to NATS yet");
            }
            sleep(LONGEST_PAUSE).await;
        }
    }

    /// Waits until the client is sure never to connect again. Usually for ever.
    pub(crate) async fn stuck(&self) {
        loop {
            sleep(LOOK).await;
            let began = *self.latest_attempt.lock();
            if self.client.connection_state() == State::Disconnected && began.elapsed() > STUCK {
                return;
            }
        }
    }
}

fn is_fatal(error: ConnectErrorKind) -> bool {
    matches!(
        error,
        ConnectErrorKind::ServerParse
            | ConnectErrorKind::Authentication
            | ConnectErrorKind::AuthorizationViolation
    )
}

fn options(
    host_data: &HostData,
    connected: watch::Sender<Instant>,
    latest_attempt: ConnectAttempt,
) -> anyhow::Result<ConnectOptions> {
    let jwt = host_data.lattice_rpc_user_jwt.trim();
    let seed = host_data.lattice_rpc_user_seed.trim();
    let options = if jwt.is_empty() && seed.is_empty() {
        ConnectOptions::new()
    } else {
        let key = nkeys::KeyPair::from_seed(seed)
            .ok()
            .context("the NATS seed in the host data is malformed")?;
        let key = Arc::new(key);
        ConnectOptions::with_jwt(jwt.to_owned(), move |nonce| {
            let key = Arc::clone(&key);
            async move { key.sign(&nonce).map_err(async_nats::AuthError::new) }
        })
    };
    let brakes = Arc::<LogThrottles>::default();
    Ok(options
        .event_callback(move |event| {
            if matches!(event, Event::Connected) {
                connected.send_replace(Instant::now());
            }
            tell(event, &brakes);
            std::future::ready(())
        })
        .name(format!("kvredis {}", host_data.provider_key))
        .ping_interval(PING)
        .connection_timeout(TCP_CONNECT)
        // It is asked at the beginning of every attempt.
        .reconnect_delay_callback(move |attempts| {
            *latest_attempt.lock() = Instant::now();
            pause(attempts)
        }))
}

/// Has in the log what happens to the connection.
fn tell(event: Event, brakes: &LogThrottles) {
    match event {
        Event::Connected => info!("connected to NATS"),
        Event::Disconnected => warn!("lost the connection to NATS; trying again until it works"),
        Event::LameDuckMode => info!("the NATS server is about to stop"),
        Event::SlowConsumer(_) => {
            if let Some(messages) = brakes.slow.record(1) {
                warn!(
                    messages,
                    "NATS sends more than is taken: messages were dropped"
                );
            }
        }
        Event::ServerError(error) => {
            if let Some(errors) = brakes.server_errors.record(1) {
                warn!(errors, reason = %error, "the NATS server reports an error");
            }
        }
        Event::ClientError(error) => {
            if let Some(errors) = brakes.client_errors.record(1) {
                warn!(errors, reason = %error, "the NATS client reports an error");
            }
        }
        Event::Draining | Event::Closed => debug!("the connection to NATS is closed"),
    }
}

/// None before the first attempt: a start waits for it. Then between half and all of what is
/// allowed, so that the providers of a lattice do not come back in step.
fn pause(attempts: usize) -> Duration {
    if attempts <= 1 {
        Duration::ZERO
    } else {
        LONGEST_PAUSE.mul_f64(fastrand::f64().mul_add(0.5, 0.5))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_short_and_jittered() {
        assert_eq!(pause(1), Duration::ZERO);
        for attempts in 2..100 {
            let pause = pause(attempts).as_millis();
            assert!((125..=250).contains(&pause), "{pause} ms");
        }
    }
}
