//! Unix sockets.

use std::path::Path;

use tokio::net::UnixStream;

use crate::redis::connect_error::ConnectError;

pub(crate) async fn connect(path: &Path) -> Result<UnixStream, ConnectError> {
    UnixStream::connect(path).await.map_err(ConnectError::io)
}
