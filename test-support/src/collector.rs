//! An OTLP collector that receives exports over HTTP and holds them decoded and as raw bytes.

pub mod signals;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;

/// A collector; it runs until the test process ends.
pub struct Collector {
    /// Its URL for HTTP.
    pub url: String,
    /// The exports received.
    pub received: Arc<Mutex<ReceivedExports>>,
}

/// The exports that a collector has received, in order of arrival.
#[derive(Default)]
pub struct ReceivedExports {
    /// Heads and bodies of all requests; texts appear in it verbatim.
    pub bytes: Vec<u8>,
    pub traces: Vec<ExportTraceServiceRequest>,
    pub metrics: Vec<ExportMetricsServiceRequest>,
    pub logs: Vec<ExportLogsServiceRequest>,
}

/// Starts a collector on a free port.
pub fn start() -> Collector {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("a listener has an address");
    let received: Arc<Mutex<ReceivedExports>> = Arc::default();
    let sink = Arc::clone(&received);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let sink = Arc::clone(&sink);
            thread::spawn(move || serve(&stream, &sink));
        }
    });
    Collector {
        url: format!("http://{address}/"),
        received,
    }
}

impl Collector {
    /// The exports received so far.
    pub fn received(&self) -> MutexGuard<'_, ReceivedExports> {
        self.received.lock().expect("the lock is not poisoned")
    }

    /// The bytes of all requests.
    pub fn received_bytes(&self) -> Vec<u8> {
        self.received().bytes.clone()
    }

    /// Returns true if an export contains the text.
    pub fn contains(&self, text: &str) -> bool {
        let received = self.received();
        let mut windows = received.bytes.windows(text.len());
        windows.any(|window| window == text.as_bytes())
    }
}

impl ReceivedExports {
    /// Stores a request that came over HTTP.
    fn store(&mut self, head: &str, body: &[u8]) {
        self.bytes.extend_from_slice(head.as_bytes());
        self.bytes.extend_from_slice(body);
        let path = head.split(' ').nth(1).unwrap_or_default();
        match path {
            "/v1/traces" => self.traces.push(decoded(body)),
            "/v1/metrics" => self.metrics.push(decoded(body)),
            "/v1/logs" => self.logs.push(decoded(body)),
            _ => panic!("unexpected export to {path}"),
        }
    }
}

fn decoded<T: Message + Default>(body: &[u8]) -> T {
    T::decode(body).expect("exports are OTLP protobuf")
}

/// Replies to every request of a connection with success.
fn serve(stream: &TcpStream, received: &Mutex<ReceivedExports>) -> Option<()> {
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
            // A search in compressed bytes would prove nothing.
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
        received
            .lock()
            .expect("the lock is not poisoned")
            .store(&head, &body);
        output
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            .ok()?;
    }
}
