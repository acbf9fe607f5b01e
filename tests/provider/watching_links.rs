//! Watching: several links, updated links, invalid settings, trace contexts.

use std::time::Duration;

use futures_util::StreamExt;
use serde_json::json;
use test_support::host::Link;
use test_support::provider::ProviderProcess;
use test_support::test_env::TestEnv;
use test_support::wait::eventually;

use crate::watching::{WATCHER, notify, run, watching};

// Guarantees: G39
#[tokio::test]
async fn watching_links_are_independent() {
    let env = TestEnv::builder().unlinked().start().await;
    notify(&env.redis).await;
    let (one, two) = (env.component("one").await, env.component("two").await);
    env.watch("one", "default", &[("WATCH", "SET@a")]).await;
    env.watch("one", "more", &[("WATCH", "SET@b")]).await;
    env.watch("two", "default", &[("WATCH", "SET@b,DEL@a")])
        .await;
    run(&env.redis, &[&["SET", "a", "1"], &["SET", "b", "2"]]).await;
    // A value that is gone before its delivery is not notified.
    one.wait_for_call("a").await;
    run(&env.redis, &[&["DEL", "a"]]).await;
    eventually("all components have received their changes", async || {
        one.call_count() == 2 && two.call_count() == 2
    })
    .await;
    let links: Vec<_> = one
        .calls()
        .iter()
        .map(|received| {
            let link = received.headers.get("link-name").unwrap().to_string();
            (received.key.clone(), link)
        })
        .collect();
    assert!(
        links.contains(&("a".to_owned(), "default".to_owned())),
        "{links:?}"
    );
    assert!(
        links.contains(&("b".to_owned(), "more".to_owned())),
        "{links:?}"
    );
    assert_eq!(
        one.calls()[0].headers.get("source-id").unwrap().as_str(),
        env.host.provider_id()
    );

    env.host.delete_watch("one", "more").await;
    env.wait_for_watchers("one", "more", 0).await;
    run(&env.redis, &[&["SET", "b", "3"], &["SET", "a", "4"]]).await;
    eventually("the other components receive the change", async || {
        one.call_count() == 3 && two.call_count() == 3
    })
    .await;
    assert_eq!(one.wait_for_call("a").await.value.unwrap(), b"4");
    env.host.delete_watch("one", "default").await;
    env.host.delete_watch("two", "default").await;
    env.wait_for_no_connections().await;
}

// Guarantees: G39
#[tokio::test]
async fn an_updated_link_watches_with_its_new_settings() {
    let (env, component) = watching(&[("WATCH", "SET@a")]).await;
    env.watch(WATCHER, "default", &[("WATCH", "SET@b,SET@end")])
        .await;
    run(&env.redis, &[&["SET", "end", "now"]]).await;
    eventually("the new settings are in effect", async || {
        run(&env.redis, &[&["SET", "b", "1"]]).await;
        component.call_count() > 0
    })
    .await;
    env.wait_for_watchers(WATCHER, "default", 1).await;
    component.clear_calls();
    run(&env.redis, &[&["SET", "a", "2"], &["SET", "b", "3"]]).await;
    eventually("the component receives the change", async || {
        component
            .call_summaries()
            .iter()
            .any(|(_, _, value)| value == "3")
    })
    .await;
    assert!(component.calls().iter().all(|received| received.key != "a"));
}

// Guarantees: G22
#[tokio::test]
async fn provider_configuration_applies_to_watching_links() {
    let env = TestEnv::builder()
        .unlinked()
        .provider_config(&[("WATCH", "SET@a")])
        .start()
        .await;
    notify(&env.redis).await;
    let component = env.component(WATCHER).await;
    env.watch(WATCHER, "default", &[]).await;
    run(&env.redis, &[&["SET", "a", "1"]]).await;
    component.wait_for_call("a").await;
    env.host.update_config(&[("WATCH", "SET@b")]).await;
    eventually("the new configuration is in effect", async || {
        run(&env.redis, &[&["SET", "b", "2"]]).await;
        component.calls().iter().any(|received| received.key == "b")
    })
    .await;
}

// Guarantees: G20
#[tokio::test]
async fn invalid_settings_are_logged_once_and_do_not_affect_other_links() {
    let env = TestEnv::builder().unlinked().start().await;
    notify(&env.redis).await;
    let url = env.redis.url();
    for (name, config) in [
        ("none", &[][..]),
        ("bad", &[("WATCH", "GET@k")]),
        ("bucket", &[("WATCH", "SET@k"), ("WATCH_BUCKET", "a:b")]),
        ("flag", &[("WATCH", "SET@k"), ("WATCH_ONCE", "maybe")]),
    ] {
        let link = Link::new(WATCHER, name)
            .config(&[("URL", &url)])
            .config(config);
        env.host.put_watch(&link).await;
    }
    for (link, setting) in [
        ("none", "WATCH"),
        ("bad", "GET@k"),
        ("bucket", "a:b"),
        ("flag", "maybe"),
    ] {
        env.provider
            .wait_for_log(&["ERROR", link, "invalid setting", setting])
            .await;
    }
    let component = env.component(WATCHER).await;
    env.watch(WATCHER, "good", &[("WATCH", "SET@k")]).await;
    run(&env.redis, &[&["SET", "k", "v"]]).await;
    component.wait_for_call("k").await;
    assert_eq!(component.call_count(), 1);
    assert!(env.host.health().await.unwrap().healthy);
}

// Guarantees: G56
#[tokio::test]
async fn trace_contexts_are_propagated_to_the_component() {
    let env = TestEnv::builder()
        .unlinked()
        .data(|data| {
            // No collector listens there; the context is propagated anyway.
            data.otel_config.enable_observability = true;
            data.otel_config.observability_endpoint = Some("http://127.0.0.1:9".to_owned());
        })
        .start()
        .await;
    notify(&env.redis).await;
    let component = env.component(WATCHER).await;
    env.watch(WATCHER, "default", &[("WATCH", "SET@k")]).await;
    run(&env.redis, &[&["SET", "k", "v"]]).await;
    let received = component.wait_for_call("k").await;
    let parent = received
        .headers
        .get("traceparent")
        .expect("a trace context")
        .to_string();
    let parts: Vec<_> = parent.split('-').collect();
    assert_eq!(parts.len(), 4, "{parent}");
    assert!(
        parts[1].len() == 32 && parts[1] != "0".repeat(32),
        "{parent}"
    );
    assert!(received.at.elapsed() < Duration::from_secs(60));
}

/// Replies as a host with links from the provider to these components. Ends after the second request.
async fn reply_with_links_twice(env: &TestEnv, components: &[&str]) {
    let link = |component: &&str| {
        json!({
            "source_id": env.host.provider_id(), "target": component, "name": "default",
            "wit_namespace": "wasi", "wit_package": "keyvalue", "interfaces": ["watcher"],
        })
    };
    let links: Vec<_> = components.iter().map(link).collect();
    let result = json!({ "success": true, "message": "", "response": links }).to_string();
    let nats = env.host.nats();
    let subject = format!("wasmbus.ctl.v1.{}.link.get", env.host.lattice());
    let questions = nats.subscribe(subject).await.unwrap();
    let mut questions = questions.take(2);
    while let Some(question) = questions.next().await {
        let reply = question.reply.unwrap();
        nats.publish(reply, result.clone().into()).await.unwrap();
    }
}

/// A host sends a link once: a process that was not subscribed yet must receive it in another way.
// Guarantees: G16
#[tokio::test]
async fn a_restart_recovers_a_watching_link_missed_during_startup() {
    let mut env = TestEnv::builder().unlinked().start().await;
    notify(&env.redis).await;
    env.watch("known", "default", &[("WATCH", "SET@k")]).await;
    reply_with_links_twice(&env, &["known"]).await;
    // The provider has requested the links twice; its reply to a health check follows the second response.
    assert!(env.host.health().await.unwrap().healthy);
    let missed = env.provider.stop_and_count_log(&["was lost: exiting"]);
    assert_eq!(missed.await, 0);

    let mut env = TestEnv::builder().unlinked().start().await;
    notify(&env.redis).await;
    env.watch("known", "default", &[("WATCH", "SET@k")]).await;
    reply_with_links_twice(&env, &["known", "early"]).await;
    assert_ends_for(&mut env, "early").await;
    // The link causes one restart: the host may be unable to send it.
    env.provider = ProviderProcess::start(&env.host.data());
    reply_with_links_twice(&env, &["early"]).await;
    env.provider
        .wait_for_log(&["ERROR", "early", "pass on"])
        .await;
    assert!(env.host.health().await.is_some());
    assert!(env.host.shutdown().await.is_some());
}

// Guarantees: G16
#[tokio::test]
async fn a_restart_recovers_a_watching_link_put_during_a_nats_outage() {
    let mut env = TestEnv::builder().unlinked().start().await;
    reply_with_links_twice(&env, &[]).await;
    assert!(env.host.health().await.unwrap().healthy);
    env.nats.restart().await;
    reply_with_links_twice(&env, &["meanwhile"]).await;
    assert_ends_for(&mut env, "meanwhile").await;
    env.provider = ProviderProcess::start(&env.host.data());
    env.host.ready().await;
    assert!(env.host.shutdown().await.is_some());
}

async fn assert_ends_for(env: &mut TestEnv, component: &str) {
    assert_eq!(env.provider.wait().await.code(), Some(1));
    env.provider
        .wait_for_log(&[component, "was lost: exiting"])
        .await;
}
