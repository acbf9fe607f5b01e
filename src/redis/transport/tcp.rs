//! TCP: name resolution, and sockets whose kernel notices a peer that is gone.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, lookup_host};

use crate::redis::connect_error::ConnectError;
use crate::settings::address::Endpoint;

/// An idle connection is probed by the kernel after this time, at this interval, and closed after
/// this many probes without a reply.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 3;
/// The longest time that sent bytes may stay unacknowledged: keepalive does not probe while there are
/// any.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) async fn connect(endpoint: &Endpoint) -> Result<TcpStream, ConnectError> {
    let addresses: Vec<SocketAddr> = lookup_host((endpoint.host.as_str(), endpoint.port))
        .await
        .map_err(ConnectError::dns)?
        .collect();
    let stream = TcpStream::connect(&addresses[..])
        .await
        .map_err(ConnectError::io)?;
    configure(&stream).map_err(ConnectError::io)?;
    Ok(stream)
}

fn configure(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL);
    #[cfg(not(target_os = "windows"))]
    let keepalive = keepalive.with_retries(KEEPALIVE_RETRIES);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(TCP_USER_TIMEOUT))?;
    Ok(())
}
