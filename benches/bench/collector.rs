//! An OTLP/HTTP collector that discards what it receives.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// A collector that runs until the process ends.
pub struct Collector {
    pub url: String,
    traces_received: Arc<AtomicBool>,
}

/// Starts a collector on a free port.
pub fn start() -> std::io::Result<Collector> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}/", listener.local_addr()?);
    let traces_received = Arc::new(AtomicBool::new(false));
    let received = Arc::clone(&traces_received);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let received = Arc::clone(&received);
            thread::spawn(move || serve(&stream, &received));
        }
    });
    Ok(Collector {
        url,
        traces_received,
    })
}

impl Collector {
    /// Returns whether a provider has exported traces.
    pub fn has_traces(&self) -> bool {
        self.traces_received.load(Ordering::Relaxed)
    }
}

/// Replies to every request of a connection with success.
fn serve(stream: &TcpStream, traces_received: &AtomicBool) -> Option<()> {
    let mut input = BufReader::new(stream);
    let mut output = stream;
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if input.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let line = line.trim_end().to_ascii_lowercase();
            if line.contains("/v1/traces") {
                traces_received.store(true, Ordering::Relaxed);
            }
            if let Some(bytes) = line.strip_prefix("content-length:") {
                length = bytes.trim().parse().ok()?;
            }
            if line.is_empty() {
                break;
            }
        }
        std::io::copy(&mut input.by_ref().take(length), &mut std::io::sink()).ok()?;
        output
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            .ok()?;
    }
}
