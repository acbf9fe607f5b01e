//! The callers: a wRPC client that costs as little as can be, so that the providers are what is
//! measured.
//!
//! One thread, one plain TCP connection to NATS, and a fixed number of calls in flight, each on a
//! slot of its own. The inbox is subscribed to before anything is published, so that no reply is
//! lost on the way. It sends what a host sends: the call with its headers, after the handshake the
//! rest of the parameters, and the end. A call whose answer is missing or empty is made again, and
//! counted: the yardstick loses some of those whose parameters come in several messages.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

/// How long silence lasts until the calls under way count as lost.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long the rest of parameters waits. A host takes its time, too, and the yardstick loses
/// nearly every call whose rest comes before it is ready for it.
const BEFORE_THE_REST: Duration = Duration::from_millis(2);
/// How long a provider may take to start.
const START: Duration = Duration::from_secs(20);
/// More losses than this end a run.
const MOST_LOSSES: usize = 100;
const MAX_PAYLOAD: usize = 1 << 20;

/// How many callers there have been, to tell their inboxes apart: replies that went to idle ones, too,
/// would cost NATS as much again.
static CALLERS: AtomicU64 = AtomicU64::new(0);

/// What is called: the same call again and again, or several in turn.
#[derive(Clone)]
pub struct Operation {
    /// The interface and function, as in the subject.
    pub function: &'static str,
    /// The encoded parameters.
    pub params: Vec<u8>,
    /// The result is complete with so many bytes.
    pub result_bytes: usize,
}

/// What came of a run.
pub struct Outcome {
    /// How long each call took.
    pub latencies: Vec<Duration>,
    /// How long all of them took.
    pub elapsed: Duration,
    /// Calls that had to be made again.
    pub lost: usize,
}

/// A connection to NATS for calls to one provider.
pub struct Caller {
    stream: TcpStream,
    input: Vec<u8>,
    /// Where what was read and not yet handled begins and ends in `input`.
    unread: std::ops::Range<usize>,
    output: Vec<u8>,
    subject_prefix: String,
    inbox: String,
    headers: String,
    /// Tells each attempt to call from all others.
    attempts: u64,
}

struct Slot {
    operation: usize,
    /// Which attempt of the run it is; a later one makes messages of this one nobody's.
    attempt: u64,
    started: Instant,
    sent: usize,
    received: usize,
    done: bool,
}

/// A message for one of the calls.
struct Arrival {
    /// Whose it is; nobody's, if it comes late.
    slot: Option<usize>,
    /// Where to send the rest of the parameters; `None` in results.
    handshake: Option<String>,
    payload: std::ops::Range<usize>,
}

impl Caller {
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
        stream.set_read_timeout(Some(PATIENCE))?;
        let inbox = format!("_INBOX.bench-{}", CALLERS.fetch_add(1, Ordering::Relaxed));
        let hello = format!(
            "CONNECT {{\"verbose\":false,\"pedantic\":false,\"headers\":true,\
             \"no_responders\":true}}\r\nSUB {inbox}.> 1\r\nPING\r\n"
        );
        let mut caller = Self {
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
        caller.stream.write_all(hello.as_bytes())?;
        while caller.line()? != "PONG" {}
        Ok(caller)
    }

    /// Makes `calls` calls, `in_flight` of them at a time, with the operations in turn.
    pub fn run(
        &mut self,
        operations: &[Operation],
        in_flight: usize,
        calls: u64,
    ) -> anyhow::Result<Outcome> {
        let started = Instant::now();
        let mut latencies = Vec::with_capacity(usize::try_from(calls)?);
        let mut slots: Vec<Slot> = Vec::with_capacity(in_flight);
        let mut next = 0;
        while next < calls && slots.len() < in_flight {
            slots.push(Slot::new(next, operations));
            let index = slots.len() - 1;
            self.begin(index, &mut slots, operations);
            next += 1;
        }
        let mut lost = 0;
        while latencies.len() < usize::try_from(calls)? {
            let message = self.message(&slots)?;
            ensure!(lost <= MOST_LOSSES, "too many calls were lost");
            let Some(message) = message else {
                // Silence: whatever is under way is lost.
                for index in 0..slots.len() {
                    if !slots[index].done {
                        lost += 1;
                        self.begin(index, &mut slots, operations);
                    }
                }
                continue;
            };
            let Some(index) = message.slot else { continue };
            let slot = &mut slots[index];
            let payload = &self.input[message.payload];
            let operation = &operations[slot.operation];
            if let Some(rest) = &message.handshake {
                self.send_rest(rest, slot, operations);
                continue;
            }
            if payload.is_empty() {
                lost += 1;
                self.begin(index, &mut slots, operations);
                continue;
            }
            ensure!(
                slot.received > 0 || payload[0] == 0,
                "{} failed: {}",
                operation.function,
                String::from_utf8_lossy(payload)
            );
            slot.received += payload.len();
            if slot.received < operation.result_bytes {
                continue;
            }
            latencies.push(slot.started.elapsed());
            if next < calls {
                *slot = Slot::new(next, operations);
                self.begin(index, &mut slots, operations);
                next += 1;
            } else {
                slot.done = true;
            }
        }
        Ok(Outcome {
            latencies,
            elapsed: started.elapsed(),
            lost,
        })
    }

    /// Calls once, with as many attempts as it takes until somebody answers.
    pub fn first_answer(&mut self, operation: &Operation) -> anyhow::Result<()> {
        let give_up = Instant::now() + START;
        loop {
            match self.run(std::slice::from_ref(operation), 1, 1) {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() >= give_up => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_micros(200)),
            }
        }
    }

    fn begin(&mut self, index: usize, slots: &mut [Slot], operations: &[Operation]) {
        self.attempts += 1;
        let slot = &mut slots[index];
        slot.attempt = self.attempts;
        slot.received = 0;
        let operation = &operations[slot.operation];
        let reply = format!("{}.{index}.{}", self.inbox, slot.attempt);
        let room = MAX_PAYLOAD - self.headers.len() - reply.len();
        let first = &operation.params[..operation.params.len().min(room)];
        slot.sent = first.len();
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

    fn send_rest(&mut self, rest: &str, slot: &mut Slot, operations: &[Operation]) {
        let params = &operations[slot.operation].params;
        if slot.sent < params.len() {
            std::thread::sleep(BEFORE_THE_REST);
        }
        loop {
            let piece = &params[slot.sent..(slot.sent + MAX_PAYLOAD).min(params.len())];
            let head = format!("PUB {rest}.params {}\r\n", piece.len());
            self.output.extend_from_slice(head.as_bytes());
            self.output.extend_from_slice(piece);
            self.output.extend_from_slice(b"\r\n");
            slot.sent += piece.len();
            if piece.is_empty() {
                return;
            }
        }
    }

    /// The next message; `None` after a silence.
    fn message(&mut self, slots: &[Slot]) -> anyhow::Result<Option<Arrival>> {
        loop {
            let line = match self.line() {
                Ok(line) => line,
                Err(error) if is_silence(&error) => return Ok(None),
                Err(error) => return Err(error),
            };
            let mut words = line.split(' ');
            match words.next() {
                Some("MSG") => {
                    let subject = words.next().context("a message without a subject")?;
                    let words: Vec<&str> = words.skip(1).collect();
                    let (reply, length) = match words[..] {
                        [length] => (None, length),
                        [reply, length] => (Some(reply), length),
                        _ => bail!("not a message: {line}"),
                    };
                    let payload = self.payload(length.parse()?)?;
                    let is_result = subject.ends_with(".results");
                    return Ok(Some(Arrival {
                        slot: self.slot_of(subject, slots),
                        handshake: reply.filter(|_| !is_result).map(str::to_owned),
                        payload,
                    }));
                }
                Some("HMSG") => {
                    let length: usize = line.rsplit(' ').next().unwrap_or_default().parse()?;
                    self.payload(length)?;
                    bail!("nobody serves the call");
                }
                Some("PING") => self.stream.write_all(b"PONG\r\n")?,
                _ if line.starts_with("-ERR") => bail!("NATS says {line}"),
                _ => {}
            }
        }
    }

    fn slot_of(&self, subject: &str, slots: &[Slot]) -> Option<usize> {
        let mut parts = subject.strip_prefix(&self.inbox)?.split('.').skip(1);
        let index: usize = parts.next()?.parse().ok()?;
        let attempt: u64 = parts.next()?.parse().ok()?;
        let slot = slots.get(index)?;
        (slot.attempt == attempt && !slot.done).then_some(index)
    }

    /// Takes a line, without its end.
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
            // Before waiting, what others wait for.
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

impl Slot {
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

fn is_silence(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

/// The half below which half of the calls were.
pub fn median<T: Copy + PartialOrd>(values: &mut [T]) -> T {
    values.sort_by(|a, b| a.partial_cmp(b).expect("comparable figures"));
    values[values.len() / 2]
}
