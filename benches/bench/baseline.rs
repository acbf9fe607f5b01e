//! The SDK baseline: a provider with the same operations, built as wasmCloud's own providers are.
//!
//! It uses the SDK's `run_provider` and `serve_provider_exports` with the generated bindings,
//! multi-threaded Tokio, the redis crate's `ConnectionManager`, and the SDK's macro for trace
//! propagation. It is neither optimized nor slowed down.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{AsyncCommands, FromRedisValue};
use tokio::sync::RwLock;
use wasmcloud_provider_sdk::{
    Context, LinkConfig, Provider, get_connection, initialize_observability,
    propagate_trace_for_ctx, run_provider, serve_provider_exports,
};

mod bindings {
    wit_bindgen_wrpc::generate!({ world: "provider", path: "wit", generate_all });
}

use bindings::exports::wrpc::keyvalue::{atomics, batch, store};

type Response<T> = anyhow::Result<Result<T, store::Error>>;

#[derive(Clone, Default)]
struct SdkBaseline {
    connections: Arc<RwLock<HashMap<(String, String), ConnectionManager>>>,
}

/// Runs the provider until its host stops it.
pub fn main() -> anyhow::Result<()> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(serve())
}

async fn serve() -> anyhow::Result<()> {
    initialize_observability!("sdk-baseline", None::<String>);
    let baseline = SdkBaseline::default();
    let shutdown = run_provider(baseline.clone(), "sdk-baseline").await?;
    let connection = get_connection();
    let client = connection
        .get_wrpc_client(connection.provider_key())
        .await?;
    serve_provider_exports(&client, baseline, shutdown, bindings::serve).await
}

impl Provider for SdkBaseline {
    async fn receive_link_config_as_target(&self, link: LinkConfig<'_>) -> anyhow::Result<()> {
        let url = link.config.get("URL").context("no URL")?;
        let manager = ConnectionManager::new_with_config(
            redis::Client::open(url.as_str())?,
            ConnectionManagerConfig::new(),
        )
        .await?;
        let key = (link.source_id.to_owned(), link.link_name.to_owned());
        self.connections.write().await.insert(key, manager);
        Ok(())
    }
}

impl SdkBaseline {
    async fn execute<T: FromRedisValue>(
        &self,
        context: Option<Context>,
        command: &redis::Cmd,
    ) -> Result<T, store::Error> {
        let other = |error: String| store::Error::Other(error);
        let mut connection = self.connection(context).await?;
        command
            .query_async(&mut connection)
            .await
            .map_err(|error| other(error.to_string()))
    }

    async fn connection(
        &self,
        context: Option<Context>,
    ) -> Result<ConnectionManager, store::Error> {
        let context = context.ok_or_else(|| store::Error::Other("no context".to_owned()))?;
        let component = context.component.clone().unwrap_or_default();
        let key = (component, context.link_name().to_owned());
        let connections = self.connections.read().await;
        connections
            .get(&key)
            .cloned()
            .ok_or_else(|| store::Error::Other("no link".to_owned()))
    }
}

impl store::Handler<Option<Context>> for SdkBaseline {
    async fn get(
        &self,
        context: Option<Context>,
        _bucket: String,
        key: String,
    ) -> Response<Option<Bytes>> {
        propagate_trace_for_ctx!(context);
        let value: Result<Option<Vec<u8>>, _> =
            self.execute(context, redis::cmd("GET").arg(key)).await;
        Ok(value.map(|value| value.map(Bytes::from)))
    }

    async fn set(
        &self,
        context: Option<Context>,
        _bucket: String,
        key: String,
        value: Bytes,
    ) -> Response<()> {
        propagate_trace_for_ctx!(context);
        Ok(self
            .execute(context, redis::cmd("SET").arg(key).arg(value.to_vec()))
            .await)
    }

    async fn delete(&self, context: Option<Context>, _bucket: String, key: String) -> Response<()> {
        propagate_trace_for_ctx!(context);
        Ok(self.execute(context, redis::cmd("DEL").arg(key)).await)
    }

    async fn exists(
        &self,
        context: Option<Context>,
        _bucket: String,
        key: String,
    ) -> Response<bool> {
        propagate_trace_for_ctx!(context);
        Ok(self.execute(context, redis::cmd("EXISTS").arg(key)).await)
    }

    async fn list_keys(
        &self,
        context: Option<Context>,
        _bucket: String,
        cursor: Option<u64>,
    ) -> Response<store::KeyResponse> {
        propagate_trace_for_ctx!(context);
        let page: Result<(u64, Vec<String>), _> = self
            .execute(context, redis::cmd("SCAN").arg(cursor.unwrap_or(0)))
            .await;
        Ok(page.map(|(cursor, keys)| store::KeyResponse {
            keys,
            cursor: (cursor != 0).then_some(cursor),
        }))
    }
}

impl atomics::Handler<Option<Context>> for SdkBaseline {
    async fn increment(
        &self,
        context: Option<Context>,
        _bucket: String,
        key: String,
        delta: u64,
    ) -> Response<u64> {
        propagate_trace_for_ctx!(context);
        Ok(self
            .execute(context, redis::cmd("INCRBY").arg(key).arg(delta))
            .await)
    }
}

impl batch::Handler<Option<Context>> for SdkBaseline {
    async fn get_many(
        &self,
        context: Option<Context>,
        _bucket: String,
        keys: Vec<String>,
    ) -> Response<Vec<Option<(String, Bytes)>>> {
        propagate_trace_for_ctx!(context);
        let mut connection = match self.connection(context).await {
            Ok(connection) => connection,
            Err(error) => return Ok(Err(error)),
        };
        let values: Result<Vec<Option<Vec<u8>>>, _> = connection.mget(&keys).await;
        Ok(values
            .map(|values| {
                let pairs = keys.into_iter().zip(values);
                pairs
                    .map(|(key, value)| value.map(|value| (key, Bytes::from(value))))
                    .collect()
            })
            .map_err(|error| store::Error::Other(error.to_string())))
    }

    async fn set_many(
        &self,
        context: Option<Context>,
        _bucket: String,
        pairs: Vec<(String, Bytes)>,
    ) -> Response<()> {
        propagate_trace_for_ctx!(context);
        let mut mset = redis::cmd("MSET");
        for (key, value) in pairs {
            mset.arg(key).arg(value.to_vec());
        }
        Ok(self.execute(context, &mset).await)
    }

    async fn delete_many(
        &self,
        context: Option<Context>,
        _bucket: String,
        keys: Vec<String>,
    ) -> Response<()> {
        propagate_trace_for_ctx!(context);
        Ok(self.execute(context, redis::cmd("DEL").arg(keys)).await)
    }
}
