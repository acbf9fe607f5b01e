//! The functions of `wasi:keyvalue`, called by a component through the host.

use anyhow::{Result, ensure};

use crate::setup::{Counter, Extra, in_lattice, start_providers};

/// Larger than the maximum size of a NATS message (1 MiB).
const LARGE: usize = 3 * 1024 * 1024;

// Guarantees: G10
#[tokio::test]
async fn store_and_batch_functions_work_through_the_host() -> Result<()> {
    in_lattice(Extra::None, async |lattice| {
        start_providers(lattice).await?;
        let counter = Counter::start_linked(lattice, "counter", 11).await?;
        store(&counter).await?;
        batch(&counter).await?;
        errors(&counter).await
    })
    .await
}

async fn store(counter: &Counter) -> Result<()> {
    let large: Vec<u8> = (0..LARGE).map(|index| (index % 251) as u8).collect();
    for value in [Vec::new(), b"\0\xff text\n".to_vec(), large] {
        let response = counter.put("/set?key=a", value.clone()).await?;
        ensure!(response.body == "ok", "{response:?}");
        let response = counter.get("/get?key=a").await?;
        ensure!(
            response.bytes == value,
            "{} bytes were stored, {} were read",
            value.len(),
            response.bytes.len()
        );
    }
    counter.expect("/exists?key=a", "true\n").await?;
    counter.expect("/exists?key=a&bucket=b", "false\n").await?;
    counter.expect("/delete?key=a", "ok\n").await?;
    counter.expect("/delete?key=a", "ok\n").await?;
    ensure!(counter.get("/get?key=a").await?.status == 404);
    Ok(())
}

async fn batch(counter: &Counter) -> Result<()> {
    let pairs = b"x=1&y=2&z=3".to_vec();
    let response = counter.put("/set-many?bucket=b", pairs).await?;
    ensure!(response.body == "ok", "{response:?}");
    let route = "/get-many?bucket=b&key=z&key=none&key=x&key=z";
    counter.expect(route, "z=3\n\nx=1\nz=3\n").await?;
    counter
        .expect("/delete-many?bucket=b&key=x", "ok\n")
        .await?;

    let response = counter.get("/keys?bucket=b").await?;
    let mut keys: Vec<&str> = response.body.lines().collect();
    keys.sort_unstable();
    ensure!(keys == ["y", "z"], "{response:?}");
    Ok(())
}

/// Host 1.9 passes errors of `get` and `increment` to the component, which returns their messages.
async fn errors(counter: &Counter) -> Result<()> {
    counter
        .put("/set?key=text", b"not a number".to_vec())
        .await?;
    let response = counter.get("/?key=text").await?;
    ensure!(
        response.status == 500 && response.body.contains("integer"),
        "{response:?}"
    );
    let response = counter.get("/get?key=k&bucket=a:b").await?;
    ensure!(response.status == 404, "{response:?}");
    ensure!(response.body.contains("no such store"), "{response:?}");
    Ok(())
}
