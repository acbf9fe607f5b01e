//! Listings are complete whatever happens to the servers meanwhile: slots that move, restarts,
//! failovers, cursors near 2^64. A key whose slot moved may be missed.

// Guarantees: G7

use std::collections::BTreeSet;

use test_support::client::Client;
use test_support::cluster::RedisCluster;
use test_support::host::Link;
use test_support::redis::Redis;
use test_support::test_env::TestEnv;
use test_support::wait::eventually;

async fn link(url: &str) -> (TestEnv, Client) {
    let env = TestEnv::builder().unlinked().start().await;
    let config = [
        ("URL", url),
        ("SCAN_COUNT", "100"),
        ("BACKEND_RECONNECT_MAX_DELAY_MS", "50"),
    ];
    let client = env
        .add_link(&Link::new("c", "default").config(&config))
        .await;
    (env, client)
}

async fn fill(client: &Client, count: usize) -> BTreeSet<String> {
    let keys: BTreeSet<String> = (0..count).map(|n| format!("key-{n}")).collect();
    let pairs: Vec<(&str, &[u8])> = keys.iter().map(|key| (key.as_str(), &b"v"[..])).collect();
    client.set_many("", &pairs).await.unwrap();
    keys
}

/// Lists all keys; `between` runs after each page, with the number of pages so far.
async fn list(client: &Client, mut between: impl AsyncFnMut(usize)) -> BTreeSet<String> {
    let (mut found, mut cursor, mut pages) = (BTreeSet::new(), None, 0);
    loop {
        let page = client.list_keys("", cursor).await.unwrap();
        found.extend(page.keys);
        cursor = page.cursor;
        pages += 1;
        assert!(pages < 2_000, "the listing does not end");
        if cursor.is_none() {
            return found;
        }
        between(pages).await;
    }
}

fn slot_of(key: &str) -> u16 {
    crc16::State::<crc16::XMODEM>::calculate(key.as_bytes()) % 16_384
}

/// The keys that a listing must have found: those whose slot did not move.
fn assert_complete(keys: &BTreeSet<String>, found: &BTreeSet<String>, moved: &BTreeSet<u16>) {
    let missing: Vec<&String> = keys
        .iter()
        .filter(|key| !found.contains(*key) && !moved.contains(&slot_of(key)))
        .collect();
    assert!(
        missing.is_empty(),
        "{} keys are missing: {missing:?}",
        missing.len()
    );
}

#[tokio::test]
async fn a_moved_slot_costs_no_other_keys() {
    let cluster = RedisCluster::start(0, &[]).await;
    // Before each page of the listing in turn, from the first node to the second.
    for moved_after in [1, 5, 10, 11, 12, 20] {
        let (_env, client) = link(&cluster.url()).await;
        let keys = fill(&client, 3_000).await;
        let home = cluster.slot_owner(0, 0).await.unwrap();
        let away = (home + 1) % 3;
        let found = list(&client, async |pages| {
            if pages == moved_after {
                cluster.move_slot(0, away).await;
            }
        })
        .await;
        assert_complete(&keys, &found, &BTreeSet::from([0]));
    }
}

#[tokio::test]
async fn slots_that_move_at_random_cost_no_other_keys() {
    let seed = fastrand::u64(..);
    println!("seed: {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut cluster = RedisCluster::start(0, &[]).await;
    let (_env, client) = link(&cluster.url()).await;
    let keys = fill(&client, 3_000).await;
    cluster.add_empty_node().await;
    for _ in 0..6 {
        let mut moved = BTreeSet::new();
        let found = list(&client, async |_| {
            // Each moved slot adds two ranges, and each range may cost another scan of its node.
            if moved.len() < 4 && random.u8(..8) == 0 {
                let slot = random.u16(..16_384);
                if cluster.move_slot(slot, random.usize(..4)).await {
                    moved.insert(slot);
                }
            }
        })
        .await;
        assert_complete(&keys, &found, &moved);
    }
}

#[tokio::test]
async fn a_restarted_server_is_scanned_again() {
    let env = TestEnv::builder().unlinked().start().await;
    let mut redis = Redis::durable().await;
    let config = [("URL", &*redis.url()), ("SCAN_COUNT", "100")];
    let client = env
        .add_link(&Link::new("c", "default").config(&config))
        .await;
    let keys = fill(&client, 10_000).await;
    let found = list(&client, async |pages| {
        if pages == 5 {
            redis.restart().await;
            eventually("Redis has loaded its data", async || {
                client.get("", "key-0").await.is_ok()
            })
            .await;
        }
    })
    .await;
    assert_complete(&keys, &found, &BTreeSet::new());
}

#[tokio::test]
async fn a_promoted_replica_is_scanned_from_its_beginning() {
    let mut cluster = RedisCluster::start(1, &[]).await;
    let (_env, client) = link(&cluster.url()).await;
    let keys = fill(&client, 3_000).await;
    let primary = cluster.slot_owner(0, 0).await.unwrap();
    let witness = (primary + 1) % 3;
    let found = list(&client, async |pages| {
        if pages == 5 {
            eventually("the replicas have all keys", async || {
                for node in &cluster.nodes {
                    if !node.is_in_sync().await {
                        return false;
                    }
                }
                true
            })
            .await;
            cluster.nodes[primary].kill();
            eventually("a replica is promoted, and calls succeed", async || {
                let owner = cluster.slot_owner(0, witness).await;
                owner.is_some_and(|owner| owner != primary) && client.get("", "key-0").await.is_ok()
            })
            .await;
        }
    })
    .await;
    assert_complete(&keys, &found, &BTreeSet::new());
}
