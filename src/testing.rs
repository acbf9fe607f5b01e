//! The public surface of the library, for tests and fuzzing only. It may change with every version.

use std::collections::HashMap;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

pub use crate::error::{Error, ErrorKind};
pub use crate::keyvalue::call::{Call, Response};
pub use crate::keyvalue::store::KeyResponse;
pub use crate::redis::command::SplitBytes;
pub use crate::wrpc::client::WatchEvent;
pub use crate::wrpc::codec::{DecodeError, Writer};
pub use crate::wrpc::functions::{Function, encode_result};

use crate::link::registry::{LinkDefinition, ProviderLayers};
use crate::link::table::Links;
use crate::settings::catalog;
use crate::settings::origin::Origin;
use crate::settings::provider_settings::ProviderSettings;
use crate::settings::source::Layer;
use crate::tasks;
use crate::wrpc::server::Server;

/// The names of all settings, those of links first.
pub fn setting_names() -> impl Iterator<Item = &'static str> {
    catalog::setting_names()
}

/// Serves calls of `component` over its default link, which has this configuration, on the current
/// runtime for as long as that runs.
///
/// # Errors
///
/// The NATS client is closed.
pub async fn serve(
    nats: async_nats::Client,
    (lattice, provider): (&str, &str),
    component: &str,
    config: &HashMap<String, String>,
) -> Result<(), async_nats::SubscribeError> {
    let layers = ProviderLayers {
        secrets: Layer::empty(Origin::ProviderSecrets),
        config: Layer::empty(Origin::ProviderConfig),
    };
    let links = Links::new(layers, Arc::default());
    links.put(LinkDefinition {
        component: component.to_owned(),
        name: "default".to_owned(),
        secrets: Layer::empty(Origin::LinkSecrets),
        config: Layer::config(Origin::LinkConfig, config),
    });
    let server = Server::start(
        nats,
        (lattice, provider),
        Arc::new(links),
        &ProviderSettings::default(),
        Duration::from_secs(10),
    )
    .await?;
    tasks::spawn_essential("serving of calls", server.run(pending())).detach();
    Ok(())
}
