//! Opens the byte stream to one server: TCP or a Unix socket, with TLS or without.
//!
//! What is said over it is for `line`, which server it is to be for `place`, whom TLS trusts for
//! `tls`.

pub(crate) mod tls;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use std::{fmt, io};

use redis::Value;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::time::timeout;

use crate::error;
use crate::redis::connect_error::{ConnectError, ConnectErrorKind};
use crate::redis::server_error;
use crate::settings::address::Endpoint;
use crate::settings::tls::Tls;

/// How long a silent peer is trusted before the kernel asks, how often it asks, and when it gives
/// the connection up.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(15);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 3;
/// How long sent bytes may stay unacknowledged.
const TCP_USER_TIMEOUT_LIMIT: Duration = Duration::from_secs(30);

/// How long a server that closes connections is listened to, and how much.
const UNASKED: Duration = Duration::from_millis(200);
const LONGEST_REFUSAL: u64 = 4096;

/// Where one server listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ServerAddr {
    /// On a port.
    Tcp(Endpoint),
    /// On a Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for ServerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(endpoint) => write!(f, "{endpoint}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Bytes in both directions.
pub(crate) trait AsyncStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> AsyncStream for T {}

/// Connects, and with TLS settings secures the connection.
///
/// # Errors
///
/// Why there is no connection, without secrets.
pub(crate) async fn dial(
    site: &ServerAddr,
    tls: Option<&Tls>,
) -> Result<Box<dyn AsyncStream>, ConnectError> {
    match site {
        ServerAddr::Unix(path) => {
            let stream = UnixStream::connect(path).await.map_err(unreachable)?;
            Ok(Box::new(stream))
        }
        ServerAddr::Tcp(endpoint) => {
            let stream = connect(endpoint).await?;
            let Some(tls) = tls else {
                return Ok(Box::new(stream));
            };
            let mut stream = tls::secure(stream, &endpoint.host, tls).await?;
            preflight_ping(&mut stream).await?;
            Ok(Box::new(stream))
        }
    }
}

/// Connects to a port, and does no more.
///
/// # Errors
///
/// Why there is no connection.
pub(crate) async fn connect(endpoint: &Endpoint) -> Result<TcpStream, ConnectError> {
    let addresses: Vec<SocketAddr> = lookup_host((endpoint.host.as_str(), endpoint.port))
        .await
        .map_err(|error| ConnectError::new(ConnectErrorKind::Dns, os_message(&error)))?
        .collect();
    let stream = TcpStream::connect(&addresses[..])
        .await
        .map_err(unreachable)?;
    keep_alive(&stream).map_err(unreachable)?;
    Ok(stream)
}

/// Has the kernel send at once, and notice a peer that is gone.
fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_AFTER)
        .with_interval(KEEPALIVE_INTERVAL);
    #[cfg(not(target_os = "windows"))]
    let keepalive = keepalive.with_retries(KEEPALIVE_RETRIES);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(TCP_USER_TIMEOUT_LIMIT))?;
    Ok(())
}

/// A server says only with its first answer that it does not take the client's certificate; the
/// redis crate would not pass its words on.
async fn preflight_ping(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
) -> Result<(), ConnectError> {
    let answer = async {
        stream.write_all(b"*1\r\n$4\r\nPING\r\n").await?;
        stream.flush().await?;
        let mut last = [0; 2];
        while last != *b"\r\n" {
            last = [last[1], stream.read_u8().await?];
        }
        Ok(())
    };
    answer
        .await
        .map_err(|error| tls::in_words(error, "the server"))
}

/// Why a server closes connections without an answer. In protected mode, and when it has as many
/// clients as it takes, Redis says so before it is asked anything, so that who asks at once often
/// does not hear it. `None` if it says nothing.
pub(crate) async fn read_unsolicited_error(site: &ServerAddr) -> Option<ConnectError> {
    let stream = dial(site, None).await.ok()?;
    let mut line = Vec::new();
    let mut reader = BufReader::new(stream.take(LONGEST_REFUSAL));
    let read = timeout(UNASKED, reader.read_until(b'\n', &mut line));
    read.await.ok()?.ok()?;
    match redis::parse_redis_value(&line) {
        Ok(Value::ServerError(refusal)) if refusal.code() == "DENIED" => {
            Some(ConnectError::refused(&refusal))
        }
        Ok(Value::ServerError(refusal)) => Some(ConnectError::new(
            ConnectErrorKind::NotReady,
            server_error::in_words(&refusal),
        )),
        _ => None,
    }
}

/// There is no connection, for the reason that the operating system gives.
pub(crate) fn unreachable(error: io::Error) -> ConnectError {
    let cause = match error.kind() {
        io::ErrorKind::ConnectionRefused => ConnectErrorKind::ConnectionRefused,
        io::ErrorKind::NotFound => ConnectErrorKind::NoSocket,
        io::ErrorKind::PermissionDenied => ConnectErrorKind::ForbiddenSocket,
        _ => ConnectErrorKind::Unreachable,
    };
    ConnectError::new(cause, os_message(&error))
}

fn os_message(error: &io::Error) -> String {
    error::os_message(error).to_lowercase()
}
