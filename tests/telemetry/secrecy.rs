//! No key, bucket, value or password is exported, whatever fails. tests/reliability/leaks.rs covers all
//! kinds of failures, and the log.

// Guarantees: G51

use test_support::collector;
use test_support::host::Link;
use test_support::redis::Redis;
use wasmcloud_provider_sdk::core::logging::Level;

use crate::observed::observed;

const PASSWORD: &str = "hunter2-the-password";
const KEY: &str = "some-secret-key";
const BUCKET: &str = "some-secret-bucket";
const VALUE: &str = "some-secret-value";

#[tokio::test]
async fn keys_buckets_values_and_passwords_are_not_exported() {
    let collector = collector::start();
    let redis = Redis::with_password(PASSWORD).await;
    let url = redis.url();
    let mut env = observed(&collector)
        .redis(redis)
        .unlinked()
        .data(|data| {
            data.log_level = Some(Level::Trace);
            data.otel_config.trace_level = Level::Trace;
        })
        .start()
        .await;
    let with_password = url.replace("redis://", &format!("redis://:{PASSWORD}@"));
    let works = Link::new("c", "works").secrets(&[("URL", &with_password)]);
    let wrong = Link::new("c", "wrong")
        .config(&[("URL", &url)])
        .secrets(&[("PASSWORD", "hunter2-the-other-one")]);
    let c = env.add_link(&works).await;
    let refused = env.add_link(&wrong).await;
    let list = format!("{KEY}-list");
    for bucket in ["", BUCKET] {
        c.set(bucket, KEY, VALUE).await.unwrap();
        c.get(bucket, KEY).await.unwrap();
        c.set_many(bucket, &[(KEY, VALUE)]).await.unwrap();
        c.get_many(bucket, &[KEY]).await.unwrap();
        c.exists(bucket, KEY).await.unwrap();
        c.increment(bucket, KEY, 1).await.unwrap_err();
        c.list_keys(bucket, None).await.unwrap();
        c.delete(bucket, KEY).await.unwrap();
        refused.get(bucket, KEY).await.unwrap_err();
        c.get(&format!("{BUCKET}:x"), KEY).await.unwrap_err();
    }
    let () = env
        .redis
        .command(&["CONFIG", "SET", "notify-keyspace-events", "KEA"])
        .await;
    let component = env.component("watcher").await;
    let watch = Link::new("watcher", "default")
        .config(&[("WATCH", &format!("SET@{KEY}"))])
        .secrets(&[("URL", &with_password)]);
    env.host.put_watch(&watch).await;
    env.wait_for_watchers("watcher", "default", 1).await;
    c.set("", KEY, VALUE).await.unwrap();
    component.wait_for_call(KEY).await;
    let () = env.redis.command(&["RPUSH", &list, VALUE]).await;
    c.get("", &list).await.unwrap_err();
    assert!(env.host.shutdown().await.is_some());
    env.provider.wait().await;

    assert!(collector.contains("wrpc:keyvalue/store/list-keys"));
    assert!(collector.contains("db.client.operation.duration"));
    assert!(collector.contains("kvredis has stopped"));
    for secret in ["hunter2", KEY, BUCKET, VALUE] {
        assert!(!collector.contains(secret), "{secret} was exported");
    }
    let decoded = format!("{:?}{:?}", collector.spans(), collector.points());
    for secret in ["hunter2", "some-secret"] {
        assert!(!decoded.contains(secret), "{secret} was exported");
    }
}
