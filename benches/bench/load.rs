//! The load generator: a minimal wRPC client, so that the measurement is of the providers.
//!
//! One thread, one plain TCP connection to NATS, and a fixed number of calls in flight. The inbox is
//! subscribed before the first call is published, so that no reply is lost. A call is sent as a
//! host sends it: the first message with its headers, then, after the handshake, the remaining
//! parameters and an empty message that ends them. A call whose response is missing or empty is
//! retried and counted: the SDK baseline loses some of the calls with parameters in several messages.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

use crate::operation::Operation;

/// Without a message for this long, the calls in flight count as lost.
const READ_TIMEOUT: Duration = Duration::from_millis(500);
/// The delay between the handshake and the remaining parameters. A host is not faster either, and
/// the SDK baseline loses nearly every call whose parameters arrive before it has subscribed to them.
const PARAMS_DELAY: Duration = Duration::from_millis(2);
const STARTUP_TIMEOUT: Duration = Duration::from_secs(20);
const STARTUP_RETRY_INTERVAL: Duration = Duration::from_micros(200);
/// A run with more retries fails.
const MAX_RETRIES: usize = 100;
const MAX_PAYLOAD: usize = 1 << 20;

/// Numbers the clients: each has its own inbox, because NATS would otherwise deliver every reply to
/// the idle ones as well.
static CLIENTS: AtomicU64 = AtomicU64::new(0);

/// The measurements of a run.
pub struct RunResult {
    pub latencies: Vec<Duration>,
    pub elapsed: Duration,
    pub retries: usize,
}

/// A connection to NATS for calls to one provider.
pub struct Client {
    stream: TcpStream,
    input: Vec<u8>,
    /// The part of `input` that has been received and not yet processed.
    unread: std::ops::Range<usize>,
    output: Vec<u8>,
    subject_prefix: String,
    inbox: String,
    headers: String,
    /// Numbers the attempts, so that replies to earlier attempts are recognized.
    attempts: u64,
}

struct InFlightCall {
    operation: usize,
    attempt: u64,
    started: Instant,
    sent: usize,
    received: usize,
    done: bool,
}

/// A message from the provider.
struct Frame {
    /// The index of its call; `None` for a reply to an attempt that was given up.
    call: Option<usize>,
    /// The subject for the remaining parameters; `None` in results.
    handshake: Option<String>,
    payload: std::ops::Range<usize>,
}

impl Client {
    /// Connects to the NATS server at `address`, to call `provider` as `component`.
    pub fn connect(
        address: &str,
        lattice: &str,
        provider: &str,
        component: &str,
        traceparent: &str,
    ) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(READ_TIMEOUT))?;
        let inbox = format!("_INBOX.bench-{}", CLIENTS.fetch_add(1, Ordering::Relaxed));
        let connect = format!(
            "CONNECT {{\"verbose\":false,\"pedantic\":false,\"headers\":true,\
             \"no_responders\":true}}\r\nSUB {inbox}.> 1\r\nPING\r\n"
        );
        let mut client = Self {
            stream,
            input: vec![0; 256 * 1024],
            unread: 0..0,
            output: Vec::new(),
            inbox,
            subject_prefix: format!("{lattice}.{provider}.wrpc.0.0.1.wrpc:keyvalue/"),
            headers: format!(
                "NATS/1.0\r\nsource-id: {component}\r\nlink-name: default\r\n\
                 traceparent: {traceparent}\r\n\r\n"
            ),
            attempts: 0,
        };
        client.stream.write_all(connect.as_bytes())?;
        while client.line()? != "PONG" {}
        Ok(client)
    }

    /// Makes `calls` calls with `in_flight` of them at a time, cycling through the operations.
    pub fn run(
        &mut self,
        operations: &[Operation],
        in_flight: usize,
        calls: u64,
    ) -> anyhow::Result<RunResult> {
        let started = Instant::now();
        let mut latencies = Vec::with_capacity(usize::try_from(calls)?);
        let mut pending: Vec<InFlightCall> = Vec::with_capacity(in_flight);
        let mut next = 0;
        while next < calls && pending.len() < in_flight {
            pending.push(InFlightCall::new(next, operations));
            let index = pending.len() - 1;
            self.send_first_message(index, &mut pending, operations);
            next += 1;
        }
        let mut retries = 0;
        while latencies.len() < usize::try_from(calls)? {
            let frame = self.next_frame(&pending)?;
            ensure!(retries <= MAX_RETRIES, "too many lost calls");
            let Some(frame) = frame else {
                // Nothing arrives any more: the calls in flight are lost.
                for index in 0..pending.len() {
                    if !pending[index].done {
                        retries += 1;
                        self.send_first_message(index, &mut pending, operations);
                    }
                }
                continue;
            };
            let Some(index) = frame.call else { continue };
            let call = &mut pending[index];
            let payload = &self.input[frame.payload];
            let operation = &operations[call.operation];
            if let Some(subject) = &frame.handshake {
                self.send_remaining_params(subject, call, operations);
                continue;
            }
            if payload.is_empty() {
                retries += 1;
                self.send_first_message(index, &mut pending, operations);
                continue;
            }
            ensure!(
                call.received > 0 || payload[0] == 0,
                "{} failed: {}",
                operation.function,
                String::from_utf8_lossy(payload)
            );
            call.received += payload.len();
            if call.received < operation.result_bytes {
                continue;
            }
            latencies.push(call.started.elapsed());
            if next < calls {
                *call = InFlightCall::new(next, operations);
                self.send_first_message(index, &mut pending, operations);
                next += 1;
            } else {
                call.done = true;
            }
        }
        Ok(RunResult {
            latencies,
            elapsed: started.elapsed(),
            retries,
        })
    }

    /// Retries one call until the provider has started and responds.
    pub fn wait_for_response(&mut self, operation: &Operation) -> anyhow::Result<()> {
        let deadline = Instant::now() + STARTUP_TIMEOUT;
        loop {
            match self.run(std::slice::from_ref(operation), 1, 1) {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() >= deadline => return Err(error),
                Err(_) => std::thread::sleep(STARTUP_RETRY_INTERVAL),
            }
        }
    }

    fn send_first_message(
        &mut self,
        index: usize,
        pending: &mut [InFlightCall],
        operations: &[Operation],
    ) {
        self.attempts += 1;
        let call = &mut pending[index];
        call.attempt = self.attempts;
        call.received = 0;
        let operation = &operations[call.operation];
        let reply = format!("{}.{index}.{}", self.inbox, call.attempt);
        let available = MAX_PAYLOAD - self.headers.len() - reply.len();
        let first = &operation.params[..operation.params.len().min(available)];
        call.sent = first.len();
        let head = format!(
            "HPUB {}{} {reply} {} {}\r\n",
            self.subject_prefix,
            operation.function,
            self.headers.len(),
            self.headers.len() + first.len()
        );
        self.output.extend_from_slice(head.as_bytes());
        self.output.extend_from_slice(self.headers.as_bytes());
        self.output.extend_from_slice(first);
        self.output.extend_from_slice(b"\r\n");
    }

    fn send_remaining_params(
        &mut self,
        subject: &str,
        call: &mut InFlightCall,
        operations: &[Operation],
    ) {
        let params = &operations[call.operation].params;
        if call.sent < params.len() {
            std::thread::sleep(PARAMS_DELAY);
        }
        loop {
            let chunk = &params[call.sent..(call.sent + MAX_PAYLOAD).min(params.len())];
            let head = format!("PUB {subject}.params {}\r\n", chunk.len());
            self.output.extend_from_slice(head.as_bytes());
            self.output.extend_from_slice(chunk);
            self.output.extend_from_slice(b"\r\n");
            call.sent += chunk.len();
            if chunk.is_empty() {
                return;
            }
        }
    }

    /// Receives the next message; `None` after a timeout.
    fn next_frame(&mut self, pending: &[InFlightCall]) -> anyhow::Result<Option<Frame>> {
        loop {
            let line = match self.line() {
                Ok(line) => line,
                Err(error) if is_timeout(&error) => return Ok(None),
                Err(error) => return Err(error),
            };
            let mut fields = line.split(' ');
            match fields.next() {
                Some("MSG") => {
                    let subject = fields.next().context("MSG without a subject")?;
                    let fields: Vec<&str> = fields.skip(1).collect();
                    let (reply, length) = match fields[..] {
                        [length] => (None, length),
                        [reply, length] => (Some(reply), length),
                        _ => bail!("malformed MSG: {line}"),
                    };
                    let payload = self.payload(length.parse()?)?;
                    let is_result = subject.ends_with(".results");
                    return Ok(Some(Frame {
                        call: self.call_of(subject, pending),
                        handshake: reply.filter(|_| !is_result).map(str::to_owned),
                        payload,
                    }));
                }
                Some("HMSG") => {
                    let length: usize = line.rsplit(' ').next().unwrap_or_default().parse()?;
                    self.payload(length)?;
                    bail!("no responders");
                }
                Some("PING") => self.stream.write_all(b"PONG\r\n")?,
                _ if line.starts_with("-ERR") => bail!("NATS error: {line}"),
                _ => {}
            }
        }
    }

    fn call_of(&self, subject: &str, pending: &[InFlightCall]) -> Option<usize> {
        let mut parts = subject.strip_prefix(&self.inbox)?.split('.').skip(1);
        let index: usize = parts.next()?.parse().ok()?;
        let attempt: u64 = parts.next()?.parse().ok()?;
        let call = pending.get(index)?;
        (call.attempt == attempt && !call.done).then_some(index)
    }

    /// Receives a protocol line, without CRLF.
    fn line(&mut self) -> anyhow::Result<String> {
        let mut searched = 0;
        loop {
            let unread = &self.input[self.unread.clone()];
            if let Some(end) = unread[searched..].windows(2).position(|w| w == b"\r\n") {
                let line = String::from_utf8(unread[..searched + end].to_vec())?;
                self.unread.start += searched + end + 2;
                return Ok(line);
            }
            searched = unread.len().saturating_sub(1);
            self.read_more()?;
        }
    }

    fn payload(&mut self, length: usize) -> anyhow::Result<std::ops::Range<usize>> {
        while self.unread.len() < length + 2 {
            self.read_more()?;
        }
        let start = self.unread.start;
        self.unread.start += length + 2;
        Ok(start..start + length)
    }

    fn read_more(&mut self) -> anyhow::Result<()> {
        if self.unread.is_empty() {
            // Flushed only when nothing is left to process, so that calls share a write.
            if !self.output.is_empty() {
                self.stream.write_all(&self.output)?;
                self.output.clear();
            }
            self.unread = 0..0;
        } else if self.unread.end == self.input.len() {
            self.input.copy_within(self.unread.clone(), 0);
            self.unread = 0..self.unread.len();
            if self.unread.end == self.input.len() {
                self.input.resize(self.input.len() * 2, 0);
            }
        }
        let count = self.stream.read(&mut self.input[self.unread.end..])?;
        ensure!(count > 0, "NATS closed the connection");
        self.unread.end += count;
        Ok(())
    }
}

impl InFlightCall {
    fn new(call: u64, operations: &[Operation]) -> Self {
        Self {
            operation: usize::try_from(call).unwrap_or_default() % operations.len(),
            attempt: 0,
            started: Instant::now(),
            sent: 0,
            received: 0,
            done: false,
        }
    }
}

fn is_timeout(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

pub fn median<T: Copy + PartialOrd>(values: &mut [T]) -> T {
    values.sort_by(|a, b| a.partial_cmp(b).expect("no NaN is measured"));
    values[values.len() / 2]
}
