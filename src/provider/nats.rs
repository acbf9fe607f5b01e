//! The connection to the NATS of the lattice, and its supervision.
//!
//! The client reconnects by itself. But it limits the time for the TCP connection only: an attempt
//! without a greeting, because a network dropped the connection or a server froze, would last
//! forever. [`Nats::stuck`] detects that.

use std::path::PathBuf;
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
use wasmcloud_provider_sdk::core::tls::{NATIVE_ROOTS, load_certs_from_paths};

use crate::provider::nats_url::{NatsUrl, UrlCredentials};
use crate::telemetry::log_throttle::LogThrottle;

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
        let NatsUrl {
            servers,
            credentials,
        } = NatsUrl::parse(&host_data.lattice_rpc_url)?;
        let tls = tls_config(&host_data.otel_config.additional_ca_paths).await;
        let deadline = Instant::now() + START_TIMEOUT;
        let failures = LogThrottle::default();
        loop {
            let latest_attempt = Arc::new(Mutex::new(Instant::now()));
            let (sender, connected) = watch::channel(Instant::now());
            let mut options = authenticate(host_data, credentials.as_ref())?;
            if let Some(tls) = &tls {
                options = options.tls_client_config(tls.clone());
            }
            let options = supervise(options, host_data, sender, Arc::clone(&latest_attempt));
            let connecting = options.connect(servers.as_slice());
            let error = match timeout(START_ATTEMPT_TIMEOUT, connecting).await {
                Ok(Ok(client)) => {
                    return Ok(Self {
                        client,
                        connected,
                        latest_attempt,
                    });
                }
                Ok(Err(error)) if is_fatal(error.kind()) => {
                    Err(error).context(rejection(host_data, credentials.as_ref()))?
                }
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

/// Names the credentials that NATS has rejected.
fn rejection(host_data: &HostData, credentials: Option<&UrlCredentials>) -> &'static str {
    let has_jwt = !host_data.lattice_rpc_user_jwt.trim().is_empty();
    let has_seed = !host_data.lattice_rpc_user_seed.trim().is_empty();
    match credentials {
        Some(UrlCredentials::Password { .. }) => {
            "NATS rejects the user and password of the URL in the host data"
        }
        Some(UrlCredentials::Token(_)) => "NATS rejects the token of the URL in the host data",
        None if has_jwt => "NATS rejects the JWT and seed of the host data",
        None if has_seed => "NATS rejects the nkey seed of the host data",
        None => {
            "NATS requires credentials, and the host data has none (pass the host a NATS URL with \
             user:password@ or token@, or a JWT and a seed)"
        }
    }
}

/// The options with the credentials of the host data. If there are several, NATS checks those that it
/// requires.
fn authenticate(
    host_data: &HostData,
    credentials: Option<&UrlCredentials>,
) -> anyhow::Result<ConnectOptions> {
    let options = match credentials {
        None => ConnectOptions::new(),
        Some(UrlCredentials::Password { user, password }) => ConnectOptions::new()
            .user_and_password(user.reveal().to_owned(), password.reveal().to_owned()),
        Some(UrlCredentials::Token(token)) => {
            ConnectOptions::new().token(token.reveal().to_owned())
        }
    };
    let jwt = host_data.lattice_rpc_user_jwt.trim();
    let seed = host_data.lattice_rpc_user_seed.trim();
    if jwt.is_empty() && seed.is_empty() {
        return Ok(options);
    }
    let key = nkeys::KeyPair::from_seed(seed)
        .ok()
        .context("the NATS seed in the host data is malformed")?;
    if jwt.is_empty() {
        return Ok(options.nkey(seed.to_owned()));
    }
    let key = Arc::new(key);
    Ok(options.jwt(jwt.to_owned(), move |nonce| {
        let key = Arc::clone(&key);
        async move { key.sign(&nonce).map_err(async_nats::AuthError::new) }
    }))
}

/// Trust in the system's roots and the host's additional certificates. `None` without additional
/// ones: `async_nats` loads the system's roots itself, and only for TLS.
async fn tls_config(additional: &[PathBuf]) -> Option<rustls::ClientConfig> {
    if additional.is_empty() {
        return None;
    }
    let paths = additional.to_vec();
    let loaded = tokio::task::spawn_blocking(move || load_tls_config(&paths));
    let reason = match timeout(START_TIMEOUT, loaded).await {
        Ok(Ok(Ok(config))) => return Some(config),
        Ok(Ok(Err(error))) => format!("{error:#}"),
        Ok(Err(_)) => "reading them failed".to_owned(),
        Err(_) => format!("they could not be read within {START_TIMEOUT:?}"),
    };
    warn!(
        reason,
        "the host's additional certificates are not used for NATS"
    );
    None
}

fn load_tls_config(paths: &[PathBuf]) -> anyhow::Result<rustls::ClientConfig> {
    let additional = load_certs_from_paths(paths)?;
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(NATIVE_ROOTS.iter().chain(&additional).cloned());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

/// The options with the events and limits of the supervision.
fn supervise(
    options: ConnectOptions,
    host_data: &HostData,
    connected: watch::Sender<Instant>,
    latest_attempt: ConnectAttempt,
) -> ConnectOptions {
    let throttles = Arc::<LogThrottles>::default();
    options
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
        })
}

fn log_event(event: Event, throttles: &LogThrottles) {
    match event {
        Event::Connected => info!("connected to NATS"),
        Event::Disconnected => warn!("lost the connection to NATS; reconnecting"),
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
