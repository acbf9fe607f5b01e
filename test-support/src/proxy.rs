//! A TCP proxy in front of a Redis server, which sees the commands that pass and can misbehave as
//! networks and broken servers do: hold back what passes, spoil the answers ([`Fault`]), cut
//! connections, and do so at a certain command. In front of another kind of server it only passes
//! on and holds back ([`Proxy::opaque`]).

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
    state: Arc<State>,
    listening: JoinHandle<()>,
}

/// What the proxy does to a connection that sends a certain command.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Disconnect {
    /// Closes it, and Redis never sees the command.
    BeforeCommand,
    /// The same, but only the first time.
    BeforeFirstCommand,
    /// Passes the command on and closes the connection before the answer.
    AfterCommand,
}

/// What becomes of the bytes that pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// They arrive.
    None,
    /// Answers are held back; commands pass.
    HoldReplies,
    /// Nothing passes, either way, as when a network drops everything: late, it arrives. An opaque
    /// proxy takes no new connections meanwhile, as those would not come about.
    Stall,
    /// As before, but a connection on which something was to pass stays dead for ever, as when a
    /// router has forgotten it.
    StallForever,
    /// At the first answer the connection is reset.
    Reset,
    /// Something else comes instead of answers.
    Garbage,
    /// Half of an answer comes, and the rest never.
    Truncate,
}

/// What comes instead of answers: other protocols, and Redis's own with numbers gone mad.
const GARBAGE: [&[u8]; 6] = [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
    b"*2000000000\r\n",
    b"$-7\r\n",
    b":12x\r\n",
    b"\0\0\0\0\0\0\0\0",
];

/// So many bytes of answers are read at most while they are held back.
const MOST_HELD: usize = 1 << 20;

struct State {
    upstream: u16,
    /// Whether the commands are Redis's, and can be read.
    reads_commands: bool,
    fault: watch::Sender<Fault>,
    /// Counted up to close all connections that there are.
    generation: watch::Sender<u64>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    connected: Vec<Instant>,
    commands: Vec<String>,
    cuts: HashMap<String, Disconnect>,
    /// How many bytes of answers came while they were held back.
    held: usize,
}

impl Proxy {
    /// Starts a proxy in front of a Redis at a port of this machine.
    pub async fn start(upstream: u16) -> Self {
        Self::launch(upstream, true).await
    }

    /// Starts a proxy in front of any server at a port of this machine.
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
        let state = Arc::new(State {
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

    /// The address of the proxy.
    pub fn url(&self) -> String {
        self.address("redis")
    }

    /// Its address for another protocol.
    pub fn address(&self, scheme: &str) -> String {
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    /// From now on answers are held back; commands pass.
    pub fn hold_replies(&self) {
        self.seen(|seen| seen.held = 0);
        self.inject(Fault::HoldReplies);
    }

    /// Whether an answer has come that is held back.
    pub fn has_held_replies(&self) -> bool {
        self.held_bytes() > 0
    }

    /// How many bytes of answers have come since they are held back.
    pub fn held_bytes(&self) -> usize {
        self.seen(|seen| seen.held)
    }

    /// Lets through what was held back, and everything after it.
    pub fn release(&self) {
        self.inject(Fault::None);
    }

    /// From now on this becomes of what passes, on all connections.
    pub fn inject(&self, fault: Fault) {
        self.state.fault.send_replace(fault);
    }

    /// Closes all connections that there are.
    pub fn disconnect_all(&self) {
        self.state
            .generation
            .send_modify(|generation| *generation += 1);
    }

    /// Closes every connection at a command, before Redis sees it or before it answers.
    pub fn disconnect_on(&self, command: &str, cut: Disconnect) {
        self.seen(|seen| seen.cuts.insert(command.to_uppercase(), cut));
    }

    /// Ends what [`Self::cut_at`] began.
    pub fn clear_disconnects(&self) {
        self.seen(|seen| seen.cuts.clear());
    }

    /// When connections have been made, each of them.
    pub fn connect_times(&self) -> Vec<Instant> {
        self.seen(|seen| seen.connected.clone())
    }

    /// How often a command has been sent.
    pub fn command_count(&self, command: &str) -> usize {
        self.seen(|seen| seen.commands.iter().filter(|name| *name == command).count())
    }

    /// How many commands have been sent in all.
    pub fn total_commands(&self) -> usize {
        self.seen(|seen| seen.commands.len())
    }

    fn seen<T>(&self, look: impl FnOnce(&mut Seen) -> T) -> T {
        self.state.seen(look)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
        self.disconnect_all();
    }
}

impl State {
    fn seen<T>(&self, look: impl FnOnce(&mut Seen) -> T) -> T {
        look(&mut self.seen.lock().expect("nobody panics with the lock"))
    }

    /// Takes note of commands; answers the first cut that one of them is the occasion for.
    fn note(&self, commands: Vec<String>) -> Option<Disconnect> {
        self.seen(|seen| {
            let cut = commands.iter().find_map(|command| {
                let cut = seen.cuts.get(command).copied()?;
                if cut == Disconnect::BeforeFirstCommand {
                    seen.cuts.remove(command);
                    return Some(Disconnect::BeforeCommand);
                }
                Some(cut)
            });
            seen.commands.extend(commands);
            cut
        })
    }
}

async fn listen(listener: TcpListener, state: Arc<State>) {
    while let Ok((client, _)) = listener.accept().await {
        state.seen(|seen| seen.connected.push(Instant::now()));
        tokio::spawn(serve(client, Arc::clone(&state)));
    }
}

/// Serves one connection until either side closes it or it is cut.
async fn serve(client: TcpStream, state: Arc<State>) {
    let mut generation = state.generation.subscribe();
    if !state.reads_commands && *state.fault.borrow() == Fault::Stall {
        return;
    }
    // Without an upstream server the connection is taken and closed.
    let Ok(server) = TcpStream::connect(("127.0.0.1", state.upstream)).await else {
        return;
    };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        _ = generation.changed() => {}
        _ = forward(from_client, to_server, &state) => {}
        _ = answer(from_server, to_client, &state) => {}
    }
}

async fn forward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, state: &State) -> io::Result<()> {
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
        let cut = cut.and_then(|commands| state.note(commands));
        if cut == Some(Disconnect::BeforeCommand) {
            return Ok(());
        }
        over(&mut fault, |fault| fault == Fault::Stall).await?;
        if *fault.borrow() == Fault::StallForever {
            pending::<()>().await;
        }
        to.write_all(&buffer[..length]).await?;
        if cut == Some(Disconnect::AfterCommand) {
            return Ok(());
        }
    }
}

async fn answer(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, state: &State) -> io::Result<()> {
    let mut fault = state.fault.subscribe();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        let mut answers = buffer[..length].to_vec();
        // What is held back arrives at once when it is let through.
        while matches!(*fault.borrow(), Fault::HoldReplies | Fault::Stall) {
            state.seen(|seen| seen.held = answers.len());
            tokio::select! {
                changed = fault.changed() => changed.map_err(io::Error::other)?,
                more = from.read(&mut buffer), if answers.len() < MOST_HELD => match more? {
                    0 => return Ok(()),
                    more => answers.extend_from_slice(&buffer[..more]),
                },
            }
        }
        let now = *fault.borrow();
        match now {
            Fault::Reset => {
                // Closed without lingering, which the other side sees as a reset.
                SockRef::from(to.as_ref()).set_linger(Some(Duration::ZERO))?;
                return Ok(());
            }
            Fault::StallForever => pending().await,
            Fault::Garbage => {
                // Each time another kind, also at the log-ins of many connections.
                static NEXT: AtomicUsize = AtomicUsize::new(0);
                let kind = NEXT.fetch_add(1, Ordering::Relaxed) % GARBAGE.len();
                to.write_all(GARBAGE[kind]).await?;
            }
            Fault::Truncate => {
                to.write_all(&answers[..answers.len() / 2]).await?;
                // What is lost is lost: when all is well again, the connection ends.
                return over(&mut fault, |fault| fault == Fault::Truncate).await;
            }
            _ => to.write_all(&answers).await?,
        }
    }
}

/// Waits until a fault is over.
async fn over(fault: &mut watch::Receiver<Fault>, lasts: fn(Fault) -> bool) -> io::Result<()> {
    fault
        .wait_for(|fault| !lasts(*fault))
        .await
        .map(drop)
        .map_err(io::Error::other)
}

/// Finds the names of commands in a stream of requests: arrays of bulk strings.
#[derive(Default)]
struct Commands {
    pending: Vec<u8>,
}

impl Commands {
    /// Takes the next bytes; answers the names of the commands that they complete.
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

/// Reads `*3\r\n` or `$5\r\n` at a position: the number, and where the line ends.
fn header(bytes: &[u8], at: usize, kind: u8) -> Option<(usize, usize)> {
    let rest = bytes.get(at..)?;
    let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
    assert_eq!(rest[0], kind, "requests are arrays of bulk strings");
    let number = std::str::from_utf8(&rest[1..end])
        .ok()?
        .parse()
        .expect("a length");
    Some((number, at + end + 2))
}

#[test]
fn commands_are_found_in_pieces() {
    let stream = b"*2\r\n$3\r\nget\r\n$1\r\n*\r\n*1\r\n$4\r\nPING\r\n";
    let mut commands = Commands::default();
    let names: Vec<_> = stream
        .chunks(3)
        .flat_map(|piece| commands.feed(piece))
        .collect();
    assert_eq!(names, ["GET", "PING"]);
}
