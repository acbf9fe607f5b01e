//! The functions of `wasi:keyvalue` as a component calls them, through the host.

use anyhow::{Result, ensure};

use crate::setup::{Counter, in_lattice, start_providers};

/// Larger than a NATS message may be (1 MiB).
const LARGE: usize = 3 * 1024 * 1024;

#[tokio::test]
async fn store_and_batch_work_through_the_host() -> Result<()> {
    in_lattice(false, false, async |lattice| {
        let (control, redis) = (lattice.control(), lattice.redis());
        start_providers(lattice).await?;
        let counter = Counter::start(control, "counter").await?;
        counter
            .link_to(control, "default", &redis.url_of_database(11))
            .await?;
        counter.is_ready("default").await?;
        store(&counter).await?;
        batch(&counter).await?;
        errors(&counter).await
    })
    .await
}

async fn store(counter: &Counter) -> Result<()> {
    let large: Vec<u8> = (0..LARGE).map(|index| (index % 251) as u8).collect();
    for value in [Vec::new(), b"\0\xff text\n".to_vec(), large] {
        let answer = counter.put("/set?key=a", value.clone()).await?;
        ensure!(answer.body == "ok", "{answer:?}");
        let answer = counter.call("/get?key=a").await?;
        ensure!(
            answer.bytes == value,
            "{} bytes came back as {}",
            value.len(),
            answer.bytes.len()
        );
    }
    counter.answers("/exists?key=a", "true\n").await?;
    counter.answers("/exists?key=a&bucket=b", "false\n").await?;
    counter.answers("/delete?key=a", "ok\n").await?;
    counter.answers("/delete?key=a", "ok\n").await?;
    ensure!(counter.call("/get?key=a").await?.status == 404);
    Ok(())
}

async fn batch(counter: &Counter) -> Result<()> {
    let pairs = b"x=1&y=2&z=3".to_vec();
    let answer = counter.put("/set-many?bucket=b", pairs).await?;
    ensure!(answer.body == "ok", "{answer:?}");
    let route = "/get-many?bucket=b&key=z&key=none&key=x&key=z";
    counter.answers(route, "z=3\n\nx=1\nz=3\n").await?;
    counter
        .answers("/delete-many?bucket=b&key=x", "ok\n")
        .await?;

    let answer = counter.call("/keys?bucket=b").await?;
    let mut keys: Vec<&str> = answer.body.lines().collect();
    keys.sort_unstable();
    ensure!(keys == ["y", "z"], "{answer:?}");
    Ok(())
}

/// Host 1.9 hands the error of `get` and `increment` to the component, which answers its words.
async fn errors(counter: &Counter) -> Result<()> {
    counter.put("/set?key=text", b"no number".to_vec()).await?;
    let answer = counter.call("/?key=text").await?;
    ensure!(
        answer.status == 500 && answer.body.contains("integer"),
        "{answer:?}"
    );
    let answer = counter.call("/get?key=k&bucket=a:b").await?;
    ensure!(answer.status == 404, "{answer:?}");
    ensure!(answer.body.contains("no such store"), "{answer:?}");
    Ok(())
}
