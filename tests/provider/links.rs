//! The link that a call uses; links that are updated, deleted and reordered.

use futures_util::future::join_all;
use test_support::client::other_error;
use test_support::host::Link;
use test_support::provider::ProviderProcess;
use test_support::test_env::{COMPONENT, TestEnv};
use test_support::wait::{eventually, eventually_eq};
use tokio::task::JoinHandle;

// Guarantees: G12
#[tokio::test]
async fn links_are_selected_by_component_and_link_name() {
    let env = TestEnv::start().await;
    let second = env
        .link(COMPONENT, "second", &[("URL", &env.redis.url_of(1))])
        .await;
    let another = env
        .link("another", "default", &[("URL", &env.redis.url_of(2))])
        .await;
    let named = env
        .link("another", "second", &[("URL", &env.redis.url_of(3))])
        .await;
    let clients = [&env.client, &second, &another, &named];
    for (database, client) in (0..).zip(clients) {
        client.set("", "k", format!("of {database}")).await.unwrap();
    }
    for (database, client) in (0..).zip(clients) {
        let expected = format!("of {database}");
        assert_eq!(
            env.redis
                .command_in::<String>(database, &["GET", "k"])
                .await,
            expected
        );
        assert_eq!(client.get("", "k").await, Ok(Some(expected.into_bytes())));
    }
}

// Guarantees: G12
#[tokio::test]
async fn every_function_works_on_a_named_link() {
    let env = TestEnv::start().await;
    let c = env
        .link(COMPONENT, "named", &[("URL", &env.redis.url_of(5))])
        .await;
    c.set("", "k", b"1").await.unwrap();
    assert_eq!(c.increment("", "k", 1).await, Ok(2));
    assert_eq!(c.get("", "k").await, Ok(Some(b"2".to_vec())));
    assert_eq!(c.exists("", "k").await, Ok(true));
    assert_eq!(c.keys("").await.unwrap(), ["k"]);
    c.set_many("", &[("l", b"3")]).await.unwrap();
    assert_eq!(c.get_many("", &["l"]).await.unwrap().len(), 1);
    c.delete_many("", &["l"]).await.unwrap();
    c.delete("", "k").await.unwrap();
    assert_eq!(env.redis.command_in::<u64>(5, &["DBSIZE"]).await, 0);
}

// Guarantees: G12
#[tokio::test]
async fn a_call_without_a_link_names_component_and_link_name() {
    let env = TestEnv::start().await;
    for (component, name) in [
        (COMPONENT, "nameless"),
        ("stranger", "default"),
        ("x", "y z"),
    ] {
        let client = env.client.component(component, name);
        for error in [
            other_error(client.get("", "k").await),
            other_error(client.set("", "k", b"v").await),
            other_error(client.list_keys("", None).await),
            other_error(client.increment("", "k", 1).await),
            other_error(client.get_many("", &["k"]).await),
        ] {
            assert!(error.contains(component) && error.contains(name), "{error}");
        }
    }
}

// Guarantees: G14
#[tokio::test]
async fn links_in_the_host_data_are_used_from_the_start() {
    let redis = test_support::redis::Redis::start().await;
    let mut env = TestEnv::builder().redis(redis).unlinked().start().await;
    let host = env.host.second_host();
    let links = ["one", "two"].map(|name| {
        let database = u32::from(name == "two");
        Link::new(name, "default").config(&[("URL", &env.redis.url_of(database))])
    });
    let mut data = host.data();
    data.link_definitions = links.iter().map(|link| host.definition(link)).collect();
    env.provider = ProviderProcess::start(&data);
    env.host.ready().await;
    for (database, name) in [(0, "one"), (1, "two")] {
        let client = env.client.component(name, "default");
        eventually("the provider serves", async || client.probe().await.is_ok()).await;
        client.set("", "k", name).await.unwrap();
        assert_eq!(
            env.redis
                .command_in::<String>(database, &["GET", "k"])
                .await,
            name
        );
    }
}

// Guarantees: G13
#[tokio::test]
async fn a_second_put_replaces_the_link() {
    let env = TestEnv::start().await;
    env.client.set("", "k", b"0").await.unwrap();
    let () = env.redis.command_in(1, &["SET", "k", "1"]).await;
    put_database(&env, 1).await;
    eventually_reads(&env, "1").await;
    eventually_eq("the old connection is closed", 1, async || {
        env.redis.connections().await
    })
    .await;
    assert_eq!(env.redis.kvredis_clients().await[0]["db"], "1");
}

// Guarantees: G13
#[tokio::test]
async fn a_put_after_a_deletion_replaces_the_link() {
    let env = TestEnv::start().await;
    for database in 0..16 {
        let value = database.to_string();
        let () = env.redis.command_in(database, &["SET", "k", &value]).await;
    }
    env.host.delete(COMPONENT, "default").await;
    put_database(&env, 1).await;
    eventually_reads(&env, "1").await;
    // As fast as a host can send the messages.
    for database in 2..16 {
        env.host.delete(COMPONENT, "default").await;
        put_database(&env, database).await;
    }
    eventually_reads(&env, "15").await;
    eventually_eq("old connections are closed", 1, async || {
        env.redis.connections().await
    })
    .await;
}

// Guarantees: G13
#[tokio::test]
async fn a_put_that_overtakes_the_preceding_deletion_takes_effect() {
    let env = TestEnv::start().await;
    for database in 0..16 {
        let value = database.to_string();
        let () = env.redis.command_in(database, &["SET", "k", &value]).await;
    }
    for database in 1..16 {
        put_database(&env, database).await;
        env.host.delete(COMPONENT, "default").await;
        assert!(
            env.host.health().await.is_some(),
            "a later link shows that both messages were processed"
        );
        eventually_reads(&env, &database.to_string()).await;
    }
}

// Guarantees: G13
#[tokio::test]
async fn a_put_that_overtakes_a_deletion_takes_effect_during_calls() {
    let env = TestEnv::start().await;
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let client = env.client.clone();
            tokio::spawn(async move {
                loop {
                    let _ = client.get("", "k").await;
                }
            })
        })
        .collect();
    for database in 1..16 {
        put_database(&env, database).await;
        env.host.delete(COMPONENT, "default").await;
        assert!(env.host.health().await.is_some());
        assert_eq!(env.client.get("", "k").await, Ok(None), "round {database}");
    }
    callers.iter().for_each(JoinHandle::abort);
}

// Guarantees: G13
#[tokio::test]
async fn a_deletion_after_a_put_takes_effect() {
    let env = TestEnv::start().await;
    for round in 0..10 {
        let name = format!("passing{round}");
        let link = Link::new(COMPONENT, &name).config(&[("URL", &env.redis.url())]);
        env.host.put(&link).await;
        env.host.delete(COMPONENT, &name).await;
        assert!(
            env.host.health().await.is_some(),
            "a later link shows that both messages were processed"
        );
        let client = env.client.component(COMPONENT, &name);
        assert!(other_error(client.get("", "k").await).contains(&name));
    }
    eventually_eq("one connection is left", 1, async || {
        env.redis.connections().await
    })
    .await;
}

// Guarantees: G13
#[tokio::test]
async fn an_updated_link_can_be_deleted() {
    let env = TestEnv::start().await;
    let () = env.redis.command_in(1, &["SET", "k", "1"]).await;
    put_database(&env, 1).await;
    eventually_reads(&env, "1").await;
    eventually("the link is gone", async || {
        // A deletion soon after the put may be taken for that of the earlier link.
        env.host.delete(COMPONENT, "default").await;
        env.client.probe().await.is_err()
    })
    .await;
    env.wait_for_no_connections().await;
}

// Guarantees: G13
#[tokio::test]
async fn an_unchanged_put_keeps_the_connection() {
    let env = TestEnv::start().await;
    env.client.set("", "k", b"v").await.unwrap();
    let calls = (0..20).map(async |round| {
        if round % 4 == 0 {
            put_database(&env, 0).await;
        }
        env.client.get("", "k").await
    });
    for result in join_all(calls).await {
        assert_eq!(result, Ok(Some(b"v".to_vec())));
    }
    eventually_eq("one connection is left", 1, async || {
        env.redis.connections().await
    })
    .await;
}

// Guarantees: G13
#[tokio::test]
async fn deleting_one_link_leaves_the_others() {
    let env = TestEnv::start().await;
    let second = env.link(COMPONENT, "second", &[]).await;
    let another = env.link("another", "default", &[]).await;
    env.unlink(COMPONENT, "second").await;
    assert!(other_error(second.get("", "k").await).contains("second"));
    env.client.set("", "k", b"v").await.unwrap();
    another.set("", "k", b"v").await.unwrap();
    eventually_eq(
        "the connection of the deleted link is closed",
        2,
        async || env.redis.connections().await,
    )
    .await;
    env.unlink("another", "default").await;
    env.client.set("", "k", b"v").await.unwrap();
    let names = ["kvredis:counter:default"];
    eventually_eq(
        "one connection is left",
        vec![names[0].to_owned()],
        async || env.redis.kvredis_client_names().await,
    )
    .await;
}

// Guarantees: G13
#[tokio::test]
async fn deleting_an_unknown_link_is_harmless() {
    let env = TestEnv::start().await;
    env.host.delete(COMPONENT, "never").await;
    env.host.delete("stranger", "default").await;
    env.host.delete_payload(b"{}".to_vec()).await;
    env.host.delete_payload(b"no json".to_vec()).await;
    assert!(env.host.health().await.is_some());
    env.client.set("", "k", b"v").await.unwrap();
}

// Guarantees: G13
#[tokio::test]
async fn definitions_for_other_providers_are_harmless() {
    let env = TestEnv::start().await;
    let mut foreign = env.host.definition(&Link::new("stranger", "default"));
    foreign.target = "VSOMEBODYELSE".to_owned();
    env.host.put_definition(&foreign).await;
    for payload in [&b"no json"[..], b"{}", b"[]", b"", b"null", &[0xff; 100]] {
        env.host.put_payload(payload.to_vec()).await;
    }
    let stranger = env.client.component("stranger", "default");
    assert!(other_error(stranger.get("", "k").await).contains("stranger"));
    env.client.set("", "k", b"v").await.unwrap();
    env.link("later", "default", &[])
        .await
        .set("", "k", b"v")
        .await
        .unwrap();
}

// Guarantees: G12
#[tokio::test]
async fn a_link_without_a_name_is_the_default_link() {
    let env = TestEnv::start().await;
    let link = Link::new("nameless", "default").config(&[("URL", &env.redis.url())]);
    let mut definition = serde_json::to_value(env.host.definition(&link)).unwrap();
    definition.as_object_mut().unwrap().remove("name");
    env.host.put_payload(definition.to_string().into()).await;
    let client = env.client.component("nameless", "default");
    eventually("the provider has the link", async || {
        client.set("", "k", b"v").await.is_ok()
    })
    .await;
}

// Guarantees: G11
#[tokio::test]
async fn processes_of_a_provider_share_the_calls_of_a_link() {
    let env = TestEnv::builder().unlinked().start().await;
    let host = env.host.second_host();
    let _second = ProviderProcess::start(&host.data());
    env.host.ready_processes(2).await;
    let link = Link::new(COMPONENT, "default").config(&[("URL", &env.redis.url())]);
    env.host.put(&link).await;
    host.put(&link).await;
    let both = async || {
        let clients = env.redis.kvredis_clients().await;
        clients
            .iter()
            .filter(|client| client["cmd"] == "get")
            .count()
    };
    eventually_eq("both processes are linked", 2, async || {
        env.redis.connections().await
    })
    .await;
    eventually("both have served calls", async || {
        env.client.get("", "k").await.unwrap();
        both().await == 2
    })
    .await;
}

async fn put_database(env: &TestEnv, database: u32) {
    let config = [("URL", &*env.redis.url_of(database))];
    env.host
        .put(&Link::new(COMPONENT, "default").config(&config))
        .await;
}

async fn eventually_reads(env: &TestEnv, value: &str) {
    let expected = Ok(Some(value.as_bytes().to_vec()));
    eventually_eq("the new settings are in effect", expected, async || {
        env.client.get("", "k").await
    })
    .await;
}
