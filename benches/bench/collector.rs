//! Takes what providers export (OTLP over HTTP), and throws it away.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// A collector, for as long as the process lives.
pub struct Collector {
    /// Where it listens.
    pub url: String,
    traces: Arc<AtomicBool>,
}

/// Starts a collector on a free port.
pub fn start() -> std::io::Result<Collector> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}/", listener.local_addr()?);
    let traces = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&traces);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let seen = Arc::clone(&seen);
            thread::spawn(move || serve(&stream, &seen));
        }
    });
    Ok(Collector { url, traces })
}

impl Collector {
    /// Whether anybody has exported traces.
    pub fn has_traces(&self) -> bool {
        self.traces.load(Ordering::Relaxed)
    }
}

/// Answers every request of a connection with success.
fn serve(stream: &TcpStream, traces: &AtomicBool) -> Option<()> {
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
                traces.store(true, Ordering::Relaxed);
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
