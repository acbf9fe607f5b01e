//! The error of one command on a connection that does not retry: of `kvredis check`, and of pub/sub.

use std::time::Duration;

use redis::ServerError;

use crate::redis::server_error::ServerErrorExt as _;

#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    /// Not a source: its own text may repeat arguments.
    #[error("{}", .0.message())]
    ServerError(ServerError),
    #[error("the connection broke")]
    Disconnected,
    #[error("no reply within {} ms", .0.as_millis())]
    Timeout(Duration),
}
