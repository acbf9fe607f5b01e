//! Test setup: a lattice for each test, and counter components linked to the provider.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use lattice::http::{self, Response};
use lattice::nats::free_port;
use lattice::{Control, Lattice, LinkSpec, Options, Progress, interrupt, wait};
use tokio::sync::Mutex;

/// The provider's id in tests that start it without wadm.
pub const PROVIDER: &str = "kvredis";
const HTTP_SERVER: &str = "httpserver";

/// Only one lattice runs at a time: hosts, wadm and the compilation of components need much CPU time,
/// and an interrupted test must stop its processes before the program exits.
static LATTICE_LOCK: Mutex<()> = Mutex::const_new(());

/// The process that a lattice has in addition to NATS, Redis and a host.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Extra {
    None,
    Wadm,
    SecretsBackend,
}

/// Runs a test in a new lattice. After a failure, the ends of all logs are printed.
pub async fn in_lattice(
    extra: Extra,
    test: impl AsyncFnOnce(&Lattice) -> Result<()>,
) -> Result<()> {
    let _guard = LATTICE_LOCK.lock().await;
    let options = Options {
        program: env!("CARGO_BIN_EXE_lattice").into(),
        wadm: extra == Extra::Wadm,
        secrets: extra == Extra::SecretsBackend,
    };
    interrupt::exit_on_signal(async {
        let lattice = Lattice::start(&options, &Progress::start()).await?;
        let result = test(&lattice).await;
        if result.is_err() {
            lattice.show_logs();
        }
        result
    })
    .await
}

/// The root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The archive under test.
pub fn archive() -> PathBuf {
    env::var_os("KVREDIS_ARCHIVE")
        .map_or_else(|| root().join("build/kvredis.par.gz"), PathBuf::from)
}

/// Starts the provider and the HTTP server.
pub async fn start_providers(lattice: &Lattice) -> Result<()> {
    let control = lattice.control();
    control.start_provider(PROVIDER, &archive(), &[]).await?;
    let http_server = root().join("build/http-server.par.gz");
    control.start_provider(HTTP_SERVER, &http_server, &[]).await
}

/// A counter component, reachable over HTTP.
pub struct Counter {
    id: String,
    address: String,
}

impl Counter {
    /// Starts the component with its own id and HTTP address.
    pub async fn start(control: &Control, id: &str) -> Result<Self> {
        let component = root().join("examples/counter/counter.wasm");
        control.start_component(id, &component).await?;
        let counter = Self {
            id: id.to_owned(),
            address: format!("127.0.0.1:{}", free_port()?),
        };
        let config = format!("{id}-http");
        control
            .put_config(&config, &[("address", &counter.address)])
            .await?;
        control
            .put_link(&LinkSpec {
                source: HTTP_SERVER,
                target: id,
                // Links from one source to the same package need different names.
                name: id,
                interfaces: "wasi:http/incoming-handler",
                source_config: &[&config],
                target_config: &[],
            })
            .await?;
        Ok(counter)
    }

    /// Starts the component with a link to a database, and waits until it is ready.
    pub async fn start_linked(lattice: &Lattice, id: &str, database: u8) -> Result<Self> {
        let counter = Self::start(lattice.control(), id).await?;
        counter.link_database(lattice, "default", database).await?;
        counter.wait_until_ready("default").await?;
        Ok(counter)
    }

    /// Links the component to the provider with named configurations and secrets.
    pub async fn link(&self, control: &Control, name: &str, config: &[&str]) -> Result<()> {
        control
            .put_link(&LinkSpec {
                source: &self.id,
                target: PROVIDER,
                name,
                interfaces: "wasi:keyvalue/store,atomics,batch",
                source_config: &[],
                target_config: config,
            })
            .await
    }

    /// Links the component to a database of the lattice's Redis.
    pub async fn link_database(&self, lattice: &Lattice, name: &str, database: u8) -> Result<()> {
        let control = lattice.control();
        let url = lattice.redis().url_of_database(database);
        // The host ignores a link that is put again with the same configuration names.
        let config = format!("{}-{name}-{database}", self.id);
        control.put_config(&config, &[("URL", &url)]).await?;
        self.link(control, name, &[&config]).await
    }

    /// Deletes a link.
    pub async fn unlink(&self, control: &Control, name: &str) -> Result<()> {
        control.delete_keyvalue_link(&self.id, name).await
    }

    /// The client name of the link's connection, as in `CLIENT LIST`.
    pub fn connection_name(&self, link: &str) -> String {
        format!("name=kvredis:{}:{link}", self.id)
    }

    /// Sends a `GET` request to a route with a query.
    pub async fn get(&self, route: &str) -> Result<Response> {
        http::get(&format!("http://{}{route}", self.address)).await
    }

    /// Sends a `PUT` request with a body.
    pub async fn put(&self, route: &str, body: Vec<u8>) -> Result<Response> {
        http::put(&format!("http://{}{route}", self.address), body).await
    }

    /// Expects this body from a route.
    pub async fn expect(&self, route: &str, expected: &str) -> Result<()> {
        let response = self.get(route).await?;
        let body = String::from_utf8_lossy(&response.bytes);
        ensure!(
            response.status == 200 && body == expected,
            "{route}: expected {expected:?}, got {} {body:?}",
            response.status
        );
        Ok(())
    }

    /// Increments the counter and expects this count.
    pub async fn expect_count(&self, query: &str, expected: u64) -> Result<()> {
        let response = self.get(&format!("/?{query}")).await?;
        ensure!(
            response.status == 200 && response.body == expected.to_string(),
            "{} ?{query}: expected {expected}, got {response:?}",
            self.id
        );
        Ok(())
    }

    /// Waits until the link and the HTTP address work, without incrementing a counter.
    pub async fn wait_until_ready(&self, link: &str) -> Result<()> {
        self.wait_for_exists("false", "nothing", link).await
    }

    /// Waits until `/exists` returns `expected` for a key.
    pub async fn wait_for_exists(&self, expected: &str, key: &str, link: &str) -> Result<()> {
        let route = format!("/exists?key={key}&link={link}");
        let what = format!("{} {route} to return {expected}", self.id);
        wait::until(&what, wait::TIMEOUT, async || {
            let response = self.get(&route).await?;
            ensure!(response.body == expected, "{response:?}");
            Ok(Some(()))
        })
        .await
    }

    /// Waits until a call fails, and returns the response.
    pub async fn wait_for_failure(&self, link: &str) -> Result<Response> {
        let route = format!("/get?key=nothing&link={link}");
        wait::until("calls to fail", wait::TIMEOUT, async || {
            let response = self.get(&route).await?;
            ensure!(response.status >= 500, "{response:?}");
            Ok(Some(response))
        })
        .await
        .context(self.id.clone())
    }
}
