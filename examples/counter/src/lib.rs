//! A counter, and the rest of `wasi:keyvalue`, over HTTP.
//!
//! `GET /` increments the key `counter` and returns the new number. Each other route calls one function
//! of `wasi:keyvalue`; the README lists the routes. The query selects the provider and the bucket: `link`
//! is the link name, `bucket` the name of the bucket.

mod failure;
mod form;

use std::io::Read;

use wasmcloud_component::http::{self, Method, StatusCode, header};
use wasmcloud_component::wasi::keyvalue::{atomics, batch, store};
use wasmcloud_component::wasmcloud::bus::lattice::{self, CallTargetInterface};

use failure::Failure;
use form::Query;

struct Counter;

http::export!(Counter);

impl http::Server for Counter {
    fn handle(
        request: http::IncomingRequest,
    ) -> http::Result<http::Response<impl http::OutgoingBody>> {
        Ok(answer(request).unwrap_or_else(|failure| {
            let mut answer = text(failure.message + "\n");
            *answer.status_mut() = failure.status;
            answer
        }))
    }
}

type Answer = http::Response<Vec<u8>>;

/// Dispatches a request by method and path.
fn answer(request: http::IncomingRequest) -> Result<Answer, Failure> {
    let (parts, body) = request.into_parts();
    let query = Query::parse(parts.uri.query().unwrap_or_default())?;
    let path = parts.uri.path();

    match (&parts.method, path) {
        (&Method::GET, "/get") => get(&query),
        (&Method::POST | &Method::PUT, "/set") => set(&query, read(body)?),
        (_, "/delete") => delete(&query, path),
        (&Method::GET, "/exists") => exists(&query),
        (&Method::GET, "/keys") => keys(&query),
        (&Method::GET, "/get-many") => get_many(&query),
        (&Method::POST | &Method::PUT, "/set-many") => set_many(&query, &read(body)?),
        (_, "/delete-many") => delete_many(&query),
        // The other methods of these routes are errors: the path is not a key here.
        (_, "/get" | "/set" | "/exists" | "/keys" | "/get-many" | "/set-many") => {
            Err(wrong_method())
        }
        (&Method::DELETE, _) => delete(&query, path),
        (&Method::GET | &Method::POST, _) => increment(&query, path),
        _ => Err(wrong_method()),
    }
}

fn increment(query: &Query, path: &str) -> Result<Answer, Failure> {
    let bucket = open(query, "atomics")?;
    let delta = query.number("delta")?.unwrap_or(1);
    let count = atomics::increment(&bucket, &key(query, path)?, delta)?;
    Ok(text(format!("{count}\n")))
}

fn get(query: &Query) -> Result<Answer, Failure> {
    let bucket = open(query, "store")?;
    let value = bucket
        .get(query.required("key")?)?
        .ok_or_else(|| Failure::new(StatusCode::NOT_FOUND, "no such key"))?;
    Ok(typed("application/octet-stream", value))
}

fn set(query: &Query, value: Vec<u8>) -> Result<Answer, Failure> {
    let bucket = open(query, "store")?;
    bucket.set(query.required("key")?, &value)?;
    Ok(done())
}

fn delete(query: &Query, path: &str) -> Result<Answer, Failure> {
    let bucket = open(query, "store")?;
    bucket.delete(&key(query, path)?)?;
    Ok(done())
}

fn exists(query: &Query) -> Result<Answer, Failure> {
    let bucket = open(query, "store")?;
    let exists = bucket.exists(query.required("key")?)?;
    Ok(text(format!("{exists}\n")))
}

/// One page of the bucket's keys; the header `x-cursor` asks for the next one.
fn keys(query: &Query) -> Result<Answer, Failure> {
    let bucket = open(query, "store")?;
    let page = bucket.list_keys(query.number("cursor")?)?;
    let lines = page.keys.iter().map(|key| form::encode(key.as_bytes()));
    let mut answer = text(lines.map(|line| line + "\n").collect());
    if let Some(cursor) = page.cursor {
        answer.headers_mut().insert("x-cursor", cursor.into());
    }
    Ok(answer)
}

/// A line for each requested key, in the same order: `key=value`, or an empty line for a missing value.
fn get_many(query: &Query) -> Result<Answer, Failure> {
    let bucket = open(query, "batch")?;
    let entries = batch::get_many(&bucket, &query.all("key"))?;
    let lines = entries.iter().map(|entry| match entry {
        Some((key, value)) => format!("{}={}\n", form::encode(key.as_bytes()), form::encode(value)),
        None => "\n".to_owned(),
    });
    Ok(text(lines.collect()))
}

fn set_many(query: &Query, body: &[u8]) -> Result<Answer, Failure> {
    let bucket = open(query, "batch")?;
    let entries = form::pairs(body)
        .map(|(key, value)| Ok((form::utf8(key)?, value)))
        .collect::<Result<Vec<_>, Failure>>()?;
    batch::set_many(&bucket, &entries)?;
    Ok(done())
}

fn delete_many(query: &Query) -> Result<Answer, Failure> {
    let bucket = open(query, "batch")?;
    batch::delete_many(&bucket, &query.all("key"))?;
    Ok(done())
}

/// Selects the link for the interface about to be called, and opens the bucket.
///
/// The link name applies to this request only: wasmCloud runs each request in its own instance.
fn open(query: &Query, interface: &str) -> Result<store::Bucket, Failure> {
    let link = query.first("link").unwrap_or("default");
    let interface = CallTargetInterface::new("wasi", "keyvalue", interface);
    lattice::set_link_name(link, vec![interface])
        .map_err(|error| Failure::new(StatusCode::INTERNAL_SERVER_ERROR, error))?;
    Ok(store::open(query.first("bucket").unwrap_or("default"))?)
}

/// The key of the query, or else the path, so that `/visits` counts `visits`.
fn key(query: &Query, path: &str) -> Result<String, Failure> {
    match (query.first("key"), path) {
        (Some(key), _) => Ok(key.to_owned()),
        (None, "/delete") => query.required("key").map(str::to_owned),
        (None, "/") => Ok("counter".to_owned()),
        (None, path) => form::path(path),
    }
}

fn read(mut body: http::IncomingBody) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    body.read_to_end(&mut bytes)
        .map_err(|error| Failure::bad_request(format!("cannot read the body: {error}")))?;
    Ok(bytes)
}

fn text(body: String) -> Answer {
    typed("text/plain; charset=utf-8", body.into_bytes())
}

fn typed(content_type: &'static str, body: Vec<u8>) -> Answer {
    let mut answer = http::Response::new(body);
    let content_type = header::HeaderValue::from_static(content_type);
    answer
        .headers_mut()
        .insert(header::CONTENT_TYPE, content_type);
    answer
}

fn done() -> Answer {
    text("ok\n".to_owned())
}

fn wrong_method() -> Failure {
    Failure::new(StatusCode::METHOD_NOT_ALLOWED, "method not allowed")
}
