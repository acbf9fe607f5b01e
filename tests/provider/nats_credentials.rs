//! A NATS that requires credentials or TLS, which the host data provides; credentials are never shown.

// Guarantees: G51, G52

use test_support::certificates::CertificateAuthority;
use test_support::nats::Nats;
use test_support::nats_jwt::JwtUser;
use test_support::ports;
use test_support::provider::ProviderProcess;
use test_support::test_env::{TestEnv, TestEnvBuilder};
use wasmcloud_provider_sdk::HostData;
use wasmcloud_provider_sdk::core::logging::Level;

/// A part of every user name, password and token here.
const MARKER: &str = "hunter2";

fn traced(nats: Nats) -> TestEnvBuilder {
    TestEnv::builder()
        .nats(nats)
        .data(|data| data.log_level = Some(Level::Trace))
}

/// Calls, reconnects, calls again, stops, and checks that the log does not contain `secret`.
async fn exercise(mut env: TestEnv, secret: &str) {
    env.client.set("", "k", b"v").await.unwrap();
    env.nats.restart().await;
    env.provider
        .wait_for_log(&["lost the connection to NATS"])
        .await;
    env.host.ready().await;
    assert_eq!(env.client.get("", "k").await.unwrap().unwrap(), b"v");
    assert_eq!(env.provider.stop_and_count_log(&[secret]).await, 0);
}

/// Waits for the end of a process that cannot connect, and returns its last line.
async fn last_line(data: &HostData) -> String {
    let mut provider = ProviderProcess::start(data);
    let status = provider.wait().await;
    let log = provider.log();
    assert_eq!(status.code(), Some(1), "{log:?}");
    assert!(!log.join("\n").contains(MARKER), "{log:?}");
    log.last().cloned().unwrap_or_default()
}

#[tokio::test]
async fn a_user_and_password_in_the_url_are_used_and_not_logged() {
    let nats = Nats::with_password(
        "hunter2-u@ser",
        "hunter2:p/4#",
        "hunter2-u%40ser:hunter2:p/4#",
    );
    exercise(traced(nats.await).start().await, MARKER).await;
}

#[tokio::test]
async fn a_token_in_the_url_is_used_and_not_logged() {
    let nats = Nats::with_token("hunter2-t0ken").await;
    exercise(traced(nats).start().await, MARKER).await;
}

#[tokio::test]
async fn the_credentials_of_one_server_apply_to_all_servers_of_the_url() {
    let nats = Nats::with_password("hunter2", "hunter2", "hunter2:hunter2").await;
    let absent = ports::free();
    let url = format!("nats://127.0.0.1:{absent}, {}", nats.url());
    let second = format!(
        "nats://hunter2:hunter2@127.0.0.1:{absent},{}",
        nats.bare_url()
    );
    let env = traced(nats)
        .data(move |data| data.lattice_rpc_url = url)
        .start()
        .await;
    env.client.set("", "k", b"v").await.unwrap();
    let mut data = env.host.data();
    data.lattice_rpc_url = second;
    let mut other = ProviderProcess::start(&data);
    env.host.ready_processes(2).await;
    assert_eq!(other.stop_and_count_log(&[MARKER]).await, 0);
}

#[tokio::test]
async fn a_jwt_and_seed_are_used_and_not_logged() {
    let user = JwtUser::generate();
    let nats = Nats::with_jwt(&user).await;
    let (jwt, seed) = (user.jwt.clone(), user.seed.clone());
    let env = traced(nats).data(move |data| {
        data.lattice_rpc_user_jwt = jwt;
        data.lattice_rpc_user_seed = seed;
    });
    let mut env = env.start().await;
    env.client.set("", "k", b"v").await.unwrap();
    let mut wrong = env.host.data();
    wrong.lattice_rpc_user_jwt = user.jwt.clone();
    wrong.lattice_rpc_user_seed = JwtUser::generate().seed;
    let line = last_line(&wrong).await;
    assert!(
        line.contains("rejects the JWT and seed of the host data"),
        "{line}"
    );
    assert!(!line.contains(&wrong.lattice_rpc_user_seed), "{line}");
    assert_eq!(env.provider.stop_and_count_log(&[&user.seed]).await, 0);
    let log = env.provider.log().join("\n");
    assert!(!log.contains(&user.jwt), "{log}");
}

#[tokio::test]
async fn the_hosts_additional_certificates_are_trusted_for_nats() {
    let ca = CertificateAuthority::generate();
    let certificate = ca.sign(&["127.0.0.1"]);
    let file = ca.file();
    let nats = Nats::with_tls(&certificate, &file).await;
    let env = traced(nats).data(move |data| {
        data.otel_config.additional_ca_paths = vec![file.into()];
    });
    let env = env.start().await;
    env.client.set("", "k", b"v").await.unwrap();
}

#[tokio::test]
async fn rejected_credentials_end_the_process_with_an_error_that_does_not_repeat_them() {
    let with_password = Nats::with_password("u", "right", "u:right").await;
    let with_token = Nats::with_token("right").await;
    let env = TestEnv::start().await;
    let cases = [
        (
            &with_password,
            "u:hunter2@",
            "rejects the user and password of the URL",
        ),
        (&with_password, "hunter2@", "rejects the token of the URL"),
        (
            &with_password,
            "",
            "requires credentials, and the host data has none",
        ),
        (&with_token, "hunter2@", "rejects the token of the URL"),
        (
            &with_token,
            "",
            "requires credentials, and the host data has none",
        ),
    ];
    for (nats, userinfo, expected) in cases {
        let mut data = env.host.data();
        data.lattice_rpc_url = format!("nats://{userinfo}127.0.0.1:{}", nats.port());
        data.log_level = Some(Level::Trace);
        let line = last_line(&data).await;
        assert!(line.contains("failed to connect to the NATS"), "{line}");
        assert!(line.contains(expected), "{line}");
    }
    for url in [
        "nats://u:hunter2",
        "nats://u:hunter2@",
        "nats://u:hunter2@a,hunter2@b",
    ] {
        let mut data = env.host.data();
        data.lattice_rpc_url = url.to_owned();
        data.log_level = Some(Level::Trace);
        let line = last_line(&data).await;
        assert!(line.contains("the NATS URL in the host data"), "{line}");
    }
}
