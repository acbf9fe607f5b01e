//! A NATS server process, which can be stopped and restarted on its port.
//!
//! `NATS_SERVER` selects the binary; the default is `nats-server` on the `PATH`, then the one that
//! `make` has installed into `.tools/bin`.

use std::env;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_nats::ConnectOptions;

use crate::certificates::Certificate;
use crate::nats_jwt::JwtUser;
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
    access: Access,
}

/// The requirements of a server for connections.
struct Access {
    /// The server's arguments that require it.
    arguments: Vec<String>,
    scheme: &'static str,
    /// The credentials in the URL, with the `@`.
    userinfo: String,
    /// Adds it to the options of a client.
    options: Box<dyn Fn(ConnectOptions) -> ConnectOptions + Send + Sync>,
}

impl Default for Access {
    fn default() -> Self {
        Self {
            arguments: Vec::new(),
            scheme: "nats",
            userinfo: String::new(),
            options: Box::new(|options| options),
        }
    }
}

impl Nats {
    /// Starts a server on a free port and waits until it accepts connections.
    pub async fn start() -> Self {
        Self::start_with(Access::default()).await
    }

    /// Starts a server that requires a user and password. `userinfo` is their form in a URL.
    pub async fn with_password(user: &str, password: &str, userinfo: &str) -> Self {
        let (user, password) = (user.to_owned(), password.to_owned());
        Self::start_with(Access {
            arguments: ["--user", &user, "--pass", &password]
                .map(str::to_owned)
                .into(),
            userinfo: format!("{userinfo}@"),
            options: Box::new(move |options| {
                options.user_and_password(user.clone(), password.clone())
            }),
            ..Access::default()
        })
        .await
    }

    /// Starts a server that requires a token, which needs no encoding in a URL.
    pub async fn with_token(token: &str) -> Self {
        let token = token.to_owned();
        Self::start_with(Access {
            arguments: ["--auth", &token].map(str::to_owned).into(),
            userinfo: format!("{token}@"),
            options: Box::new(move |options| options.token(token.clone())),
            ..Access::default()
        })
        .await
    }

    /// Starts a server that requires the JWT and seed of this user.
    pub async fn with_jwt(user: &JwtUser) -> Self {
        let JwtUser { jwt, seed, .. } = user;
        let credentials = format!(
            "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        );
        Self::start_with(Access {
            arguments: ["--config", &user.server_config()]
                .map(str::to_owned)
                .into(),
            options: Box::new(move |options| {
                options.credentials(&credentials).expect("a JWT and a seed")
            }),
            ..Access::default()
        })
        .await
    }

    /// Starts a server that requires TLS, with a certificate of the authority in the file `ca`.
    pub async fn with_tls(certificate: &Certificate, ca: &str) -> Self {
        let ca = ca.to_owned();
        let (cert, key) = (&certificate.cert, &certificate.key);
        Self::start_with(Access {
            arguments: ["--tls", "--tlscert", cert, "--tlskey", key]
                .map(str::to_owned)
                .into(),
            scheme: "tls",
            options: Box::new(move |options| options.add_root_certificates(ca.clone().into())),
            ..Access::default()
        })
        .await
    }

    async fn start_with(access: Access) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let mut nats = Self {
            name: format!(
                "kvredis-test-{}-{}",
                std::process::id(),
                COUNT.fetch_add(1, Ordering::Relaxed)
            ),
            port: ports::free(),
            process: None,
            access,
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

    /// The URL for clients, with the user and password or token that the server requires.
    pub fn url(&self) -> String {
        let Access {
            scheme, userinfo, ..
        } = &self.access;
        format!("{scheme}://{userinfo}127.0.0.1:{}", self.port)
    }

    /// The URL without credentials.
    pub fn bare_url(&self) -> String {
        format!("{}://127.0.0.1:{}", self.access.scheme, self.port)
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
        (self.access.options)(ConnectOptions::new())
            .connection_timeout(test_timeout())
            // Shorter than kvredis's, whose reconnects are under test.
            .reconnect_delay_callback(|_| RECONNECT)
            // A response may consist of many messages, which arrive faster than a busy test reads.
            .subscription_capacity(1 << 20)
            .connect(self.bare_url())
            .await
            .expect("NATS accepts connections")
    }

    /// Starts the process; returns false when it exits at once, as it does when its port is taken.
    async fn try_start(&mut self) -> bool {
        let mut command = Command::new(program());
        command
            .args(["--addr", "127.0.0.1", "--port", &self.port.to_string()])
            .args(["--name", &self.name])
            .args(&self.access.arguments);
        let url = self.bare_url();
        let process = self
            .process
            .insert(Process::start("nats-server", command, Vec::new()));
        let name = self.name.as_str();
        let ready = eventually_some("nats-server accepts connections", async || {
            if process.try_wait().is_some() {
                return Some(false);
            }
            // The name distinguishes it from another process's server on the same port.
            let options = (self.access.options)(ConnectOptions::new());
            let client = options.connect(&url).await.ok()?;
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
