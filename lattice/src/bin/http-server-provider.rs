//! wasmCloud's HTTP server provider as a program: on crates.io it is only a library. The demo and
//! the lattice test pack it as `build/http-server.par.gz`.

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    wasmcloud_provider_http_server::run().await
}
