//! A complete test environment in one line:
//!
//! ```ignore
//! let env = TestEnv::start().await;
//! env.client.set("", "k", b"v").await.unwrap();
//! ```
//!
//! A NATS server, a Redis server, a provider, and one linked component, `counter`, as which `client`
//! calls. [`TestEnv::link`] adds components and links, [`TestEnv::builder`] offers further options.

use std::collections::HashMap;

use wasmcloud_provider_sdk::HostData;

use crate::client::{Client, Error};
use crate::component::Component;
use crate::host::{Host, Link, owned_config, secrets};
use crate::nats::Nats;
use crate::provider::ProviderProcess;
use crate::redis::Redis;
use crate::wait::{eventually, eventually_eq};

/// The component that is linked from the start.
pub const COMPONENT: &str = "counter";

/// The default RPC timeout of tests, longer than a host's: most tests are not about timeouts.
const RPC_TIMEOUT_MS: u64 = 10_000;

/// A provider with its servers and one component. The servers are dropped last.
pub struct TestEnv {
    /// Calls as [`COMPONENT`] over its link `default`.
    pub client: Client,
    pub host: Host,
    pub provider: ProviderProcess,
    pub redis: Redis,
    pub nats: Nats,
}

/// The options of a [`TestEnv`].
pub struct TestEnvBuilder {
    redis: Option<Redis>,
    nats: Option<Nats>,
    linked: bool,
    config: HashMap<String, String>,
    faults: &'static str,
    adjust: Box<dyn FnOnce(&mut HostData)>,
}

impl TestEnv {
    /// An environment where [`COMPONENT`] is linked to database 0 with default settings.
    pub async fn start() -> Self {
        Self::builder().start().await
    }

    /// An environment where the link has these settings in addition to its `URL`.
    pub async fn with(config: &[(&str, &str)]) -> Self {
        Self::builder().config(config).start().await
    }

    /// An environment with further options.
    pub fn builder() -> TestEnvBuilder {
        TestEnvBuilder {
            redis: None,
            nats: None,
            linked: true,
            config: HashMap::new(),
            faults: "",
            adjust: Box::new(|data| data.default_rpc_timeout_ms = Some(RPC_TIMEOUT_MS)),
        }
    }

    /// Links a component to this environment's Redis with additional settings, and returns its client.
    pub async fn link(&self, component: &str, name: &str, config: &[(&str, &str)]) -> Client {
        let link = Link::new(component, name)
            .config(&[("URL", &self.redis.url())])
            .config(config);
        self.add_link(&link).await
    }

    /// Puts a new link, and waits until calls use it.
    pub async fn add_link(&self, link: &Link) -> Client {
        let client = self.client.component(link.component(), link.name());
        let mut unlinked = client.probe().await;
        eventually("the provider accepts calls", async || {
            unlinked = client.probe().await;
            !matches!(unlinked, Err(Error::Call(_)))
        })
        .await;
        assert!(unlinked.is_err(), "a call without a link succeeded");
        self.host.put(link).await;
        eventually("the provider has the link", async || {
            client.probe().await != unlinked
        })
        .await;
        client
    }

    /// Deletes a link, and waits until calls fail because it is missing.
    pub async fn unlink(&self, component: &str, name: &str) {
        self.host.delete(component, name).await;
        let client = self.client.component(component, name);
        eventually("the provider has dropped the link", async || {
            match client.probe().await {
                Err(Error::Other(text)) => text.contains(component) && text.contains(name),
                _ => false,
            }
        })
        .await;
    }

    /// Runs a watching component on this environment's host.
    pub async fn component(&self, id: &str) -> Component {
        Component::start(self.host.nats(), self.host.lattice(), id).await
    }

    /// Puts a link from the provider to a component that watches this environment's Redis, and waits
    /// until the provider has subscribed.
    pub async fn watch(&self, component: &str, name: &str, config: &[(&str, &str)]) {
        let link = Link::new(component, name)
            .config(&[("URL", &self.redis.url())])
            .config(config);
        self.host.put_watch(&link).await;
        self.wait_for_watchers(component, name, 1).await;
    }

    /// Waits until this many processes are subscribed for the component over its link.
    pub async fn wait_for_watchers(&self, component: &str, name: &str, processes: usize) {
        let client = format!("kvredis:{component}:{name}");
        let what = format!("{processes} connections {client} subscribe");
        eventually_eq(&what, processes, async || {
            let clients = self.redis.kvredis_clients().await;
            let subscribes = |client: &HashMap<String, String>| {
                client.get("psub").is_some_and(|patterns| patterns != "0")
            };
            let ours = clients.iter().filter(|c| c.get("name") == Some(&client));
            ours.filter(|c| subscribes(c)).count()
        })
        .await;
    }

    /// Waits until Redis has no connection of the provider.
    pub async fn wait_for_no_connections(&self) {
        eventually("kvredis has closed its connections", async || {
            self.redis.connections().await == 0
        })
        .await;
    }
}

impl TestEnvBuilder {
    /// Uses this server instead of a new one for the first link.
    pub fn redis(mut self, redis: Redis) -> Self {
        self.redis = Some(redis);
        self
    }

    /// Uses this NATS server instead of a new one without credentials.
    pub fn nats(mut self, nats: Nats) -> Self {
        self.nats = Some(nats);
        self
    }

    /// Requests faults in the process, as `src/fault_injection.rs` describes them.
    pub fn faults(mut self, faults: &'static str) -> Self {
        self.faults = faults;
        self
    }

    /// Adds settings to the first link.
    pub fn config(mut self, config: &[(&str, &str)]) -> Self {
        self.config.extend(owned_config(config));
        self
    }

    /// Starts without a link.
    pub fn unlinked(mut self) -> Self {
        self.linked = false;
        self
    }

    /// Changes the host data.
    pub fn data(mut self, adjust: impl FnOnce(&mut HostData) + 'static) -> Self {
        let before = self.adjust;
        self.adjust = Box::new(|data| {
            before(data);
            adjust(data);
        });
        self
    }

    /// Sets the host's RPC timeout; `None` leaves it out of the host data.
    pub fn rpc_timeout_ms(self, milliseconds: Option<u64>) -> Self {
        self.data(move |data| data.default_rpc_timeout_ms = milliseconds)
    }

    /// Sets the provider's configuration.
    pub fn provider_config(self, config: &[(&str, &str)]) -> Self {
        let config = owned_config(config);
        self.data(move |data| data.config = config)
    }

    /// Sets the provider's secrets.
    pub fn provider_secrets(self, values: &[(&str, &str)]) -> Self {
        let values = secrets(values);
        self.data(move |data| data.secrets = values)
    }

    /// Starts everything.
    pub async fn start(self) -> TestEnv {
        let redis = match self.redis {
            Some(redis) => redis,
            None => Redis::start().await,
        };
        let nats = match self.nats {
            Some(nats) => nats,
            None => Nats::start().await,
        };
        let host = Host::new(nats.connect().await, nats.url());
        let mut data = host.data();
        (self.adjust)(&mut data);
        let provider = ProviderProcess::with_faults(&data, self.faults);
        host.ready().await;
        let client = Client::new(
            host.nats().clone(),
            host.lattice(),
            host.provider_id(),
            COMPONENT,
            "default",
        )
        .await;
        let env = TestEnv {
            client,
            host,
            provider,
            redis,
            nats,
        };
        if self.linked {
            let config: Vec<_> = self
                .config
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .collect();
            env.link(COMPONENT, "default", &config).await;
        }
        env
    }
}
