//! Opens the byte stream to one server: TCP or a Unix socket, with TLS or without.
//!
//! What is said over it is for `line`, which server it is to be for `place`, whom TLS trusts for
//! `tls`.

use std::path::PathBuf;
use std::time::Duration;
use std::{fmt, io};

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use super::line::NoLine;
use super::tls;
use crate::error::os_words;
use crate::settings::Tls;
use crate::settings::address::Endpoint;

/// How long a silent peer is trusted before the kernel asks, how often it asks, and when it gives
/// the connection up.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(15);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 3;
/// How long sent bytes may stay unacknowledged.
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

/// Where one server listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Site {
    /// On a port.
    Tcp(Endpoint),
    /// On a Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(endpoint) => write!(f, "{endpoint}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Bytes in both directions.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Connects, and with TLS settings secures the connection.
///
/// # Errors
///
/// Why there is no connection, without secrets.
pub async fn dial(site: &Site, tls: Option<&Tls>) -> Result<Box<dyn Duplex>, NoLine> {
    match site {
        Site::Unix(path) => {
            let stream = UnixStream::connect(path).await.map_err(unreachable)?;
            Ok(Box::new(stream))
        }
        Site::Tcp(endpoint) => {
            let stream = connect(endpoint).await.map_err(unreachable)?;
            let Some(tls) = tls else {
                return Ok(Box::new(stream));
            };
            let mut stream = tls::secure(stream, &endpoint.host, tls).await?;
            first_words(&mut stream).await?;
            Ok(Box::new(stream))
        }
    }
}

async fn connect(endpoint: &Endpoint) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await?;
    stream.set_nodelay(true)?;
    let socket = SockRef::from(&stream);
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_AFTER)
        .with_interval(KEEPALIVE_INTERVAL);
    #[cfg(not(target_os = "windows"))]
    let keepalive = keepalive.with_retries(KEEPALIVE_RETRIES);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
    Ok(stream)
}

/// A server says only with its first answer that it does not take the client's certificate; the
/// redis crate would not pass its words on.
async fn first_words(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Result<(), NoLine> {
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

/// There is no connection, for the reason that the operating system gives.
pub fn unreachable(error: io::Error) -> NoLine {
    NoLine::Unreachable(os_words(&error).to_lowercase())
}
