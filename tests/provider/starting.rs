//! Startup and operation of a provider process: host data, health, log, and configuration updates.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt;
use rustix::process::Signal;
use serde_json::json;
use test_support::client::{Client, Error, other_error};
use test_support::host::Link;
use test_support::provider::ProviderProcess;
use test_support::test_env::{COMPONENT, TestEnv};
use test_support::wait::{eventually, eventually_eq};
use tokio::task::JoinHandle;

// Guarantees: G52
#[tokio::test]
async fn empty_stdin_is_missing_host_data() {
    for input in [&b""[..], b"\n", b"\r\n", b"   \r\n"] {
        let mut provider = ProviderProcess::with_input(input.to_vec());
        assert_eq!(provider.wait().await.code(), Some(2), "{input:?}");
        let text = provider.log().join("\n").to_lowercase();
        for word in ["kvredis", "wasmcloud", "host"] {
            assert!(text.contains(word), "no {word:?} in: {text}");
        }
        assert!(!text.contains("panicked"), "{text}");
    }
}

// Guarantees: G52
#[tokio::test]
async fn unreadable_host_data_is_not_printed() {
    let json = |text: &str| STANDARD.encode(text);
    for input in [
        "hunter2".to_owned(),
        "hunter2 hunter2 !!".to_owned(),
        json("hunter2"),
        json(r#"{"host_id": "hunter2""#),
        json(r#"{"host_id": ["hunter2"]}"#),
        json(r#"{"secrets": {"PASSWORD": {"kind": "hunter2", "value": "hunter2"}}}"#),
        json(r#"["hunter2"]"#),
    ] {
        let mut provider = ProviderProcess::with_input(format!("{input}\r\n").into());
        let status = provider.wait().await;
        let text = provider.log().join("\n");
        assert!(matches!(status.code(), Some(1..100)), "{status}: {text}");
        assert!(text.to_lowercase().contains("host data"), "{text}");
        assert!(!text.contains("panicked"), "{text}");
        assert!(
            !text.contains("hunter2") && !text.contains(&input),
            "{text}"
        );
    }
}

// Guarantees: G52
#[tokio::test]
async fn invalid_keys_in_host_data_end_the_process_with_an_error() {
    let env = TestEnv::start().await;
    let data = env.host.data();
    let mut wrong = [data.clone(), data.clone(), data];
    wrong[0].provider_xkey_private_key = "hunter2".to_owned();
    wrong[1].host_xkey_public_key = "hunter2".to_owned();
    wrong[2].lattice_rpc_user_jwt = "hunter2".to_owned();
    wrong[2].lattice_rpc_user_seed = "hunter2".to_owned();
    for data in wrong {
        let mut provider = ProviderProcess::start(&data);
        let status = provider.wait().await;
        let text = provider.log().join("\n");
        assert!(matches!(status.code(), Some(1..100)), "{status}: {text}");
        assert!(
            !text.contains("panicked") && !text.contains("hunter2"),
            "{text}"
        );
    }
}

// Guarantees: G52
#[tokio::test]
async fn host_data_without_keys_is_accepted() {
    // Hosts without a secrets backend may leave the provider's key empty.
    let env = TestEnv::builder()
        .unlinked()
        .data(|data| {
            data.provider_xkey_private_key = String::new();
            data.host_xkey_public_key = String::new();
        })
        .start()
        .await;
    let link = Link::new("c", "default").config(&[("URL", &env.redis.url())]);
    let payload = serde_json::to_vec(&env.host.definition(&link)).unwrap();
    // Such hosts send links to the provider's id.
    let subject = format!(
        "wasmbus.rpc.{}.{}.linkdefs.put",
        env.host.lattice(),
        env.host.provider_id()
    );
    env.host
        .nats()
        .publish(subject, payload.into())
        .await
        .unwrap();
    let client = env.client.component("c", "default");
    eventually("the provider has the link", async || {
        client.set("", "k", b"v").await.is_ok()
    })
    .await;
}

// Guarantees: G54
#[tokio::test]
async fn health_checks_get_replies_with_and_without_links() {
    let env = TestEnv::builder().unlinked().start().await;
    assert!(env.host.health().await.unwrap().healthy);
    env.link("c", "default", &[])
        .await
        .set("", "k", b"v")
        .await
        .unwrap();
    assert!(env.host.health().await.unwrap().healthy);
}

// Guarantees: G55
#[tokio::test]
async fn logs_are_json_with_structured_logging() {
    let mut env = TestEnv::builder()
        .data(|data| data.structured_logging = true)
        .start()
        .await;
    env.link(COMPONENT, "wrong", &[("SCAN_COUNT", "lots")])
        .await;
    env.provider.wait_for_log(&["SCAN_COUNT"]).await;
    env.provider.signal(Signal::TERM);
    env.provider.wait().await;
    for line in env.provider.log() {
        let json: serde_json::Value = serde_json::from_str(&line).expect(&line);
        assert!(json["level"].is_string(), "{line}");
    }
}

// Guarantees: G55
#[tokio::test]
async fn calls_are_not_logged() {
    let env = TestEnv::start().await;
    env.client.set("", "k", b"v").await.unwrap();
    env.client.get("named", "k").await.unwrap();
    let before = env.provider.log().len();
    for round in 0..50 {
        env.client.increment("named", "n", 1).await.unwrap();
        env.client.list_keys("", None).await.unwrap();
        other_error(
            env.client
                .component("stranger", "default")
                .get("", "k")
                .await,
        );
        let bad = format!("a:{round}");
        assert_eq!(env.client.get(&bad, "k").await, Err(Error::NoSuchStore));
    }
    let lines = env.provider.log().len() - before;
    assert!(lines < 10, "{lines} lines for 200 calls");
}

// Guarantees: G22
#[tokio::test]
async fn links_apply_updated_provider_configuration() {
    let redis = test_support::redis::Redis::start().await;
    let urls = [1, 2].map(|database| redis.url_of(database));
    let env = TestEnv::builder()
        .unlinked()
        .provider_config(&[("URL", &urls[0]), ("PREFIX", "one:")])
        .redis(redis)
        .start()
        .await;
    let client = env.add_link(&Link::new("c", "follows")).await;
    let own = env.link("c", "has its own", &[("PREFIX", "own:")]).await;
    client.set("", "k", b"1").await.unwrap();
    own.set("", "k", b"own").await.unwrap();
    assert_eq!(
        env.redis.command_in::<String>(1, &["GET", "one:k"]).await,
        "1"
    );
    let id = id_of(&env, "kvredis:c:has its own").await;

    env.host
        .update_config(&[("URL", &urls[1]), ("PREFIX", "two:")])
        .await;
    eventually("the new prefix is in effect", async || {
        client.get("", "k").await == Ok(None)
    })
    .await;
    client.set("", "k", b"2").await.unwrap();
    assert_eq!(
        env.redis.command_in::<String>(2, &["GET", "two:k"]).await,
        "2"
    );
    assert_eq!(own.get("", "k").await, Ok(Some(b"own".to_vec())));
    eventually_eq("old connections are closed", 2, async || {
        env.redis.connections().await
    })
    .await;
    assert_eq!(
        id_of(&env, "kvredis:c:has its own").await,
        id,
        "a link with its own settings reconnected"
    );

    // An update replaces the whole configuration: absent settings revert to their defaults.
    env.host.update_config(&[("URL", &urls[1])]).await;
    eventually("the default prefix is in effect", async || {
        client.get("", "two:k").await == Ok(Some(b"2".into()))
    })
    .await;

    env.host
        .update_config(&[("URL", &urls[1]), ("SCAN_COUNT", "lots")])
        .await;
    eventually("the invalid value is reported", async || {
        match client.get("", "k").await {
            Err(Error::Other(text)) => text.contains("SCAN_COUNT") && text.contains("lots"),
            _ => false,
        }
    })
    .await;
    env.host.update_config(&[("URL", &urls[0])]).await;
    eventually("the valid value is in effect", async || {
        client.get("", "one:k").await == Ok(Some(b"1".into()))
    })
    .await;
}

// Guarantees: G22
#[tokio::test]
async fn unreadable_configuration_is_ignored() {
    let env = TestEnv::builder()
        .provider_config(&[("PREFIX", "p:")])
        .start()
        .await;
    env.client.set("", "k", b"v").await.unwrap();
    for payload in [
        &b""[..],
        b"no json",
        b"[]",
        b"{\"PREFIX\": 1}",
        b"null",
        &[0xff; 50],
    ] {
        env.host.update_config_payload(payload.to_vec()).await;
    }
    assert!(env.host.health().await.is_some());
    assert_eq!(env.client.get("", "k").await, Ok(Some(b"v".to_vec())));
    env.host.update_config(&[("PREFIX", "q:")]).await;
    eventually("the next update is in effect", async || {
        env.client.get("", "k").await == Ok(None)
    })
    .await;
}

async fn id_of(env: &TestEnv, name: &str) -> Option<String> {
    let clients = env.redis.kvredis_clients().await;
    // Redis rejects spaces in client names, which kvredis replaces.
    let shape = |text: &str| text.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    clients
        .iter()
        .find(|client| shape(&client["name"]) == shape(name))
        .map(|client| client["id"].clone())
}

/// Replies as a host in whose lattice the component `early` is linked to the provider.
async fn reply_that_early_is_linked(env: &TestEnv) -> JoinHandle<()> {
    let subject = format!("wasmbus.ctl.v1.{}.link.get", env.host.lattice());
    let mut questions = env.host.nats().subscribe(subject).await.unwrap();
    let links = json!({ "success": true, "message": "", "response": [{
        "source_id": "early", "target": env.host.provider_id(), "name": "default",
        "wit_namespace": "wasi", "wit_package": "keyvalue", "interfaces": ["store"],
    }]});
    let nats = env.host.nats().clone();
    tokio::spawn(async move {
        while let Some(question) = questions.next().await {
            let result = links.to_string().into();
            nats.publish(question.reply.unwrap(), result).await.unwrap();
        }
    })
}

async fn assert_ends_at_a_call(env: &mut TestEnv, missed: &Client) {
    eventually("the process ends because of the missed link", async || {
        let _ = missed.get("", "k").await;
        env.provider.try_wait().is_some()
    })
    .await;
    assert_eq!(env.provider.wait().await.code(), Some(1));
}

/// A host sends a link once: a process that was not subscribed yet must receive it in another way.
// Guarantees: G16
#[tokio::test]
async fn a_restart_recovers_a_link_missed_during_startup() {
    let mut env = TestEnv::builder().unlinked().start().await;
    let missed = env.client.component("early", "default");
    assert!(other_error(missed.get("", "k").await).contains("early"));
    assert!(
        env.provider.try_wait().is_none(),
        "no host reports the link"
    );
    let host = reply_that_early_is_linked(&env).await;
    let other_link = env.client.component("early", "other");
    assert!(other_error(other_link.get("", "k").await).contains("other"));
    assert_ends_at_a_call(&mut env, &missed).await;
    env.provider.wait_for_log(&["early", "start"]).await;

    // The host data now contains the link.
    let mut data = env.host.data();
    let link = Link::new("early", "default").config(&[("URL", &env.redis.url())]);
    data.link_definitions.push(env.host.definition(&link));
    env.provider = ProviderProcess::start(&data);
    eventually("the provider has the link", async || {
        missed.set("", "k", b"v").await.is_ok()
    })
    .await;
    assert_eq!(env.provider.stop_and_count_log(&["ERROR"]).await, 0);
    host.abort();
}

/// A host omits a link whose configuration it cannot resolve, at every start, and restarts a provider
/// that has ended after five seconds: one such link must not take the others down.
// Guarantees: G16
#[tokio::test]
async fn a_link_omitted_by_the_host_causes_one_restart() {
    let mut env = TestEnv::builder().unlinked().start().await;
    let host = reply_that_early_is_linked(&env).await;
    let missed = env.client.component("early", "default");
    assert_ends_at_a_call(&mut env, &missed).await;

    env.provider = ProviderProcess::start(&env.host.data());
    env.host.ready().await;
    let works = env.link(COMPONENT, "default", &[]).await;
    eventually("calls fail with the reason", async || {
        match missed.get("", "k").await {
            Err(Error::Other(text)) => text.contains("secrets") && text.contains("host"),
            _ => false,
        }
    })
    .await;
    env.provider
        .wait_for_log(&["ERROR", "early", "pass on"])
        .await;
    works.set("", "k", b"v").await.unwrap();
    assert!(env.provider.try_wait().is_none());

    let link = Link::new("early", "default").config(&[("URL", &env.redis.url())]);
    env.host.put(&link).await;
    eventually("the link works once it is put", async || {
        missed.get("", "k").await.is_ok()
    })
    .await;

    // An operator's restart allows a new attempt.
    assert!(env.host.shutdown().await.is_some());
    assert_eq!(env.provider.wait().await.code(), Some(0));
    env.provider = ProviderProcess::start(&env.host.data());
    env.host.ready().await;
    assert_ends_at_a_call(&mut env, &missed).await;
    // Leaves no file in the folder for temporary files.
    env.provider = ProviderProcess::start(&env.host.data());
    env.host.ready().await;
    assert!(env.host.shutdown().await.is_some());
    host.abort();
}
