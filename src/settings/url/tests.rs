//! Parsing and redaction of URLs.

use super::*;

fn address(text: &str) -> Address {
    parse(text).unwrap().address
}

fn error(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

#[test]
fn tcp_urls_are_parsed() {
    assert_eq!(address("redis://127.0.0.1"), Address::default());
    let full = address("redis://ada:p%40ss%2F@redis.example:7000/3");
    assert_eq!(
        full,
        Address {
            server: ServerSpec::Tcp(Endpoint {
                host: "redis.example".to_owned(),
                port: 7000
            }),
            tls: false,
            username: Some("ada".to_owned()),
            password: Some(Secret::from("p@ss/".to_owned())),
            database: 3,
        }
    );
    assert_eq!(full.to_string(), "redis://redis.example:7000/3");
    assert_eq!(address("valkey://[::1]:1/").to_string(), "redis://[::1]:1");
    assert_eq!(address("redis://:pw@h").username, None);
}

#[test]
fn unix_urls_are_parsed() {
    let unix = address("redis+unix:///run/my%20redis.sock?db=2");
    assert_eq!(unix.database, 2);
    assert_eq!(unix.to_string(), "redis+unix:///run/my redis.sock?db=2");
    assert_eq!(
        address("valkey+unix:///s").server,
        ServerSpec::Unix { path: "/s".into() }
    );
}

#[test]
fn wildcard_hosts_become_loopback() {
    let parsed = parse("redis://0.0.0.0:6379").unwrap();
    assert_eq!(parsed.address, Address::default());
    assert_eq!(parsed.wildcard.as_deref(), Some("0.0.0.0"));
    let parsed = parse("redis://[::]").unwrap();
    assert_eq!(parsed.address.to_string(), "redis://[::1]:6379");
}

#[test]
fn missing_schemes_are_suggested_without_the_password() {
    assert!(error("10.0.0.7:6379").contains("did you mean redis://10.0.0.7:6379?"));
    assert!(error("localhost").contains("did you mean redis://localhost?"));
    assert!(error("/run/redis.sock").contains("redis+unix:///run/redis.sock"));
    let with_password = error("ada:hunter2@h:1");
    assert!(!with_password.contains("hunter2"), "{with_password}");
}

#[test]
fn cluster_and_sentinel_urls_are_parsed() {
    assert_eq!(
        address("rediss://h").to_string(),
        "rediss://h:6379",
        "the scheme shows TLS"
    );
    let cluster = address("rediss-cluster://u:p@a?node=b:7001&node=[::1]");
    assert!(cluster.tls && cluster.has_replicas());
    assert_eq!(
        cluster.to_string(),
        "rediss-cluster://a:6379,b:7001,[::1]:6379"
    );
    let sentinel = parse(
        "valkey-sentinel://:db@s/2?node=t:1&sentinelServiceName=main&sentinelUsername=w\
         &sentinelPassword=s%3Dt",
    )
    .unwrap();
    assert!(sentinel.contains_password());
    assert_eq!(
        sentinel.address.to_string(),
        "redis-sentinel://s:26379,t:1 (service main)/2"
    );
    let ServerSpec::Sentinel(sentinels) = sentinel.address.server else {
        panic!("not sentinels")
    };
    assert_eq!(sentinels.username.as_deref(), Some("w"));
    assert_eq!(sentinels.password.unwrap().reveal(), "s=t");
    assert_eq!(sentinel.address.password.unwrap().reveal(), "db");
}

#[test]
fn invalid_urls_are_rejected() {
    for text in [
        "",
        "http://h",
        "redis://",
        "redis://h:port",
        "redis://h/zero",
        "redis://h/0?protocol=resp3",
        "redis://h#insecure",
        "rediss://h#insecure",
        "redis-cluster://h/1",
        "redis-cluster://h?seed=b:1",
        "redis-cluster://h?node=u:p@b:1",
        "redis-cluster://h?node=b:port",
        "redis-sentinel://h",
        "redis-sentinel://h?sentinelServiceName=",
        "redis-sentinel://h?sentinelServiceName=a&password=b",
        "unix:///s",
        "redis+unix://host/s",
        "redis+unix:///s?user=ada",
        "redis://user:p%ff@h",
        "redis://h,password=p",
        "redis://u:p@h;ssl=true",
        "redis://h%2Cpassword=p",
        "redis://h\n.example",
        "redis+unix:///s,password=p",
        "redis+unix:///s password=p",
        "redis-cluster://h?node=b,password=p",
        "redis-sentinel://h?sentinelServiceName=m,password=p",
    ] {
        assert!(parse(text).is_err(), "{text} must be invalid");
    }
}

#[test]
fn redaction_removes_credentials() {
    let redacted = |text: &str| recognized_url(text).unwrap_or_default();
    assert_eq!(
        redacted("redis://u:p@ss@h.io:1/2?x=y"),
        "redis://***@h.io:1/***"
    );
    assert_eq!(redacted("redis://localhost"), "redis://localhost");
    for secret in [
        "redis://u:hunter?2@h",
        "redis://u:hunter#2@h",
        "redis://u:hunter/2@h",
        "redis://u:x@a?hunter@h",
        "u:hunter?2@h",
        "redis://u:hunter2",
        "redis://:hunter2",
        "redis://:hunter2/1",
        "u:hunter2",
        "redis-sentinel://h?sentinelPassword=hunter@2",
        "redis-sentinel://h?sentinelPassword=2@hunter",
    ] {
        let shown = redacted(secret);
        assert!(!shown.contains("hunter"), "{shown}");
    }
}

#[test]
fn forms_of_other_products_are_named() {
    for (text, hint) in [
        (
            "redis://h.example,password=p,ssl=True",
            "StackExchange.Redis",
        ),
        (
            "h.example:6380,password=p,abortConnect=false",
            "StackExchange.Redis",
        ),
        (r#"{"password":"p","url":"redis://h"}"#, "JSON"),
        ("REDIS_PASSWORD=p REDIS_URL=redis://h", "NAME="),
        ("export REDIS_URL=redis://:p@h", "NAME="),
        ("redis-cli -h h -a p", "command line"),
        ("redis-cli --tls -u redis://:p@h", "command line"),
        ("https://eu1-a-1.upstash.io", "REST"),
    ] {
        let error = error(text);
        assert!(error.contains(hint), "{text}: {error}");
    }
}
