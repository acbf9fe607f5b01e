//! What the tests share: a lattice for each, one after another, and components that count.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use lattice::http::{self, Answer};
use lattice::nats::free_port;
use lattice::{Control, Lattice, LinkSpec, Options, Progress, interrupt, wait};
use tokio::sync::Mutex;

/// The provider's id in tests without wadm.
pub const PROVIDER: &str = "kvredis";
const HTTP_SERVER: &str = "httpserver";

/// Hosts, wadm and compilers of components are heavy, and an interrupted test must be able to stop
/// what it started before the program ends: so one lattice at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// Runs a test in a new lattice. When it fails, the ends of all logs are printed.
pub async fn in_lattice(
    wadm: bool,
    secrets: bool,
    test: impl AsyncFnOnce(&Lattice) -> Result<()>,
) -> Result<()> {
    let _turn = ONE_AT_A_TIME.lock().await;
    let options = Options {
        program: env!("CARGO_BIN_EXE_lattice").into(),
        wadm,
        secrets,
    };
    interrupt::guard(async {
        let lattice = Lattice::start(&options, &Progress::start()).await?;
        let result = test(&lattice).await;
        if result.is_err() {
            lattice.show_logs();
        }
        result
    })
    .await
}

/// The repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The archive that is tested.
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
    /// Starts the component under an id of its own, with an HTTP address of its own.
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
                // A source has one link of a name for a package.
                name: id,
                interfaces: "wasi:http/incoming-handler",
                source_config: &[&config],
                target_config: &[],
            })
            .await?;
        Ok(counter)
    }

    /// Links it to the provider by a link name, with named configurations and secrets.
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

    /// Links it with a new configuration that holds a `URL`.
    pub async fn link_to(&self, control: &Control, name: &str, url: &str) -> Result<()> {
        // The host takes a link for unchanged when its configurations have the same names.
        let database = url.rsplit('/').next().unwrap_or_default();
        let config = format!("{}-{name}-{database}", self.id);
        control.put_config(&config, &[("URL", url)]).await?;
        self.link(control, name, &[&config]).await
    }

    /// Deletes the link.
    pub async fn unlink(&self, control: &Control, name: &str) -> Result<()> {
        control.delete_keyvalue_link(&self.id, name).await
    }

    /// The name that its connection has in Redis.
    pub fn connection(&self, link: &str) -> String {
        format!("name=kvredis:{}:{link}", self.id)
    }

    /// One call, to a route with a query.
    pub async fn call(&self, route: &str) -> Result<Answer> {
        http::get(&format!("http://{}{route}", self.address)).await
    }

    /// One call with `PUT` and a body.
    pub async fn put(&self, route: &str, body: Vec<u8>) -> Result<Answer> {
        http::put(&format!("http://{}{route}", self.address), body).await
    }

    /// One call that answers this text.
    pub async fn answers(&self, route: &str, expected: &str) -> Result<()> {
        let answer = self.call(route).await?;
        let body = String::from_utf8_lossy(&answer.bytes);
        ensure!(
            answer.status == 200 && body == expected,
            "{route}: expected {expected:?}, got {} {body:?}",
            answer.status
        );
        Ok(())
    }

    /// Counts once more and expects this number.
    pub async fn counts(&self, query: &str, expected: u64) -> Result<()> {
        let answer = self.call(&format!("/?{query}")).await?;
        ensure!(
            answer.status == 200 && answer.body == expected.to_string(),
            "{} ?{query}: expected {expected}, got {answer:?}",
            self.id
        );
        Ok(())
    }

    /// Waits until the link and the HTTP address work. It counts nothing.
    pub async fn is_ready(&self, link: &str) -> Result<()> {
        self.exists_answers("false", "nothing", link).await
    }

    /// Waits until `/exists` answers so for a key.
    pub async fn exists_answers(&self, expected: &str, key: &str, link: &str) -> Result<()> {
        let route = format!("/exists?key={key}&link={link}");
        let what = format!("{} {route} to answer {expected}", self.id);
        wait::until(&what, wait::SOON, async || {
            let answer = self.call(&route).await?;
            ensure!(answer.body == expected, "{answer:?}");
            Ok(Some(()))
        })
        .await
    }

    /// Waits until a call fails.
    pub async fn fails(&self, link: &str) -> Result<Answer> {
        let route = format!("/get?key=nothing&link={link}");
        wait::until("calls to fail", wait::SOON, async || {
            let answer = self.call(&route).await?;
            ensure!(answer.status >= 500, "{answer:?}");
            Ok(Some(answer))
        })
        .await
        .context(self.id.clone())
    }
}
