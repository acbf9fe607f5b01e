//! Errors as an HTTP status and a line of text.

use wasmcloud_component::http::StatusCode;
use wasmcloud_component::wasi::keyvalue::store;

pub struct Failure {
    pub status: StatusCode,
    pub message: String,
}

impl Failure {
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { status, message }
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }
}

impl From<store::Error> for Failure {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::NoSuchStore => Self::new(StatusCode::NOT_FOUND, "no such store"),
            store::Error::AccessDenied => Self::new(StatusCode::FORBIDDEN, "access denied"),
            store::Error::Other(text) => Self::new(StatusCode::INTERNAL_SERVER_ERROR, text),
        }
    }
}
