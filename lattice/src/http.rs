//! HTTP calls to a component, through the HTTP server provider.

use std::time::Duration;

use anyhow::{Context, Result};

use reqwest::{Client, RequestBuilder};

use crate::wait;

const TIMEOUT: Duration = Duration::from_secs(20);

/// An answer: status and body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body, without white space at its ends; what is not UTF-8 in it is replaced.
    pub body: String,
    /// The body as it is.
    pub bytes: Vec<u8>,
}

/// Calls `url` with `GET`, once.
pub async fn get(url: &str) -> Result<Answer> {
    send(client()?.get(url)).await
}

/// Calls `url` with `PUT` and a body, once.
pub async fn put(url: &str, body: Vec<u8>) -> Result<Answer> {
    send(client()?.put(url).body(body)).await
}

fn client() -> Result<Client> {
    Ok(Client::builder().timeout(TIMEOUT).no_proxy().build()?)
}

async fn send(request: RequestBuilder) -> Result<Answer> {
    let response = request.send().await.context("no answer")?;
    let status = response.status().as_u16();
    let bytes = response.bytes().await?.to_vec();
    Ok(Answer {
        status,
        body: String::from_utf8_lossy(&bytes).trim().to_owned(),
        bytes,
    })
}

/// Calls `url` until it answers with status 200, for a route that changes nothing when it fails.
pub async fn get_when_ready(url: &str) -> Result<String> {
    wait::until(url, wait::SOON, async || {
        let answer = get(url).await?;
        anyhow::ensure!(answer.status == 200, "{}: {}", answer.status, answer.body);
        Ok(Some(answer.body))
    })
    .await
}
