//! `kvredis settings`: the table, the schema and the documentation agree with the parser.

// Guarantees: G23

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value as Json, json};

use crate::run::kvredis;

/// Valid and invalid values of each setting. `kvredis check` shows whether the parser accepts a value:
/// it parses the settings before it connects.
const SAMPLES: &[(&str, &[&str], &[&str])] = &[
    (
        "URL",
        &[
            "redis://h",
            "REDIS://u:p%40@h:1/2",
            "valkeys://[::1]:7000/",
            "redis+unix:///s?db=1",
            "redis-cluster://h?node=b:1&node=c",
            "rediss-sentinel://h/2?node=b&sentinelServiceName=m",
            "valkey-sentinel://h?sentinelServiceName=m&sentinelPassword=p",
        ],
        &[
            "",
            "h:6379",
            "http://h",
            "redis://",
            "redis://h/zero",
            "redis://h?a=b",
            "redis://h#x",
            "redis-cluster://h/1x",
            "redis-cluster://h?seed=b",
            "redis-sentinel://h",
            "redis-sentinel://h?sentinelServiceName=",
            "redis+unix://h/s",
            "unix:///s",
        ],
    ),
    ("USERNAME", &["", "ada"], &[]),
    ("PASSWORD", &["", "p w"], &[]),
    ("PASSWORD_FILE", &["/run/p", " /p"], &["", "p", "./p"]),
    (
        "TLS_CA",
        &["/ca.pem", "-----BEGIN CERTIFICATE-----"],
        &["", "ca.pem"],
    ),
    ("TLS_CERT", &["/c.pem"], &["c.pem"]),
    (
        "TLS_KEY",
        &["/k.pem", "x\n-----BEGIN PRIVATE KEY-----"],
        &["MIIE"],
    ),
    (
        "READ_FROM",
        &["primary", "REPLICA", " replica "],
        &["", "master", "replicas"],
    ),
    (
        "BACKEND_CONNECTION_TIMEOUT_MS",
        &["1", "600000", " 0042 ", "+5"],
        &["0", "600001", "-1", "1.5", ""],
    ),
    (
        "BACKEND_RESPONSE_TIMEOUT_MS",
        &["1", "599999"],
        &["0", "1000000", "1s"],
    ),
    (
        "BACKEND_RECONNECT_NUM_RETRIES",
        &["0", "9", "1000"],
        &["1001", "many", "10000"],
    ),
    ("BACKEND_RECONNECT_MAX_DELAY_MS", &["300"], &["0"]),
    (
        "DISABLE_DEFAULT_CONNECTION",
        &["", "true", "False", "0", " 1 "],
        &["yes", "2", "truefalse"],
    ),
    ("SHARE_CONNECTIONS_BY_URL", &["true"], &["on"]),
    ("PREFIX", &["", "orders/"], &[]),
    (
        "BUCKET_LAYOUT",
        &["prefix-named", "Prefix-All", "flat"],
        &["", "prefix", "flat,flat"],
    ),
    ("BUCKETS", &["a", "a, b ,c"], &["", "a,,b", ",a", "a, "]),
    ("READ_ONLY", &["1"], &["no"]),
    (
        "TTL_MS",
        &["1", "3153600000000"],
        &["0", "3153600000001", "none"],
    ),
    ("SCAN_COUNT", &["1", "1000000"], &["0", "1000001"]),
    ("MAX_IN_FLIGHT", &["1"], &["0"]),
    ("MAX_WAITING", &["0"], &["1000001"]),
    ("MAX_WAIT_MS", &["1", "600000"], &["0", "600001"]),
    (
        "MAX_VALUE_BYTES",
        &["0", "536870912"],
        &["536870913", "536870920", "600000000"],
    ),
    ("HEALTH", &["links", "Process"], &["link"]),
    (
        "CACHE_MAX_ENTRIES",
        &["0", "100000000"],
        &["100000001", "all"],
    ),
    (
        "CACHE_MAX_BYTES",
        &["1024", "1099511627776"],
        &["1023", "0"],
    ),
    ("CACHE_TTL_MS", &["1"], &["0"]),
    (
        "WATCH",
        &[
            "",
            "SET@a",
            " set@a:b , del@*,\n",
            r"SET@a\,b",
            "SET@me@home",
        ],
        &["a", "SET@", "GET@a", "SET@a,b", "SET@a,DEL@"],
    ),
    ("WATCH_BUCKET", &["", "carts"], &[]),
    ("WATCH_CONFIGURE_REDIS", &["true"], &["maybe"]),
    ("WATCH_ONCE", &["false"], &["once"]),
];
/// Valid and invalid values of the provider's settings, which links do not have.
const PROVIDER_SAMPLES: &[(&str, &[&str], &[&str])] = &[(
    "MAX_BYTES_IN_FLIGHT",
    &["1048576", "1099511627776"],
    &["1048575", "1099511627777"],
)];

async fn schema() -> Json {
    let ran = kvredis(&["settings", "--json"]).await;
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    serde_json::from_str(&ran.out).unwrap()
}

/// Returns true if the parser accepts the value.
async fn is_accepted(name: &str, value: &str) -> bool {
    // Some settings require another; the addresses refuse connections at once.
    let mut words = vec![
        "BACKEND_CONNECTION_TIMEOUT_MS=1".to_owned(),
        format!("{name}={value}"),
    ];
    let beside = match name {
        "URL" => "PREFIX=",
        "READ_FROM" => "URL=redis-cluster://127.0.0.1:1",
        "TLS_CERT" | "TLS_KEY" | "TLS_CA" => "URL=rediss://127.0.0.1:1",
        _ => "URL=redis://127.0.0.1:1",
    };
    words.push(beside.to_owned());
    match name {
        "TLS_CERT" => words.push("TLS_KEY=/k.pem".to_owned()),
        "TLS_KEY" => words.push("TLS_CERT=/c.pem".to_owned()),
        "BACKEND_CONNECTION_TIMEOUT_MS" => drop(words.remove(0)),
        _ => {}
    }
    let words: Vec<&str> = ["check", "--json"]
        .into_iter()
        .chain(words.iter().map(String::as_str))
        .collect();
    let ran = kvredis(&words).await;
    let report: Json = serde_json::from_str(&ran.out).expect(&ran.out);
    let findings = report["findings"].as_array().unwrap();
    !findings
        .iter()
        .any(|f| f["name"] == "settings" && f["status"] == "failed")
}

#[tokio::test]
async fn the_parser_and_the_schema_agree() {
    let schema = schema().await;
    let validator = jsonschema::draft202012::new(&schema).unwrap();
    let accepts = |name: &str, value: &str| validator.is_valid(&json!({ name: value }));
    for (name, good, wrong) in SAMPLES {
        for (values, expected) in [(good, true), (wrong, false)] {
            for value in *values {
                assert_eq!(accepts(name, value), expected, "schema: {name}={value:?}");
                assert_eq!(
                    is_accepted(name, value).await,
                    expected,
                    "parser: {name}={value:?}"
                );
            }
        }
    }
    for (name, good, wrong) in PROVIDER_SAMPLES {
        assert!(good.iter().all(|value| accepts(name, value)), "{name}");
        assert!(!wrong.iter().any(|value| accepts(name, value)), "{name}");
    }
    let sampled: BTreeSet<&str> = SAMPLES
        .iter()
        .chain(PROVIDER_SAMPLES)
        .map(|(name, _, _)| *name)
        .collect();
    let known: BTreeSet<&str> = schema["properties"]
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(sampled, known, "a setting without samples");
}

#[tokio::test]
async fn the_schema_accepts_configuration_as_hosts_pass_it() {
    let schema = schema().await;
    jsonschema::meta::validate(&schema).unwrap();
    let validator = jsonschema::draft202012::new(&schema).unwrap();
    let whole = json!({
        "url": "redis://h", "PASSWORD.orders": "pw", "Scan_Count": "5", "OTEL_TRACES_SAMPLER": "x",
        "FLAMEGRAPH_PATH": "/f", "TTL_MS": "5",
    });
    assert!(
        validator.is_valid(&whole),
        "{:?}",
        validator.iter_errors(&whole).next()
    );
    for wrong in [
        json!({ "scan_count.a": "lots" }),
        json!({ "PREFX": "a" }),
        json!({ "TTL_MS": 5 }),
    ] {
        assert!(!validator.is_valid(&wrong), "{wrong}");
    }
    for (name, property) in schema["properties"].as_object().unwrap() {
        assert!(
            !property["description"].as_str().unwrap().is_empty(),
            "{name}"
        );
        let examples = property["examples"].as_array().into_iter().flatten();
        for value in examples.chain(property.get("default")) {
            assert!(
                validator.is_valid(&json!({ name: value })),
                "{name}: {value}"
            );
        }
    }
    let of = |name: &str| &schema["properties"][name];
    assert_eq!(of("PASSWORD")["writeOnly"], true);
    assert_eq!(of("PREFIX").get("writeOnly"), None);
    assert_eq!(of("URL")["x-secret"], "with-password");
    assert_eq!(of("MAX_BYTES_IN_FLIGHT")["x-scope"], "provider");
    assert_eq!(of("TTL_MS")["x-scope"], "link");
}

#[tokio::test]
async fn the_table_lists_every_setting() {
    let ran = kvredis(&["settings"]).await;
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    for name in schema().await["properties"].as_object().unwrap().keys() {
        assert!(
            ran.out.lines().any(|line| line.trim().starts_with(name)),
            "no {name} in {}",
            ran.out
        );
    }
    assert!(!ran.out.contains('\u{1b}'));
    let widest = ran.out.lines().map(|line| line.chars().count()).max();
    assert!(widest < Some(200), "{widest:?}");
}

/// The documents that may contain generated tables.
fn documents() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = fs::read_dir(root.join("docs"))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let markdown = docs.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    markdown.chain([root.join("README.md")]).collect()
}

#[tokio::test]
async fn the_documentation_contains_the_generated_tables() {
    let generated = kvredis(&["settings", "--markdown"]).await.out;
    let (begin, end) = (
        generated.lines().next().unwrap(),
        generated.lines().last().unwrap(),
    );
    let mut found = 0;
    for path in documents() {
        let text = fs::read_to_string(&path).unwrap();
        let Some((_, rest)) = text.split_once(begin) else {
            continue;
        };
        let (table, _) = rest.split_once(end).expect("the table has an end marker");
        found += 1;
        assert_eq!(
            format!("{begin}{table}{end}\n"),
            generated,
            "{} differs from `kvredis settings --markdown`: run `make readme`",
            path.display()
        );
    }
    assert!(found > 0, "no document has {begin}");
}
