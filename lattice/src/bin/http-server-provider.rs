//! wasmCloud's HTTP server provider as an executable; on crates.io it is only a library. The demo and
//! the tests use it packed as `build/http-server.par.gz`.

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    wasmcloud_provider_http_server::run().await
}
