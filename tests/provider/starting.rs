//! A process of the provider while it starts and runs: host data, health, log, new configuration.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt;
use rustix::process::Signal;
use serde_json::json;
use tokio::task::JoinHandle;

use crate::common::client::{Client, Error, other};
use crate::common::host::Link;
use crate::common::provider::Provider;
use crate::common::wait::{eventually, eventually_eq};
use crate::common::world::{COMPONENT, World};

#[tokio::test]
async fn without_host_data_it_says_what_it_is_and_how_to_start_it() {
    for input in [&b""[..], b"\n", b"\r\n", b"   \r\n"] {
        let mut provider = Provider::with_input(input.to_vec());
        assert_eq!(provider.end().await.code(), Some(2), "{input:?}");
        let text = provider.log().join("\n").to_lowercase();
        for word in ["kvredis", "wasmcloud", "host"] {
            assert!(text.contains(word), "no {word:?} in: {text}");
        }
        assert!(!text.contains("panicked"), "{text}");
    }
}

#[tokio::test]
async fn host_data_that_cannot_be_read_is_not_repeated() {
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
        let mut provider = Provider::with_input(format!("{input}\r\n").into());
        let status = provider.end().await;
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

#[tokio::test]
async fn host_data_with_keys_that_are_none_ends_in_words() {
    let w = World::start().await;
    let data = w.host.data();
    let mut wrong = [data.clone(), data.clone(), data];
    wrong[0].provider_xkey_private_key = "hunter2".to_owned();
    wrong[1].host_xkey_public_key = "hunter2".to_owned();
    wrong[2].lattice_rpc_user_jwt = "hunter2".to_owned();
    wrong[2].lattice_rpc_user_seed = "hunter2".to_owned();
    for data in wrong {
        let mut provider = Provider::start(&data);
        let status = provider.end().await;
        let text = provider.log().join("\n");
        assert!(matches!(status.code(), Some(1..100)), "{status}: {text}");
        assert!(
            !text.contains("panicked") && !text.contains("hunter2"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn host_data_of_a_host_without_keys_is_served() {
    // Hosts without a secrets backend may leave the provider's key empty.
    let w = World::builder()
        .unlinked()
        .data(|data| {
            data.provider_xkey_private_key = String::new();
            data.host_xkey_public_key = String::new();
        })
        .start()
        .await;
    let link = Link::new("c", "default").config(&[("URL", &w.redis.url())]);
    let payload = serde_json::to_vec(&w.host.definition(&link)).unwrap();
    // Such hosts put links to the provider's id.
    let subject = format!(
        "wasmbus.rpc.{}.{}.linkdefs.put",
        w.host.lattice(),
        w.host.provider_id()
    );
    w.host
        .nats()
        .publish(subject, payload.into())
        .await
        .unwrap();
    let client = w.client.component("c", "default");
    eventually("the link is there", async || {
        client.set("", "k", b"v").await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn health_is_answered_with_and_without_links() {
    let w = World::builder().unlinked().start().await;
    assert!(w.host.health().await.unwrap().healthy);
    w.link("c", "default", &[])
        .await
        .set("", "k", b"v")
        .await
        .unwrap();
    assert!(w.host.health().await.unwrap().healthy);
}

#[tokio::test]
async fn logs_are_structured_where_the_host_says_so() {
    let mut w = World::builder()
        .data(|data| data.structured_logging = true)
        .start()
        .await;
    w.link(COMPONENT, "wrong", &[("SCAN_COUNT", "lots")]).await;
    w.provider.logged(&["SCAN_COUNT"]).await;
    w.provider.signal(Signal::TERM);
    w.provider.end().await;
    for line in w.provider.log() {
        let json: serde_json::Value = serde_json::from_str(&line).expect(&line);
        assert!(json["level"].is_string(), "{line}");
    }
}

#[tokio::test]
async fn nothing_is_logged_per_call() {
    let w = World::start().await;
    w.client.set("", "k", b"v").await.unwrap();
    w.client.get("named", "k").await.unwrap();
    let before = w.provider.log().len();
    for round in 0..50 {
        w.client.increment("named", "n", 1).await.unwrap();
        w.client.list_keys("", None).await.unwrap();
        other(w.client.component("stranger", "default").get("", "k").await);
        let bad = format!("a:{round}");
        assert_eq!(w.client.get(&bad, "k").await, Err(Error::NoSuchStore));
    }
    let lines = w.provider.log().len() - before;
    assert!(lines < 10, "{lines} lines for 200 calls");
}

#[tokio::test]
async fn links_follow_the_providers_configuration() {
    let redis = crate::common::redis::Redis::start().await;
    let urls = [1, 2].map(|database| redis.url_of(database));
    let w = World::builder()
        .unlinked()
        .provider_config(&[("URL", &urls[0]), ("PREFIX", "one:")])
        .redis(redis)
        .start()
        .await;
    let client = w.put_new(&Link::new("c", "follows")).await;
    let own = w.link("c", "has its own", &[("PREFIX", "own:")]).await;
    client.set("", "k", b"1").await.unwrap();
    own.set("", "k", b"own").await.unwrap();
    assert_eq!(w.redis.ask_in::<String>(1, &["GET", "one:k"]).await, "1");
    let id = id_of(&w, "kvredis:c:has its own").await;

    w.host
        .update_config(&[("URL", &urls[1]), ("PREFIX", "two:")])
        .await;
    eventually("the link follows", async || {
        client.get("", "k").await == Ok(None)
    })
    .await;
    client.set("", "k", b"2").await.unwrap();
    assert_eq!(w.redis.ask_in::<String>(2, &["GET", "two:k"]).await, "2");
    assert_eq!(own.get("", "k").await, Ok(Some(b"own".to_vec())));
    eventually_eq("old connections are closed", 2, async || {
        w.redis.connections().await
    })
    .await;
    assert_eq!(
        id_of(&w, "kvredis:c:has its own").await,
        id,
        "it has no cause to reconnect"
    );

    // A configuration is whole: what is not in it any more does not hold any more.
    w.host.update_config(&[("URL", &urls[1])]).await;
    eventually("the prefix is gone", async || {
        client.get("", "two:k").await == Ok(Some(b"2".into()))
    })
    .await;

    w.host
        .update_config(&[("URL", &urls[1]), ("SCAN_COUNT", "lots")])
        .await;
    eventually("a wrong value shows", async || {
        match client.get("", "k").await {
            Err(Error::Other(text)) => text.contains("SCAN_COUNT") && text.contains("lots"),
            _ => false,
        }
    })
    .await;
    w.host.update_config(&[("URL", &urls[0])]).await;
    eventually("it is mended", async || {
        client.get("", "one:k").await == Ok(Some(b"1".into()))
    })
    .await;
}

#[tokio::test]
async fn configuration_that_cannot_be_read_changes_nothing() {
    let w = World::builder()
        .provider_config(&[("PREFIX", "p:")])
        .start()
        .await;
    w.client.set("", "k", b"v").await.unwrap();
    for payload in [
        &b""[..],
        b"no json",
        b"[]",
        b"{\"PREFIX\": 1}",
        b"null",
        &[0xff; 50],
    ] {
        w.host.update_config_payload(payload.to_vec()).await;
    }
    assert!(w.host.health().await.is_some());
    assert_eq!(w.client.get("", "k").await, Ok(Some(b"v".to_vec())));
    w.host.update_config(&[("PREFIX", "q:")]).await;
    eventually("the next one holds", async || {
        w.client.get("", "k").await == Ok(None)
    })
    .await;
}

async fn id_of(w: &World, name: &str) -> Option<String> {
    let clients = w.redis.kvredis_clients().await;
    // Redis takes no spaces in names, and kvredis finds its own way around that.
    let shape = |text: &str| text.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    clients
        .iter()
        .find(|client| shape(&client["name"]) == shape(name))
        .map(|client| client["id"].clone())
}

/// Answers as a host that the component `early` is linked to the provider.
async fn answer_that_early_is_linked(w: &World) -> JoinHandle<()> {
    let subject = format!("wasmbus.ctl.v1.{}.link.get", w.host.lattice());
    let mut questions = w.host.nats().subscribe(subject).await.unwrap();
    let links = json!({ "success": true, "message": "", "response": [{
        "source_id": "early", "target": w.host.provider_id(), "name": "default",
        "wit_namespace": "wasi", "wit_package": "keyvalue", "interfaces": ["store"],
    }]});
    let nats = w.host.nats().clone();
    tokio::spawn(async move {
        while let Some(question) = questions.next().await {
            let answer = links.to_string().into();
            nats.publish(question.reply.unwrap(), answer).await.unwrap();
        }
    })
}

async fn ends_at_a_call(w: &mut World, missed: &Client) {
    eventually("it ends for the link that there is", async || {
        let _ = missed.get("", "k").await;
        w.provider.ended().is_some()
    })
    .await;
    assert_eq!(w.provider.end().await.code(), Some(1));
}

/// A host puts a link once: a process that did not listen yet must get it another way.
#[tokio::test]
async fn a_link_that_was_missed_while_starting_is_got_by_a_new_start() {
    let mut w = World::builder().unlinked().start().await;
    let missed = w.client.component("early", "default");
    assert!(other(missed.get("", "k").await).contains("early"));
    assert!(
        w.provider.ended().is_none(),
        "nobody says that there is such a link"
    );
    let host = answer_that_early_is_linked(&w).await;
    let other_link = w.client.component("early", "other");
    assert!(other(other_link.get("", "k").await).contains("other"));
    ends_at_a_call(&mut w, &missed).await;
    w.provider.logged(&["early", "start"]).await;

    // The host has the link in its data now.
    let mut data = w.host.data();
    let link = Link::new("early", "default").config(&[("URL", &w.redis.url())]);
    data.link_definitions.push(w.host.definition(&link));
    w.provider = Provider::start(&data);
    eventually("the link is there", async || {
        missed.set("", "k", b"v").await.is_ok()
    })
    .await;
    assert_eq!(w.provider.count_logged(&["ERROR"]).await, 0);
    host.abort();
}

/// A host leaves out what it cannot resolve, at every start, and starts a provider that ends every
/// five seconds: one such link must not take the others down.
#[tokio::test]
async fn a_link_that_the_host_leaves_out_is_worth_one_new_start() {
    let mut w = World::builder().unlinked().start().await;
    let host = answer_that_early_is_linked(&w).await;
    let missed = w.client.component("early", "default");
    ends_at_a_call(&mut w, &missed).await;

    w.provider = Provider::start(&w.host.data());
    w.host.ready().await;
    let works = w.link(COMPONENT, "default", &[]).await;
    eventually("its calls are answered why", async || {
        match missed.get("", "k").await {
            Err(Error::Other(text)) => text.contains("secrets") && text.contains("host"),
            _ => false,
        }
    })
    .await;
    w.provider.logged(&["ERROR", "early", "pass on"]).await;
    works.set("", "k", b"v").await.unwrap();
    assert!(w.provider.ended().is_none());

    let link = Link::new("early", "default").config(&[("URL", &w.redis.url())]);
    w.host.put(&link).await;
    eventually("it is put after all", async || {
        missed.get("", "k").await.is_ok()
    })
    .await;

    // Who stops it and starts it again has mended something.
    assert!(w.host.shutdown().await.is_some());
    assert_eq!(w.provider.end().await.code(), Some(0));
    w.provider = Provider::start(&w.host.data());
    w.host.ready().await;
    ends_at_a_call(&mut w, &missed).await;
    // Leaves nothing in the folder for temporary files.
    w.provider = Provider::start(&w.host.data());
    w.host.ready().await;
    assert!(w.host.shutdown().await.is_some());
    host.abort();
}
