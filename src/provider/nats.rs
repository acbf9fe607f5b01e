//! The connection to the NATS of the lattice, and its supervision.
//!
//! The client reconnects by itself. But it limits the time for the TCP connection only: an attempt
//! without a greeting, because a network dropped the connection or a server froze, would last
//! forever. [`Nats::stuck`] detects that.

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
/// The time limit of the start; after it the provider exits, and the host restarts it.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest pause between attempts: short, because calls wait.
const MAX_PAUSE: Duration = Duration::from_millis(250);
/// The time limit of a TCP connection. An attempt that began while NATS was unreachable must not
/// delay the next one for long.
const TCP_TIMEOUT: Duration = Duration::from_millis(1_500);
/// The time limit of an attempt at the start, until the greeting.
const START_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(6);
/// The time limit of a reconnection: to resolve a name may take seconds while a network recovers.
const RECONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// `async_nats` disconnects when the fourth ping to a silent server is due.
const PING_INTERVAL: Duration = Duration::from_secs(4);
/// The interval at which [`Nats::stuck`] checks the connection.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// The connection to NATS.
pub(crate) struct Nats {
    pub(crate) client: Client,
    /// The time of the latest connection.
    pub(crate) connected: watch::Receiver<Instant>,
    /// The start of the latest attempt to connect.
    latest_attempt: ConnectAttempt,
}

type ConnectAttempt = Arc<Mutex<Instant>>;

/// Every attempt that fails reports an error of the client.
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
    /// NATS rejects the credentials, or is unreachable for 30 s.
    pub(crate) async fn connect(host_data: &HostData) -> anyhow::Result<Self> {
        let url = Some(host_data.lattice_rpc_url.as_str())
            .filter(|url| !url.is_empty())
            .unwrap_or(DEFAULT_URL);
        let deadline = Instant::now() + START_TIMEOUT;
        let failures = LogThrottle::default();
        loop {
            let latest_attempt = Arc::new(Mutex::new(Instant::now()));
            let (sender, connected) = watch::channel(Instant::now());
            let options = options(host_data, sender, Arc::clone(&latest_attempt))?;
            let error = match timeout(START_ATTEMPT_TIMEOUT, options.connect(url)).await {
                Ok(Ok(client)) => {
                    return Ok(Self {
                        client,
                        connected,
                        latest_attempt,
                    });
                }
                Ok(Err(error)) if is_fatal(error.kind()) => Err(error)?,
                Ok(Err(error)) => anyhow::Error::from(error),
                Err(_) => anyhow::anyhow!("no greeting from the server"),
            };
            if Instant::now() >= deadline {
                return Err(error);
            }
            if let Some(attempts) = failures.record(1) {
                warn!(attempts, reason = %format!("{error:#}"), "cannot connect to NATS yet");
            }
            sleep(MAX_PAUSE).await;
        }
    }

    /// Waits until the client is certain never to reconnect: usually forever.
    pub(crate) async fn stuck(&self) {
        loop {
            sleep(CHECK_INTERVAL).await;
            let started = *self.latest_attempt.lock();
            if self.client.connection_state() == State::Disconnected
                && started.elapsed() > RECONNECT_TIMEOUT
            {
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
    let throttles = Arc::<LogThrottles>::default();
    Ok(options
        .event_callback(move |event| {
            if matches!(event, Event::Connected) {
                connected.send_replace(Instant::now());
            }
            log_event(event, &throttles);
            std::future::ready(())
        })
        .name(format!("kvredis {}", host_data.provider_key))
        .ping_interval(PING_INTERVAL)
        .connection_timeout(TCP_TIMEOUT)
        // The client calls it at the start of every attempt.
        .reconnect_delay_callback(move |attempts| {
            *latest_attempt.lock() = Instant::now();
            pause(attempts)
        }))
}

fn log_event(event: Event, throttles: &LogThrottles) {
    match event {
        Event::Connected => info!("connected to NATS"),
        Event::Disconnected => warn!("lost the connection to NATS; trying again until it works"),
        Event::LameDuckMode => info!("the NATS server is about to stop"),
        Event::SlowConsumer(_) => {
            if let Some(messages) = throttles.slow.record(1) {
                warn!(
                    messages,
                    "messages of NATS were dropped: they arrive faster than they are handled"
                );
            }
        }
        Event::ServerError(error) => {
            if let Some(errors) = throttles.server_errors.record(1) {
                warn!(errors, reason = %error, "the NATS server reports an error");
            }
        }
        Event::ClientError(error) => {
            if let Some(errors) = throttles.client_errors.record(1) {
                warn!(errors, reason = %error, "the NATS client reports an error");
            }
        }
        Event::Draining | Event::Closed => debug!("the connection to NATS is closed"),
    }
}

/// The pause before an attempt: none before the first, for which the start waits; then between half
/// and all of the maximum, so that the providers of a lattice do not reconnect at the same time.
fn pause(attempts: usize) -> Duration {
    if attempts <= 1 {
        Duration::ZERO
    } else {
        MAX_PAUSE.mul_f64(fastrand::f64().mul_add(0.5, 0.5))
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
