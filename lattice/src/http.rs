//! HTTP requests to a component through the HTTP server provider.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::{Client, RequestBuilder};

use crate::wait;

const TIMEOUT: Duration = Duration::from_secs(20);

/// A response to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    /// The body as trimmed text; invalid UTF-8 is replaced.
    pub body: String,
    /// The body.
    pub bytes: Vec<u8>,
}

/// Sends a `GET` request.
pub async fn get(url: &str) -> Result<Response> {
    send(client()?.get(url)).await
}

/// Sends a `PUT` request with a body.
pub async fn put(url: &str, body: Vec<u8>) -> Result<Response> {
    send(client()?.put(url).body(body)).await
}

fn client() -> Result<Client> {
    Ok(Client::builder().timeout(TIMEOUT).no_proxy().build()?)
}

async fn send(request: RequestBuilder) -> Result<Response> {
    let response = request.send().await.context("no response")?;
    let status = response.status().as_u16();
    let bytes = response.bytes().await?.to_vec();
    Ok(Response {
        status,
        body: String::from_utf8_lossy(&bytes).trim().to_owned(),
        bytes,
    })
}

/// Repeats a `GET` request until it succeeds with status 200, and returns the body. The route must
/// have no effect when it fails.
pub async fn get_when_ready(url: &str) -> Result<String> {
    wait::until(url, wait::TIMEOUT, async || {
        let response = get(url).await?;
        ensure!(
            response.status == 200,
            "{}: {}",
            response.status,
            response.body
        );
        Ok(Some(response.body))
    })
    .await
}
