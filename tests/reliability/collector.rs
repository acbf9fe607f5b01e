//! Takes what a provider exports (OTLP over HTTP), and keeps the bytes: texts are in them as they
//! are.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// A collector, for as long as the test process lives.
pub struct Collector {
    /// Where it listens.
    pub url: String,
    bodies: Arc<Mutex<Vec<u8>>>,
}

/// Starts a collector on a free port.
pub fn start() -> Collector {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("a listener has an address");
    let bodies = Arc::default();
    let kept = Arc::clone(&bodies);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let kept = Arc::clone(&kept);
            thread::spawn(move || serve(&stream, &kept));
        }
    });
    Collector {
        url: format!("http://{address}/"),
        bodies,
    }
}

impl Collector {
    /// All that has been exported, one request after another.
    pub fn exported(&self) -> Vec<u8> {
        self.bodies
            .lock()
            .expect("nobody panics with the lock")
            .clone()
    }

    /// Whether a text has been exported.
    pub fn holds(&self, text: &str) -> bool {
        let exported = self.exported();
        let mut windows = exported.windows(text.len());
        windows.any(|window| window == text.as_bytes())
    }
}

/// Answers every request of a connection with success.
fn serve(stream: &TcpStream, bodies: &Mutex<Vec<u8>>) -> Option<()> {
    let mut input = BufReader::new(stream);
    let mut output = stream;
    loop {
        let mut length = 0;
        let mut head = String::new();
        loop {
            let mut line = String::new();
            if input.read_line(&mut line).ok()? == 0 {
                return None;
            }
            head.push_str(&line);
            let line = line.trim_end().to_ascii_lowercase();
            // Otherwise a search of the bytes would prove nothing.
            assert!(!line.starts_with("content-encoding"), "{line}");
            if let Some(bytes) = line.strip_prefix("content-length:") {
                length = bytes.trim().parse().ok()?;
            }
            if line.is_empty() {
                break;
            }
        }
        let mut body = Vec::new();
        input.by_ref().take(length).read_to_end(&mut body).ok()?;
        let mut bodies = bodies.lock().expect("nobody panics with the lock");
        bodies.extend_from_slice(head.as_bytes());
        bodies.append(&mut body);
        drop(bodies);
        output
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            .ok()?;
    }
}
