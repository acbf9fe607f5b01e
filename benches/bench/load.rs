//! The callers: a wRPC client that costs as little as can be, so that the providers are what is
//! measured.
//!
//! One thread, one plain TCP connection to NATS, and a fixed number of calls in flight, each on a
//! slot of its own. The inbox is subscribed to before anything is published, so that no reply is
//! lost; a reply that is missing is an error, not a gap in the figures. It sends what a host
//! sends: the call with its headers, after the handshake the rest of the parameters, and the end.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

/// How long a call may take before the run counts as failed.
const PATIENCE: Duration = Duration::from_secs(20);
const MAX_PAYLOAD: usize = 1 << 20;
const INBOX: &str = "_INBOX.bench";

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
}

/// A connection to NATS for calls to one provider.
pub struct Caller {
    stream: TcpStream,
    input: Vec<u8>,
    /// Where what was read and not yet handled begins and ends in `input`.
    unread: std::ops::Range<usize>,
    output: Vec<u8>,
    subject_prefix: String,
    headers: String,
    /// Tells the calls of one run from late messages of an earlier one.
    run: u64,
}

struct Slot {
    operation: usize,
    call: u64,
    started: Instant,
    sent: usize,
    received: usize,
    failed: bool,
}

enum Kind {
    Handshake(String),
    Result,
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
        let mut caller = Self {
            stream,
            input: vec![0; 256 * 1024],
            unread: 0..0,
            output: Vec::new(),
            subject_prefix: format!("{lattice}.{provider}.wrpc.0.0.1.wrpc:keyvalue/"),
            headers: format!(
                "NATS/1.0\r\nsource-id: {component}\r\nlink-name: default\r\n\
                 traceparent: {traceparent}\r\n\r\n"
            ),
            run: 0,
        };
        let hello = format!(
            "CONNECT {{\"verbose\":false,\"pedantic\":false,\"headers\":true,\
             \"no_responders\":true}}\r\nSUB {INBOX}.> 1\r\nPING\r\n"
        );
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
        self.run += 1;
        let started = Instant::now();
        let mut latencies = Vec::with_capacity(usize::try_from(calls)?);
        let mut slots: Vec<Slot> = Vec::with_capacity(in_flight);
        let mut next = 0;
        while next < calls && slots.len() < in_flight {
            slots.push(Slot::new(next, operations));
            self.begin(slots.len() - 1, &mut slots, operations);
            next += 1;
        }
        while latencies.len() < usize::try_from(calls)? {
            self.flush()?;
            let (slot, kind, payload) = self.message(&slots)?;
            let Some(slot) = slot else { continue };
            match kind {
                Kind::Handshake(rest) => self.send_rest(&rest, &mut slots[slot], operations),
                Kind::Result => {
                    let state = &mut slots[slot];
                    if state.received == 0 {
                        state.failed = self.input[payload.clone()].first() != Some(&0);
                    }
                    state.received += payload.len();
                    let operation = &operations[state.operation];
                    if !state.failed && state.received < operation.result_bytes {
                        continue;
                    }
                    ensure!(
                        !state.failed,
                        "{} failed: {}",
                        operation.function,
                        String::from_utf8_lossy(&self.input[payload])
                    );
                    latencies.push(state.started.elapsed());
                    if next < calls {
                        slots[slot] = Slot::new(next, operations);
                        self.begin(slot, &mut slots, operations);
                        next += 1;
                    } else {
                        state.call = u64::MAX;
                    }
                }
            }
        }
        Ok(Outcome {
            latencies,
            elapsed: started.elapsed(),
        })
    }

    /// Calls once, with as many attempts as it takes until somebody answers.
    pub fn first_answer(&mut self, operation: &Operation) -> anyhow::Result<()> {
        let give_up = Instant::now() + PATIENCE;
        loop {
            match self.run(std::slice::from_ref(operation), 1, 1) {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() >= give_up => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_micros(200)),
            }
        }
    }

    fn begin(&mut self, index: usize, slots: &mut [Slot], operations: &[Operation]) {
        let slot = &mut slots[index];
        let operation = &operations[slot.operation];
        let reply = format!("{INBOX}.{}.{index}.{}", self.run, slot.call);
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

    /// Writes what is to be sent, unless more can be handled before without waiting.
    fn flush(&mut self) -> io::Result<()> {
        if self.unread.is_empty() && !self.output.is_empty() {
            self.stream.write_all(&self.output)?;
            self.output.clear();
        }
        Ok(())
    }

    /// The next message: whose it is (nobody's, if it comes late), which, and where its payload is.
    fn message(
        &mut self,
        slots: &[Slot],
    ) -> anyhow::Result<(Option<usize>, Kind, std::ops::Range<usize>)> {
        loop {
            let line = self.line()?;
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
                    let kind = match (subject.ends_with(".results"), reply) {
                        (true, _) => Kind::Result,
                        (false, Some(reply)) => Kind::Handshake(reply.to_owned()),
                        (false, None) => bail!("a handshake without a reply subject"),
                    };
                    return Ok((self.slot_of(subject, slots), kind, payload));
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
        let mut parts = subject.strip_prefix(INBOX)?.split('.').skip(1);
        let run: u64 = parts.next()?.parse().ok()?;
        let index: usize = parts.next()?.parse().ok()?;
        let call: u64 = parts.next()?.parse().ok()?;
        (run == self.run && slots.get(index)?.call == call).then_some(index)
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
        let count = self
            .stream
            .read(&mut self.input[self.unread.end..])
            .context("a reply is missing")?;
        ensure!(count > 0, "NATS closed the connection");
        self.unread.end += count;
        Ok(())
    }
}

impl Slot {
    fn new(call: u64, operations: &[Operation]) -> Self {
        Self {
            operation: usize::try_from(call).unwrap_or_default() % operations.len(),
            call,
            started: Instant::now(),
            sent: 0,
            received: 0,
            failed: false,
        }
    }
}

/// The half below which half of the calls were.
pub fn median<T: Copy + PartialOrd>(values: &mut [T]) -> T {
    values.sort_by(|a, b| a.partial_cmp(b).expect("comparable figures"));
    values[values.len() / 2]
}
