//! A NATS server process, which can be stopped and restarted on its port.
//!
//! `NATS_SERVER` selects the binary; the default is `nats-server` on the `PATH`, then the one that
//! `make` has installed into `.tools/bin`.

use std::env;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::ports;
use crate::process::Process;
use crate::wait::{eventually_some, test_timeout};

/// The delay before a test's own connection reconnects.
const RECONNECT: Duration = Duration::from_millis(20);

/// A NATS server; killed when dropped.
pub struct Nats {
    name: String,
    port: u16,
    process: Option<Process>,
}

impl Nats {
    /// Starts a server on a free port and waits until it accepts connections.
    pub async fn start() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let mut nats = Self {
            name: format!(
                "kvredis-test-{}-{}",
                std::process::id(),
                COUNT.fetch_add(1, Ordering::Relaxed)
            ),
            port: ports::free(),
            process: None,
        };
        while !nats.try_start().await {
            nats.port = ports::free();
        }
        nats
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The URL for clients.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Kills the server.
    pub fn stop(&mut self) {
        self.process = None;
    }

    /// Starts the server again on its port.
    pub async fn restart(&mut self) {
        self.stop();
        assert!(
            self.try_start().await,
            "nats-server did not restart: is its port taken?"
        );
    }

    /// A new connection.
    pub async fn connect(&self) -> async_nats::Client {
        async_nats::ConnectOptions::new()
            .connection_timeout(test_timeout())
            // Shorter than kvredis's, whose reconnects are under test.
            .reconnect_delay_callback(|_| RECONNECT)
            // A response may consist of many messages, which arrive faster than a busy test reads.
            .subscription_capacity(1 << 20)
            .connect(self.url())
            .await
            .expect("NATS accepts connections")
    }

    /// Starts the process; returns false when it exits at once, as it does when its port is taken.
    async fn try_start(&mut self) -> bool {
        let mut command = Command::new(program());
        command
            .args(["--addr", "127.0.0.1", "--port", &self.port.to_string()])
            .args(["--name", &self.name]);
        let process = self
            .process
            .insert(Process::start("nats-server", command, Vec::new()));
        let url = format!("nats://127.0.0.1:{}", self.port);
        let name = self.name.as_str();
        let ready = eventually_some("nats-server accepts connections", async || {
            if process.try_wait().is_some() {
                return Some(false);
            }
            // The name distinguishes it from another process's server on the same port.
            let client = async_nats::connect(&url).await.ok()?;
            (client.server_info().server_name == name).then_some(true)
        })
        .await;
        if !ready {
            self.stop();
        }
        ready
    }
}

fn program() -> String {
    if let Ok(program) = env::var("NATS_SERVER") {
        return program;
    }
    let on_path = env::var_os("PATH")
        .is_some_and(|path| env::split_paths(&path).any(|dir| dir.join("nats-server").is_file()));
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/bin/nats-server");
    if !on_path && own.is_file() {
        own.display().to_string()
    } else {
        "nats-server".to_owned()
    }
}
