//! The byte stream to one server: TCP or a Unix socket, with TLS or without.

pub(crate) mod tcp;
pub(crate) mod tls;
pub(crate) mod unix;

use std::fmt;
use std::path::PathBuf;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::redis::connect_error::ConnectError;
use crate::settings::address::Endpoint;
use crate::settings::tls::Tls;

/// The address of one server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ServerAddr {
    Tcp(Endpoint),
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

/// A stream of bytes in both directions.
pub(crate) trait AsyncStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> AsyncStream for T {}

/// Connects. With TLS settings, a TCP connection is secured.
pub(crate) async fn dial(
    addr: &ServerAddr,
    tls: Option<&Tls>,
) -> Result<Box<dyn AsyncStream>, ConnectError> {
    Ok(match (addr, tls) {
        (ServerAddr::Unix(path), _) => Box::new(unix::connect(path).await?),
        (ServerAddr::Tcp(endpoint), None) => Box::new(tcp::connect(endpoint).await?),
        (ServerAddr::Tcp(endpoint), Some(tls)) => {
            let mut stream =
                tls::secure(tcp::connect(endpoint).await?, &endpoint.host, tls).await?;
            tls::preflight_ping(&mut stream).await?;
            Box::new(stream)
        }
    })
}
