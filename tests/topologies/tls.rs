//! TLS: trusted CAs, client certificates, and the errors of failed handshakes.

// Guarantees: G28

use std::fs;

use test_support::certificates::{Certificate, CertificateAuthority};
use test_support::client::{Client, other_error};
use test_support::host::Link;
use test_support::ports;
use test_support::redis_node::RedisNode;
use test_support::test_env::TestEnv;

use crate::all_functions::exercise_all_functions;

struct TlsServer {
    port: u16,
    server: RedisNode,
}

impl TlsServer {
    /// A server with this certificate; with `asks`, it requires a client certificate of `authority`.
    async fn start(shown: &Certificate, authority: &CertificateAuthority, asks: bool) -> Self {
        let asks = if asks { "yes" } else { "no" };
        Self::start_with(shown, authority, &["--tls-auth-clients", asks]).await
    }

    /// A server with this certificate and additional arguments.
    async fn start_with(
        shown: &Certificate,
        authority: &CertificateAuthority,
        more: &[&str],
    ) -> Self {
        let port = ports::free();
        let (tls_port, ca) = (port.to_string(), authority.file());
        let mut arguments = vec!["--tls-port", &tls_port, "--tls-ca-cert-file", &ca];
        arguments.extend(["--tls-cert-file", &shown.cert, "--tls-key-file", &shown.key]);
        arguments.extend(["--tls-auth-clients", "no"]);
        arguments.extend(more);
        Self {
            port,
            server: RedisNode::start(&arguments).await,
        }
    }

    fn url(&self, host: &str) -> String {
        format!("rediss://{host}:{}", self.port)
    }
}

async fn link(env: &TestEnv, config: &[(&str, &str)]) -> Client {
    env.add_link(&Link::new("tls", "default").config(config))
        .await
}

async fn refusal(env: &TestEnv, config: &[(&str, &str)]) -> String {
    let client = link(env, config).await;
    let error = other_error(client.get("", "k").await);
    env.unlink("tls", "default").await;
    error
}

async fn start_env() -> TestEnv {
    TestEnv::builder().unlinked().start().await
}

#[tokio::test]
async fn tls_ca_is_accepted_as_text_and_as_a_file() {
    let authority = CertificateAuthority::generate();
    let redis = TlsServer::start(
        &authority.sign(&["127.0.0.1", "localhost"]),
        &authority,
        false,
    )
    .await;
    let env = start_env().await;
    for (host, ca) in [
        ("127.0.0.1", authority.pem()),
        ("localhost", authority.file()),
    ] {
        let client = link(&env, &[("URL", &redis.url(host)), ("TLS_CA", &ca)]).await;
        client.set("", "k", host.as_bytes()).await.unwrap();
        let value = client.get("", "k").await.unwrap();
        assert_eq!(value.as_deref(), Some(host.as_bytes()));
        let large = vec![7; 3 << 20];
        client.set("", "large", &large).await.unwrap();
        assert_eq!(client.get("", "large").await.unwrap(), Some(large));
        env.unlink("tls", "default").await;
    }
}

#[tokio::test]
async fn untrusted_servers_are_rejected_with_the_reason() {
    let authority = CertificateAuthority::generate();
    let trusted = authority.pem();
    let good = authority.sign(&["127.0.0.1"]);
    let env = start_env().await;

    let redis = TlsServer::start(&good, &authority, false).await;
    let url = redis.url("127.0.0.1");
    let stranger = CertificateAuthority::generate().pem();
    let error = refusal(&env, &[("URL", &url), ("TLS_CA", &stranger)]).await;
    assert!(
        error.contains("not from an authority that is trusted"),
        "{error}"
    );
    let error = refusal(&env, &[("URL", &url)]).await;
    assert!(
        error.contains("not from an authority that is trusted"),
        "{error}"
    );
    let error = refusal(
        &env,
        &[("URL", &redis.url("localhost")), ("TLS_CA", &trusted)],
    )
    .await;
    assert!(error.contains("not for the name localhost"), "{error}");

    let expired = authority.sign_until(&["127.0.0.1"], (2020, 1, 1));
    let old = TlsServer::start(&expired, &authority, false).await;
    let error = refusal(
        &env,
        &[("URL", &old.url("127.0.0.1")), ("TLS_CA", &trusted)],
    )
    .await;
    assert!(error.contains("has expired"), "{error}");

    let plain = RedisNode::start(&[]).await;
    let url = plain.url().replace("redis://", "rediss://");
    let error = refusal(&env, &[("URL", &url), ("TLS_CA", &trusted)]).await;
    assert!(
        error.contains("speak TLS on this port?") || error.contains("TLS began"),
        "{error}"
    );
}

#[tokio::test]
async fn a_client_certificate_is_sent_when_requested() {
    let authority = CertificateAuthority::generate();
    let redis = TlsServer::start(&authority.sign(&["127.0.0.1"]), &authority, true).await;
    let own = authority.sign(&["kvredis"]);
    let url = redis.url("127.0.0.1");
    let ca = authority.file();
    let env = start_env().await;
    let base = [("URL", url.as_str()), ("TLS_CA", ca.as_str())];
    let refused = async |more: &[(&str, &str)]| refusal(&env, &[&base[..], more].concat()).await;

    let own_config = [("TLS_CERT", own.cert.as_str()), ("TLS_KEY", &own.key)];
    let client = link(&env, &[&base[..], &own_config].concat()).await;
    client.set("", "k", b"v").await.unwrap();
    env.unlink("tls", "default").await;
    let cert = fs::read_to_string(&own.cert).unwrap();
    let key = fs::read_to_string(&own.key).unwrap();

    let error = refused(&[]).await;
    assert!(error.contains("TLS_CERT"), "{error}");
    let other_key = authority.sign(&["somebody"]).key;
    let error = refused(&[("TLS_CERT", &cert), ("TLS_KEY", &other_key)]).await;
    assert!(error.contains("TLS_KEY is not the key"), "{error}");
    let error = refused(&[("TLS_CERT", &cert)]).await;
    assert!(error.contains("TLS_KEY: missing"), "{error}");
    let error = refused(&[("TLS_CERT", &cert), ("TLS_KEY", "/nowhere/key.pem")]).await;
    assert!(
        error.contains("TLS_KEY: cannot read /nowhere/key.pem"),
        "{error}"
    );
    let error = refused(&[("TLS_CERT", &key), ("TLS_KEY", &own.key)]).await;
    assert!(
        error.contains("TLS_CERT contains no certificate"),
        "{error}"
    );
    let strangers = CertificateAuthority::generate();
    let stranger = strangers.sign(&["kvredis"]);
    let error = refused(&[("TLS_CERT", &stranger.cert), ("TLS_KEY", &stranger.key)]).await;
    assert!(error.contains("rejects the certificate"), "{error}");
    let log = env.provider.log().join("\n");
    let secret = key.lines().nth(1).unwrap();
    assert!(!log.contains(secret), "the key is in the log");
}

#[tokio::test]
async fn verification_cannot_be_disabled() {
    let env = start_env().await;
    let error = refusal(&env, &[("URL", "rediss://127.0.0.1:1/#insecure")]).await;
    assert!(error.contains("invalid setting URL"), "{error}");
    assert!(
        error.contains("certificates are always verified"),
        "{error}"
    );
}

#[tokio::test]
async fn clusters_support_tls() {
    let authority = CertificateAuthority::generate();
    let redis = TlsServer::start_with(
        &authority.sign(&["127.0.0.1"]),
        &authority,
        &["--cluster-enabled", "yes", "--tls-cluster", "yes"],
    )
    .await;
    // A cluster of one node.
    let all = ["CLUSTER", "ADDSLOTSRANGE", "0", "16383"];
    let _: String = redis.server.command(&all).await.unwrap();
    let env = start_env().await;
    let url = redis.url("127.0.0.1").replace("rediss", "rediss-cluster");
    let client = link(&env, &[("URL", &url), ("TLS_CA", &authority.pem())]).await;
    exercise_all_functions(&client).await;
    env.unlink("tls", "default").await;
    let stranger = CertificateAuthority::generate().pem();
    let error = refusal(&env, &[("URL", &url), ("TLS_CA", &stranger)]).await;
    assert!(
        error.contains("not from an authority that is trusted"),
        "{error}"
    );
}

#[tokio::test]
async fn sentinels_and_the_primary_support_tls() {
    let authority = CertificateAuthority::generate();
    let own = authority.sign(&["127.0.0.1"]);
    let redis = TlsServer::start(&own, &authority, false).await;
    let (port, tls_port) = (ports::free(), ports::free());
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("sentinel.conf");
    let (dir, ca) = (folder.path().display(), authority.file());
    let text = format!(
        "port {port}\nbind 127.0.0.1\ndir {dir}\ntls-port {tls_port}\n\
         tls-cert-file {}\ntls-key-file {}\ntls-ca-cert-file {ca}\ntls-auth-clients no\n\
         tls-replication yes\nsentinel monitor main 127.0.0.1 {} 1\n",
        own.cert, own.key, redis.port
    );
    fs::write(&file, text).unwrap();
    let _sentinel = RedisNode::start_at(port, &[file.to_str().unwrap(), "--sentinel"]).await;
    let env = start_env().await;
    let url = format!("rediss-sentinel://127.0.0.1:{tls_port}?sentinelServiceName=main");
    let client = link(&env, &[("URL", &url), ("TLS_CA", &ca)]).await;
    exercise_all_functions(&client).await;
    env.unlink("tls", "default").await;
    let stranger = CertificateAuthority::generate().pem();
    let error = refusal(&env, &[("URL", &url), ("TLS_CA", &stranger)]).await;
    assert!(
        error.contains("the sentinel at 127.0.0.1")
            && error.contains("not from an authority that is trusted"),
        "{error}"
    );
}
