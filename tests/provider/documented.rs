//! The documented operator commands, run verbatim against a test's Redis, have the documented effects.

// Guarantees: G58

use std::fs;
use std::process::Command;

use tempfile::TempDir;
use test_support::host::Link;
use test_support::test_env::TestEnv;

/// Runs the commands of a document's block with this beginning; `redis-cli` connects to the test's
/// Redis.
fn run(page: &str, beginning: &str, env: &TestEnv) {
    let text = fs::read_to_string(page).unwrap();
    let block = text
        .split("```console\n")
        .find(|block| block.starts_with(&format!("$ {beginning}")))
        .unwrap_or_else(|| panic!("{page} has no block that begins with {beginning}"));
    let block = block.split("\n```").next().unwrap();
    let commands: Vec<&str> = block
        .lines()
        .filter_map(|line| line.strip_prefix("$ "))
        .collect();
    let script = format!(
        "set -euo pipefail\nredis-cli() {{ command redis-cli -e -p {} \"$@\"; }}\n{}",
        env.redis.port(),
        commands.join("\n")
    );
    let folder = TempDir::new().unwrap();
    let output = Command::new("bash")
        .args(["-c", &script])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{script}\n{output:?}");
}

// Guarantees: G24
#[tokio::test]
async fn keys_of_the_flat_layout_are_moved_into_a_bucket() {
    let env = TestEnv::builder().unlinked().start().await;
    let flat = env.link("c", "flat", &[("BUCKET_LAYOUT", "flat")]).await;
    let keys = ["a", "a b", "c:d", "default:e", "*", "\\"];
    for key in keys {
        flat.set("old", key, key.as_bytes()).await.unwrap();
    }
    run("docs/buckets.md", "redis-cli --scan", &env);
    let all = env
        .link("c", "all", &[("BUCKET_LAYOUT", "prefix-all")])
        .await;
    let mut expected = keys.map(str::to_owned);
    expected.sort();
    assert_eq!(all.keys("default").await.unwrap(), expected);
    for key in keys {
        let value = all.get("default", key).await.unwrap();
        assert_eq!(value.as_deref(), Some(key.as_bytes()), "{key}");
    }
}

// Guarantees: G26
#[tokio::test]
async fn the_documented_acl_user_has_exactly_the_permissions_of_its_link() {
    let env = TestEnv::builder().unlinked().start().await;
    run("docs/topologies.md", "redis-cli ACL SETUSER orders", &env);
    let url = env.redis.url().replace("//", "//orders:secret@");
    let config = [("URL", &*url), ("PREFIX", "orders/")];
    let link = env
        .add_link(&Link::new("c", "default").config(&config))
        .await;
    link.set("", "k", b"v").await.unwrap();
    assert_eq!(link.get("", "k").await.unwrap().unwrap(), b"v");
    assert!(link.exists("", "k").await.unwrap());
    assert_eq!(link.keys("").await.unwrap(), ["k"]);
    link.delete("", "k").await.unwrap();
    let large = 1 << 60;
    assert_eq!(link.increment("", "n", large).await.unwrap(), large);
    let outside = [("URL", &*url), ("PREFIX", "carts/")];
    let link = env
        .add_link(&Link::new("c", "outside").config(&outside))
        .await;
    let denied = link.get("", "k").await;
    assert_eq!(denied, Err(test_support::client::Error::AccessDenied));
}

// Guarantees: G41
#[tokio::test]
async fn the_documented_command_enables_keyspace_notifications() {
    let env = TestEnv::builder().unlinked().start().await;
    run("docs/watching.md", "redis-cli CONFIG SET", &env);
    let flags: Vec<String> = env
        .redis
        .command(&["CONFIG", "GET", "notify-keyspace-events"])
        .await;
    assert!("K$gxe".chars().all(|flag| flags[1].contains(flag)));
}
