//! `kvredis check` on single servers: findings, their advice, and exit codes.

// Guarantees: G57

use std::process::Command;

use test_support::certificates::CertificateAuthority;
use test_support::ports;
use test_support::provider::kvredis_binary;
use test_support::redis::Redis;
use test_support::redis_node::RedisNode;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

use crate::run::{check, kvredis, run};

#[tokio::test]
async fn a_healthy_server_passes() {
    let redis = Redis::start().await;
    let before: String = redis.command(&["INFO", "keyspace"]).await;
    let found = check(&[&redis.url(), "PREFIX=orders/", "TTL_MS=5000"]).await;
    found.fails(&[]);
    for name in ["settings", "reachable", "login", "server", "acl", "latency"] {
        assert_eq!(found.status(name), "ok", "{}", found.text);
    }
    assert_eq!(found.one("tls")["details"]["used"], false);
    assert_eq!(found.one("login")["details"]["user"], "default");
    let server = &found.one("server")["details"];
    assert_eq!(
        (&server["mode"], &server["role"]),
        (&"standalone".into(), &"primary".into())
    );
    assert!(
        server["version"].as_str().unwrap().contains('.'),
        "{server}"
    );
    assert_eq!(found.status("notifications"), "info");
    let latency = &found.one("latency")["details"];
    assert!(
        latency["median_ms"].as_f64() <= latency["max_ms"].as_f64(),
        "{latency}"
    );
    assert_eq!(found.json["address"], redis.url());
    assert!(
        found.text.ends_with("A link with these settings works.\n"),
        "{}",
        found.text
    );
    let after: String = redis.command(&["INFO", "keyspace"]).await;
    assert_eq!(before, after, "the check changed data");
}

#[tokio::test]
async fn named_urls_and_unix_sockets_are_accepted() {
    let redis = Redis::start().await;
    check(&[&format!("url={}", redis.url_of(3))])
        .await
        .fails(&[]);
    let found = check(&[&format!("redis+unix://{}", redis.socket().display())]).await;
    found.fails(&[]);
    found.says("tls", &["Unix socket"]);
}

#[tokio::test]
async fn wrong_and_missing_passwords_fail_at_login() {
    let redis = Redis::with_password("hunter2").await;
    let url = redis.url();
    let right = format!("redis://:hunter2@127.0.0.1:{}", redis.port());
    let found = check(&[&right]).await;
    found.fails(&[]);
    assert_eq!(
        found.status("settings"),
        "warning",
        "a password in plain configuration"
    );
    assert!(!found.text.contains("hunter2"), "{}", found.text);

    let wrong = check(&[&url, "PASSWORD=hunter3"]).await;
    wrong.fails(&["login"]);
    wrong.says("login", &["WRONGPASS", "PASSWORD"]);
    assert_eq!(wrong.status("reachable"), "ok");
    let missing = check(&[&url]).await;
    missing.fails(&["login"]);
    missing.says("login", &["NOAUTH", "set PASSWORD"]);
    let no_file = check(&[&url, "PASSWORD_FILE=/nowhere/password"]).await;
    no_file.fails(&["login"]);
    no_file.says("login", &["/nowhere/password"]);
    for found in [wrong, missing, no_file] {
        let all = format!("{}{}", found.text, found.json);
        assert!(!all.contains("hunter"), "{all}");
    }
}

/// Redis repeats the arguments of unknown commands in its error.
// Guarantees: G51
#[tokio::test]
async fn passwords_are_redacted_from_server_errors() {
    let redis = Redis::with_arguments(&["--rename-command", "AUTH", ""]).await;
    let found = check(&[&redis.url(), "PASSWORD=hunter2"]).await;
    found.fails(&["login"]);
    found.says("login", &["unknown command"]);
    assert!(!format!("{}{}", found.text, found.json).contains("hunter2"));
}

#[tokio::test]
async fn unreachable_servers_fail_with_advice() {
    let redis = Redis::stopped();
    let found = check(&[&redis.url()]).await;
    found.fails(&["reachable"]);
    found.says(
        "reachable",
        &[
            &redis.url()[8..],
            "connection refused",
            "check host and port",
        ],
    );
    let found = check(&["redis://no-such-host.invalid"]).await;
    found.fails(&["reachable"]);
    found.says("reachable", &["no-such-host.invalid"]);
    let found = check(&["redis+unix:///nowhere/redis.sock"]).await;
    found.fails(&["reachable"]);
    found.says("reachable", &["/nowhere/redis.sock", "path"]);
}

#[tokio::test]
async fn an_unresponsive_server_times_out() {
    let redis = Redis::start().await;
    redis.pause();
    let found = check(&[&redis.url(), "BACKEND_CONNECTION_TIMEOUT_MS=200"]).await;
    redis.resume();
    found.fails(&["login"]);
    found.says("login", &["within 200 ms", "hangs"]);
}

#[tokio::test]
async fn maxclients_fails_at_login_with_advice() {
    let redis = Redis::start().await;
    let mut only = redis.connect(0).await.unwrap();
    let mut config = redis::cmd("CONFIG");
    config.arg(&["SET", "maxclients", "1"]);
    config.query_async::<()>(&mut only).await.unwrap();
    let found = check(&[&redis.url()]).await;
    found.fails(&["login"]);
    found.says("login", &["max number of clients", "CLIENT LIST"]);
}

/// Redis rejects connections in protected mode only from other machines, and this machine may have
/// one address only: a listener sends the error of Redis 7.0.
#[tokio::test]
async fn protected_mode_fails_with_advice() {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", server.local_addr().unwrap());
    let protected = tokio::spawn(async move {
        loop {
            let (mut client, _) = server.accept().await.unwrap();
            let words = b"-DENIED Redis is running in protected mode because protected mode is \
                          enabled. In this mode connections are only accepted from the loopback \
                          interface. If you want to connect from external computers\r\n";
            // The preceding connection was closed by its client.
            let _ = client.write_all(words).await;
        }
    });
    for password in [&[][..], &["PASSWORD=hunter2"]] {
        let found = check(&[&[url.as_str()], password].concat()).await;
        found.fails(&["login"]);
        found.says("login", &["protected mode is enabled", "protected-mode no"]);
        assert!(!found.text.contains("If you want"), "{}", found.text);
    }
    protected.abort();
}

#[tokio::test]
async fn invalid_settings_fail_and_unknown_ones_warn() {
    let redis = Redis::start().await;
    let found = check(&[&redis.url(), "SCAN_COUNT=lots"]).await;
    found.fails(&["settings"]);
    found.says("settings", &["SCAN_COUNT", "lots", "a whole number"]);
    let found = check(&["10.0.0.7:6379"]).await;
    found.fails(&["settings"]);
    found.says("settings", &["did you mean redis://10.0.0.7:6379"]);
    let found = check(&[&redis.url(), "PREFX=a"]).await;
    found.fails(&[]);
    assert_eq!(found.status("settings"), "warning");
    found.says("settings", &["PREFX", "PREFIX"]);
}

#[tokio::test]
async fn usage_errors_have_their_own_exit_code() {
    for words in [
        &["check"][..],
        &["check", "redis://a:hunter2@b", "redis://c"],
        &["check", "PASSWORD=hunter2", "password=hunter2"],
        &["check", "redis://a", "READ_ONLY"],
        &["check", "redis://a", "--no-such-flag"],
        &["no-such-command"],
    ] {
        let ran = kvredis(words).await;
        assert_eq!(ran.code, Some(2), "{words:?}");
        assert_eq!(ran.out, "");
        assert!(
            !ran.err.is_empty() && !ran.err.contains("hunter2"),
            "{}",
            ran.err
        );
    }
}

#[tokio::test]
async fn unexpected_server_roles_fail() {
    let node = Redis::with_arguments(&["--cluster-enabled", "yes"]).await;
    let found = check(&[&node.url()]).await;
    assert_eq!(found.code, Some(1));
    assert_eq!(found.status("server"), "failed");
    found.says("server", &["node of a cluster", "redis-cluster://"]);

    let primary = Redis::start().await;
    let port = primary.port().to_string();
    let replica = Redis::with_arguments(&["--replicaof", "127.0.0.1", &port]).await;
    let found = check(&[&replica.url()]).await;
    assert_eq!(found.status("server"), "failed");
    found.says(
        "server",
        &["replica of 127.0.0.1", "rejects writes", "READ_ONLY=true"],
    );
    assert_eq!(
        check(&[&replica.url(), "READ_ONLY=true"])
            .await
            .status("server"),
        "ok"
    );
}

#[tokio::test]
async fn tls_findings_name_the_cause() {
    let authority = CertificateAuthority::generate();
    let shown = authority.sign(&["localhost"]);
    let port = ports::free();
    let (tls_port, ca) = (port.to_string(), authority.file());
    let mut arguments = vec!["--tls-port", &tls_port, "--tls-ca-cert-file", &ca];
    arguments.extend(["--tls-cert-file", &shown.cert, "--tls-key-file", &shown.key]);
    arguments.extend(["--tls-auth-clients", "no"]);
    let server = RedisNode::start(&arguments).await;
    let url = format!("rediss://localhost:{port}");

    let known = check(&[&url, &format!("TLS_CA={ca}")]).await;
    known.fails(&[]);
    known.says("tls", &["TLS 1.", "TLS_CA"]);
    assert_eq!(known.one("tls")["details"]["used"], true);
    let unknown = check(&[&url]).await;
    unknown.fails(&["tls"]);
    unknown.says("tls", &["not from an authority", "set TLS_CA"]);
    assert_eq!(unknown.status("reachable"), "ok");
    let by_address = check(&[
        &format!("rediss://127.0.0.1:{port}"),
        &format!("TLS_CA={ca}"),
    ])
    .await;
    by_address.fails(&["tls"]);
    by_address.says("tls", &["not for the name 127.0.0.1", "a host in URL"]);
    let plain_port = format!("rediss://localhost:{}", server.port);
    let limit = "BACKEND_CONNECTION_TIMEOUT_MS=1000";
    let no_tls_there = check(&[&plain_port, &format!("TLS_CA={ca}"), limit]).await;
    no_tls_there.fails(&["tls"]);
    no_tls_there.says("tls", &["redis://"]);
    let not_spoken = check(&[&format!("redis://localhost:{port}"), limit]).await;
    not_spoken.fails(&["login"]);
    not_spoken.says("login", &["rediss://"]);
}

/// `script` runs the command in a pseudo-terminal.
#[tokio::test]
async fn colors_are_used_on_terminals_without_no_color() {
    let redis = Redis::start().await;
    let command = format!("{} check {}", kvredis_binary().display(), redis.url());
    for (no_color, colored) in [(None, true), (Some("1"), false)] {
        let mut script = Command::new("script");
        script
            .args(["-qec", &command, "/dev/null"])
            .env_remove("NO_COLOR");
        if let Some(value) = no_color {
            script.env("NO_COLOR", value);
        }
        let ran = run(script).await;
        assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
        assert_eq!(ran.out.contains("\u{1b}["), colored, "{:?}", ran.out);
    }
}

/// A closed pipe ends the output without an error.
#[tokio::test]
async fn a_closed_output_pipe_is_not_an_error() {
    let mut shell = Command::new("bash");
    shell
        .args(["-c", "set -o pipefail; \"$0\" settings --json | true"])
        .arg(kvredis_binary());
    let ran = run(shell).await;
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
}
