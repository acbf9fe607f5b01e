//! A TCP proxy in front of a Redis server. It records the commands that pass and injects faults of
//! networks and servers: it delays traffic, corrupts replies ([`Fault`]), and closes connections, also
//! at a certain command ([`Disconnect`]). In front of another server it only forwards and delays
//! ([`Proxy::opaque`]).

use std::collections::HashMap;
use std::future::pending;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// A proxy; its connections are closed when it is dropped.
pub struct Proxy {
    port: u16,
    state: Arc<ProxyState>,
    listening: JoinHandle<()>,
}

/// The point at which a connection that sends a certain command is closed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Disconnect {
    /// Before the command is forwarded.
    BeforeCommand,
    /// Before the command is forwarded, once.
    BeforeFirstCommand,
    /// After the command is forwarded and before its reply.
    AfterCommand,
}

/// The treatment of the bytes that pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Bytes are forwarded.
    None,
    /// Replies are held back; commands pass.
    HoldReplies,
    /// Nothing passes in either direction until the fault is lifted, as when a network drops packets
    /// for a while. An opaque proxy also closes new connections meanwhile.
    Stall,
    /// Like `Stall`, but a connection with traffic during the fault never recovers, as when a router
    /// has lost its state.
    StallForever,
    /// The connection is reset at the first reply.
    Reset,
    /// Replies are replaced with garbage.
    Garbage,
    /// Half of a reply is forwarded, and the rest never.
    Truncate,
}

/// Garbage replies: other protocols, and RESP with absurd numbers.
const GARBAGE: [&[u8]; 6] = [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
    b"*2000000000\r\n",
    b"$-7\r\n",
    b":12x\r\n",
    b"\0\0\0\0\0\0\0\0",
];

/// The maximum number of reply bytes that are read while replies are held back.
const MAX_HELD: usize = 1 << 20;

struct ProxyState {
    upstream: u16,
    /// True if the traffic is RESP, so that commands can be parsed.
    reads_commands: bool,
    fault: watch::Sender<Fault>,
    /// Incremented to close all current connections.
    generation: watch::Sender<u64>,
    seen: Mutex<Recorded>,
}

#[derive(Default)]
struct Recorded {
    connected: Vec<Instant>,
    commands: Vec<String>,
    disconnects: HashMap<String, Disconnect>,
    /// The number of reply bytes received while replies are held back.
    held: usize,
}

impl Proxy {
    /// Starts a proxy in front of a Redis on a local port.
    pub async fn start(upstream: u16) -> Self {
        Self::launch(upstream, true).await
    }

    /// Starts a proxy in front of any server on a local port.
    pub async fn opaque(upstream: u16) -> Self {
        Self::launch(upstream, false).await
    }

    async fn launch(upstream: u16, reads_commands: bool) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0))
            .await
            .expect("a free port");
        let port = listener
            .local_addr()
            .expect("a listener has an address")
            .port();
        let state = Arc::new(ProxyState {
            upstream,
            reads_commands,
            fault: watch::Sender::new(Fault::None),
            generation: watch::Sender::new(0),
            seen: Mutex::default(),
        });
        let listening = tokio::spawn(listen(listener, Arc::clone(&state)));
        Self {
            port,
            state,
            listening,
        }
    }

    /// The Redis URL of the proxy.
    pub fn url(&self) -> String {
        self.address("redis")
    }

    /// The URL of the proxy with another scheme.
    pub fn address(&self, scheme: &str) -> String {
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    /// Holds back replies from now on; commands pass.
    pub fn hold_replies(&self) {
        self.seen(|seen| seen.held = 0);
        self.inject(Fault::HoldReplies);
    }

    /// Returns true if a reply is being held back.
    pub fn has_held_replies(&self) -> bool {
        self.held_bytes() > 0
    }

    /// The number of reply bytes received since replies are held back.
    pub fn held_bytes(&self) -> usize {
        self.seen(|seen| seen.held)
    }

    /// Forwards the bytes held back and all later ones.
    pub fn release(&self) {
        self.inject(Fault::None);
    }

    /// Applies the fault to all connections from now on.
    pub fn inject(&self, fault: Fault) {
        self.state.fault.send_replace(fault);
    }

    /// Closes all current connections.
    pub fn disconnect_all(&self) {
        self.state
            .generation
            .send_modify(|generation| *generation += 1);
    }

    /// Closes every connection that sends the command.
    pub fn disconnect_on(&self, command: &str, disconnect: Disconnect) {
        self.seen(|seen| seen.disconnects.insert(command.to_uppercase(), disconnect));
    }

    /// Reverts [`Self::disconnect_on`].
    pub fn clear_disconnects(&self) {
        self.seen(|seen| seen.disconnects.clear());
    }

    /// The time of every accepted connection.
    pub fn connect_times(&self) -> Vec<Instant> {
        self.seen(|seen| seen.connected.clone())
    }

    /// The number of times that a command was sent.
    pub fn command_count(&self, command: &str) -> usize {
        self.seen(|seen| seen.commands.iter().filter(|name| *name == command).count())
    }

    /// The number of commands sent.
    pub fn total_commands(&self) -> usize {
        self.seen(|seen| seen.commands.len())
    }

    fn seen<T>(&self, look: impl FnOnce(&mut Recorded) -> T) -> T {
        self.state.seen(look)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
        self.disconnect_all();
    }
}

impl ProxyState {
    fn seen<T>(&self, look: impl FnOnce(&mut Recorded) -> T) -> T {
        look(&mut self.seen.lock().expect("the lock is not poisoned"))
    }

    /// Records commands; returns the first disconnect that one of them triggers.
    fn record(&self, commands: Vec<String>) -> Option<Disconnect> {
        self.seen(|seen| {
            let cut = commands.iter().find_map(|command| {
                let cut = seen.disconnects.get(command).copied()?;
                if cut == Disconnect::BeforeFirstCommand {
                    seen.disconnects.remove(command);
                    return Some(Disconnect::BeforeCommand);
                }
                Some(cut)
            });
            seen.commands.extend(commands);
            cut
        })
    }
}

async fn listen(listener: TcpListener, state: Arc<ProxyState>) {
    while let Ok((client, _)) = listener.accept().await {
        state.seen(|seen| seen.connected.push(Instant::now()));
        tokio::spawn(serve(client, Arc::clone(&state)));
    }
}

/// Forwards one connection until either side or a disconnect closes it.
async fn serve(client: TcpStream, state: Arc<ProxyState>) {
    let mut generation = state.generation.subscribe();
    if !state.reads_commands && *state.fault.borrow() == Fault::Stall {
        return;
    }
    // Without an upstream server the connection is accepted and closed.
    let Ok(server) = TcpStream::connect(("127.0.0.1", state.upstream)).await else {
        return;
    };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        _ = generation.changed() => {}
        _ = forward(from_client, to_server, &state) => {}
        _ = backward(from_server, to_client, &state) => {}
    }
}

async fn forward(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    state: &ProxyState,
) -> io::Result<()> {
    let mut commands = Commands::default();
    let mut fault = state.fault.subscribe();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        let cut = state
            .reads_commands
            .then(|| commands.feed(&buffer[..length]));
        let cut = cut.and_then(|commands| state.record(commands));
        if cut == Some(Disconnect::BeforeCommand) {
            return Ok(());
        }
        wait_until_lifted(&mut fault, |fault| fault == Fault::Stall).await?;
        if *fault.borrow() == Fault::StallForever {
            pending::<()>().await;
        }
        to.write_all(&buffer[..length]).await?;
        if cut == Some(Disconnect::AfterCommand) {
            return Ok(());
        }
    }
}

async fn backward(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    state: &ProxyState,
) -> io::Result<()> {
    let mut fault = state.fault.subscribe();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        let mut replies = buffer[..length].to_vec();
        // Replies held back are forwarded together once the fault is lifted.
        while matches!(*fault.borrow(), Fault::HoldReplies | Fault::Stall) {
            state.seen(|seen| seen.held = replies.len());
            tokio::select! {
                changed = fault.changed() => changed.map_err(io::Error::other)?,
                more = from.read(&mut buffer), if replies.len() < MAX_HELD => match more? {
                    0 => return Ok(()),
                    more => replies.extend_from_slice(&buffer[..more]),
                },
            }
        }
        let now = *fault.borrow();
        match now {
            Fault::Reset => {
                // Closing without lingering sends a reset.
                SockRef::from(to.as_ref()).set_linger(Some(Duration::ZERO))?;
                return Ok(());
            }
            Fault::StallForever => pending().await,
            Fault::Garbage => {
                // Rotates through the kinds, also over the handshakes of many connections.
                static NEXT: AtomicUsize = AtomicUsize::new(0);
                let kind = NEXT.fetch_add(1, Ordering::Relaxed) % GARBAGE.len();
                to.write_all(GARBAGE[kind]).await?;
            }
            Fault::Truncate => {
                to.write_all(&replies[..replies.len() / 2]).await?;
                // The truncated reply is lost; once the fault is lifted, the connection is closed.
                return wait_until_lifted(&mut fault, |fault| fault == Fault::Truncate).await;
            }
            _ => to.write_all(&replies).await?,
        }
    }
}

/// Waits until a fault is lifted.
async fn wait_until_lifted(
    fault: &mut watch::Receiver<Fault>,
    is_active: fn(Fault) -> bool,
) -> io::Result<()> {
    fault
        .wait_for(|fault| !is_active(*fault))
        .await
        .map(drop)
        .map_err(io::Error::other)
}

/// Parses the names of commands out of a stream of requests (arrays of bulk strings).
#[derive(Default)]
struct Commands {
    pending: Vec<u8>,
}

impl Commands {
    /// Parses the next bytes; returns the names of the commands that they complete.
    fn feed(&mut self, bytes: &[u8]) -> Vec<String> {
        self.pending.extend_from_slice(bytes);
        let mut names = Vec::new();
        while let Some((name, length)) = first_command(&self.pending) {
            names.push(name);
            self.pending.drain(..length);
        }
        names
    }
}

/// The name and the length of the first command, if it is complete.
fn first_command(bytes: &[u8]) -> Option<(String, usize)> {
    let (count, mut at) = header(bytes, 0, b'*')?;
    let mut name = None;
    for _ in 0..count {
        let (length, begin) = header(bytes, at, b'$')?;
        let word = bytes.get(begin..begin + length)?;
        name.get_or_insert_with(|| String::from_utf8_lossy(word).to_uppercase());
        at = begin + length + 2;
    }
    (at <= bytes.len()).then_some((name?, at))
}

/// Parses `*3\r\n` or `$5\r\n` at a position: the number, and the end of the line.
fn header(bytes: &[u8], at: usize, kind: u8) -> Option<(usize, usize)> {
    let rest = bytes.get(at..)?;
    let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
    assert_eq!(rest[0], kind, "requests are arrays of bulk strings");
    let number = std::str::from_utf8(&rest[1..end])
        .ok()?
        .parse()
        .expect("a valid length");
    Some((number, at + end + 2))
}

#[test]
fn command_parser_handles_split_input() {
    let stream = b"*2\r\n$3\r\nget\r\n$1\r\n*\r\n*1\r\n$4\r\nPING\r\n";
    let mut commands = Commands::default();
    let names: Vec<_> = stream
        .chunks(3)
        .flat_map(|piece| commands.feed(piece))
        .collect();
    assert_eq!(names, ["GET", "PING"]);
}
