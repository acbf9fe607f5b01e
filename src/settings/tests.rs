//! Precedence, defaults, errors and warnings of settings, through all parsers.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use test_support::malformed_urls::malformed_urls;
use wasmcloud_provider_sdk::core::secrets::SecretValue;

use crate::settings::address::Address;
use crate::settings::definitions::LINK_SETTINGS;
use crate::settings::error::SettingError;
use crate::settings::link_settings::{BucketLayout, HealthPolicy, Settings};
use crate::settings::origin::Origin;
use crate::settings::parse::ParseOutcome;
use crate::settings::provider_settings::ProviderSettings;
use crate::settings::secret::Secret;
use crate::settings::source::{Layer, Sources};
use crate::settings::tls::{Pem, Tls};
use crate::settings::url;
use crate::settings::watch::WatchPattern;

fn config(origin: Origin, values: &[(&str, &str)]) -> Layer {
    let values: HashMap<String, String> = values
        .iter()
        .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
        .collect();
    Layer::config(origin, &values)
}

fn secrets(origin: Origin, values: &[(&str, SecretValue)]) -> Layer {
    let values = values
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.clone()))
        .collect();
    Layer::secrets(origin, &values)
}

fn text(value: &str) -> SecretValue {
    SecretValue::String(value.to_owned())
}

/// The settings of a link with this configuration and nothing else.
fn read(values: &[(&str, &str)]) -> ParseOutcome<Settings> {
    Settings::parse(&Sources::new(
        Layer::empty(Origin::LinkSecrets),
        config(Origin::LinkConfig, values),
        Layer::empty(Origin::ProviderSecrets),
        Layer::empty(Origin::ProviderConfig),
    ))
}

/// The texts of the warnings that this configuration causes.
fn warnings(values: &[(&str, &str)]) -> Vec<String> {
    let warnings = read(values).warnings;
    warnings
        .into_iter()
        .map(|warning| warning.message)
        .collect()
}

/// The error of this configuration.
fn error_of(values: &[(&str, &str)]) -> String {
    read(values).settings.unwrap_err().to_string()
}

#[test]
fn documented_defaults_are_the_defaults() {
    for definition in LINK_SETTINGS {
        let Some(default) = definition.default_value() else {
            continue;
        };
        let outcome = read(&[(definition.name, default)]);
        assert_eq!(
            outcome.settings.unwrap(),
            Settings::default(),
            "{}",
            definition.name
        );
    }
}

#[test]
fn every_setting_is_parsed() {
    let settings = read(&[
        ("url", "rediss://ada:pw@h:1/2"),
        ("Backend_Connection_Timeout_Ms", "1"),
        ("BACKEND_RESPONSE_TIMEOUT_MS.orders", " 2 "),
        ("BACKEND_RECONNECT_NUM_RETRIES", "0"),
        ("BACKEND_RECONNECT_MAX_DELAY_MS", "4"),
        ("DISABLE_DEFAULT_CONNECTION", ""),
        ("SHARE_CONNECTIONS_BY_URL", "1"),
        ("USERNAME", "bob"),
        ("PASSWORD.bob", "better"),
        ("PASSWORD_FILE", "/run/password"),
        ("TLS_CA", "-----BEGIN CERTIFICATE-----"),
        ("TLS_CERT", "/run/cert.pem"),
        ("TLS_KEY", "/run/key.pem"),
        ("READ_FROM", "Primary"),
        ("PREFIX", "shop/"),
        ("BUCKET_LAYOUT", "Flat"),
        ("BUCKETS", "a, b"),
        ("READ_ONLY", "TRUE"),
        ("TTL_MS", "5"),
        ("SCAN_COUNT", "6"),
        ("MAX_IN_FLIGHT", "7"),
        ("MAX_WAITING", "0"),
        ("MAX_WAIT_MS", "11"),
        ("MAX_VALUE_BYTES", "8"),
        ("HEALTH", "Process"),
        ("CACHE_MAX_ENTRIES", "9"),
        ("CACHE_MAX_BYTES", "1024"),
        ("CACHE_TTL_MS", "10"),
        ("WATCH", "set@a,DEL@b:*"),
        ("WATCH_BUCKET", "a"),
        ("WATCH_CONFIGURE_REDIS", "1"),
        ("WATCH_ONCE", "true"),
    ])
    .settings
    .unwrap();
    let expected = Settings {
        address: Address {
            username: Some("bob".to_owned()),
            password: Some(Secret::from("better".to_owned())),
            ..url::parse("rediss://h:1/2").unwrap().address
        },
        password_file: Some("/run/password".into()),
        tls: Tls {
            ca: Some(Pem::Text(Secret::from(
                "-----BEGIN CERTIFICATE-----".to_owned(),
            ))),
            cert: Some(Pem::File("/run/cert.pem".into())),
            key: Some(Pem::File("/run/key.pem".into())),
        },
        read_from_replica: false,
        connection_timeout: Duration::from_millis(1),
        response_timeout: Duration::from_millis(2),
        retries: 0,
        reconnect_max_delay: Duration::from_millis(4),
        require_own_url: true,
        share_connection: true,
        prefix: "shop/".to_owned(),
        layout: BucketLayout::Flat,
        buckets: Some(BTreeSet::from(["a".to_owned(), "b".to_owned()])),
        read_only: true,
        ttl: Some(Duration::from_millis(5)),
        scan_count: 6,
        max_in_flight: 7,
        max_waiting: 0,
        max_wait: Some(Duration::from_millis(11)),
        max_value_bytes: 8,
        health: HealthPolicy::Process,
        cache_max_entries: 9,
        cache_max_bytes: 1_024,
        cache_ttl: Duration::from_millis(10),
        watch: vec![
            WatchPattern {
                pattern: "a".to_owned(),
                on_set: true,
                on_delete: false,
            },
            WatchPattern {
                pattern: "b:*".to_owned(),
                on_set: false,
                on_delete: true,
            },
        ],
        watch_bucket: "a".to_owned(),
        watch_configure_redis: true,
        watch_once: true,
    };
    assert_eq!(settings, expected);
}

#[test]
fn conflicting_settings_are_named() {
    let error = error_of(&[("URL", "redis://h"), ("READ_FROM", "replica")]);
    assert!(
        error.contains("READ_FROM=replica") && error.contains("redis://h:6379"),
        "{error}"
    );
    let error = error_of(&[("URL", "redis://h"), ("TLS_CA", "/ca.pem")]);
    assert!(
        error.contains("TLS_CA") && error.contains("rediss"),
        "{error}"
    );
    let error = error_of(&[("URL", "rediss://h"), ("TLS_CERT", "/cert.pem")]);
    assert!(error.contains("TLS_KEY"), "{error}");
    let error = error_of(&[("URL", "rediss://h"), ("TLS_KEY", "/key.pem")]);
    assert!(error.contains("TLS_CERT"), "{error}");
    let replica = read(&[("URL", "redis-cluster://h"), ("READ_FROM", "replica")]);
    assert!(replica.settings.unwrap().read_from_replica);
}

#[test]
fn values_that_should_be_paths_are_not_shown() {
    for name in ["TLS_KEY", "PASSWORD_FILE"] {
        let error = error_of(&[(name, "MIIEvQIBADAN")]);
        assert!(error.contains(name) && !error.contains("MIIE"), "{error}");
    }
}

#[test]
fn invalid_values_are_named_with_the_expectation() {
    for definition in LINK_SETTINGS {
        let any = [
            "USERNAME",
            "PASSWORD",
            "PASSWORD_FILE",
            "PREFIX",
            "TLS_KEY",
            "WATCH_BUCKET",
        ];
        if any.contains(&definition.name) {
            continue;
        }
        let value = if definition.name == "BUCKETS" {
            "a,,b"
        } else {
            "oops!"
        };
        let error = error_of(&[(definition.name, value)]);
        assert!(error.contains(definition.name), "{error}");
        // In these, anything may be a secret that is in the wrong place.
        let is_shown = !["URL", "TLS_CA", "TLS_CERT"].contains(&definition.name);
        let shown = format!("{value:?}");
        assert_eq!(error.contains(&shown), is_shown, "{error}");
        assert!(error.contains("expected "), "{error}");
    }
    assert!(error_of(&[("SCAN_COUNT", "0")]).contains("a whole number from 1 to 1000000"));
    assert!(error_of(&[("TTL_MS", "-1")]).contains("milliseconds"));
}

#[test]
fn the_first_source_takes_precedence() {
    let layers = [
        secrets(Origin::LinkSecrets, &[("PREFIX", text("1"))]),
        config(Origin::LinkConfig, &[("PREFIX", "2")]),
        secrets(Origin::ProviderSecrets, &[("PREFIX", text("3"))]),
        config(Origin::ProviderConfig, &[("PREFIX", "4")]),
    ];
    for given in 0..4 {
        let mut layers = layers.clone();
        for layer in &mut layers[..given] {
            *layer = config(Origin::LinkConfig, &[]);
        }
        let [link_secrets, link_config, provider_secrets, provider_config] = layers;
        let sources = Sources::new(link_secrets, link_config, provider_secrets, provider_config);
        let settings = Settings::parse(&sources).settings.unwrap();
        assert_eq!(settings.prefix, (given + 1).to_string());
    }
}

#[test]
fn plain_names_take_precedence_over_qualified_ones() {
    for plain in ["prefix", "PREFIX"] {
        let settings = read(&[("PREFIX.a", "qualified"), (plain, "plain")]).settings;
        assert_eq!(settings.unwrap().prefix, "plain");
    }
}

#[test]
fn links_with_their_own_url_do_not_inherit_credentials() {
    let provider = || {
        secrets(
            Origin::ProviderSecrets,
            &[("USERNAME", text("ada")), ("PASSWORD", text("pw"))],
        )
    };
    let read_with = |url: &[(&str, &str)]| {
        Settings::parse(&Sources::new(
            Layer::empty(Origin::LinkSecrets),
            config(Origin::LinkConfig, url),
            provider(),
            config(Origin::ProviderConfig, &[("URL", "redis://shared")]),
        ))
        .settings
        .unwrap()
        .address
    };
    let own = read_with(&[("URL", "redis://own")]);
    assert_eq!((own.username, own.password), (None, None));
    let shared = read_with(&[]);
    assert_eq!(shared.username.as_deref(), Some("ada"));
    assert_eq!(shared.password.unwrap().reveal(), "pw");
}

#[test]
fn invalid_secrets_are_not_shown() {
    let outcome = Settings::parse(&Sources::new(
        secrets(Origin::LinkSecrets, &[("URL", text("hunter2:6379"))]),
        Layer::empty(Origin::LinkConfig),
        Layer::empty(Origin::ProviderSecrets),
        Layer::empty(Origin::ProviderConfig),
    ));
    let error = outcome.settings.unwrap_err();
    assert!(matches!(error, SettingError::Invalid { name: "URL", .. }));
    let forms = format!("{error} {error:?}");
    assert!(forms.contains("expected"), "{forms}");
    assert!(!forms.contains("hunter2"), "{forms}");
    let not_yet_known_to_be_secret = url::parse("hunter2:6379").unwrap_err();
    let debug = format!("{not_yet_known_to_be_secret:?}");
    assert!(!debug.contains("hunter2"), "{debug}");

    let error = error_of(&[("URL", "redis://ada:hunter2@h/zero")]);
    assert!(!error.contains("hunter2"), "{error}");

    let sources = Sources::new(
        secrets(
            Origin::LinkSecrets,
            &[("URL", SecretValue::Bytes(vec![0xff]))],
        ),
        config(Origin::LinkConfig, &[("PASSWORD", "hunter2")]),
        Layer::empty(Origin::ProviderSecrets),
        Layer::empty(Origin::ProviderConfig),
    );
    assert!(!format!("{sources:?}").contains("hunter2"));
    let error = Settings::parse(&sources).settings.unwrap_err().to_string();
    assert!(error.contains("URL") && error.contains("UTF-8"), "{error}");
}

#[test]
fn malformed_urls_are_not_repeated() {
    let marker = "MarkerOfPassword";
    let urls = malformed_urls(marker);
    assert!(urls.len() >= 200, "{}", urls.len());
    // A text can be set under the name of another setting, too, or be in the place of a name.
    let others = LINK_SETTINGS.iter().map(|definition| definition.name);
    let names: Vec<&str> = others
        .filter(|name| !["PREFIX", "BUCKETS", "WATCH_BUCKET"].contains(name))
        .collect();
    for url in &urls {
        let of_config = read(&[("URL", url)]);
        let sources = Sources::new(
            secrets(Origin::LinkSecrets, &[("URL", text(url))]),
            Layer::empty(Origin::LinkConfig),
            Layer::empty(Origin::ProviderSecrets),
            config(Origin::ProviderConfig, &[(url, url)]),
        );
        let mut outcomes = vec![of_config, Settings::parse(&sources), read(&[(url, "x")])];
        for outcome in &outcomes[..2] {
            let error = outcome.settings.as_ref().unwrap_err();
            assert!(error.to_string().contains("expected"), "{url}: {error}");
        }
        let wrong_places = names.iter().map(|name| read(&[(name, url)]));
        outcomes.extend(wrong_places.filter(|outcome| outcome.settings.is_err()));
        for outcome in outcomes {
            let mut forms = format!("{outcome:?} {sources:?}");
            if let Err(error) = &outcome.settings {
                forms += &error.to_string();
            }
            assert!(!forms.contains(marker), "{url}: {forms}");
        }
        let process = ProviderSettings::parse(&sources);
        assert!(!format!("{process:?}").contains(marker), "{url}");
    }
}

#[test]
fn secrets_may_be_bytes() {
    let outcome = Settings::parse(&Sources::new(
        secrets(
            Origin::LinkSecrets,
            &[("URL", SecretValue::Bytes(b"redis://h".to_vec()))],
        ),
        Layer::empty(Origin::LinkConfig),
        Layer::empty(Origin::ProviderSecrets),
        Layer::empty(Origin::ProviderConfig),
    ));
    assert_eq!(
        outcome.settings.unwrap().address.to_string(),
        "redis://h:6379"
    );
    assert_eq!(outcome.warnings, []);
}

#[test]
fn unknown_names_cause_a_warning_with_the_most_similar_name() {
    let texts = warnings(&[
        ("PREFX", "a"),
        ("OTEL_TRACES_SAMPLER", "b"),
        ("FLAMEGRAPH_PATH", "c"),
    ]);
    assert_eq!(texts.len(), 1, "{texts:?}");
    assert!(texts[0].contains("\"PREFX\"") && texts[0].contains("PREFIX"));
}

#[test]
fn plain_passwords_and_wildcards_cause_warnings() {
    let texts = warnings(&[("URL", "redis://:hunter2@0.0.0.0")]);
    assert_eq!(texts.len(), 1, "{texts:?}");
    assert!(texts[0].contains("password") && !texts[0].contains("hunter2"));
    let texts = warnings(&[("PASSWORD", "hunter2")]);
    assert!(texts[0].contains("PASSWORD") && !texts[0].contains("hunter2"));
    let texts = warnings(&[("URL", "redis://0.0.0.0")]);
    assert!(texts[0].contains("redis://127.0.0.1:6379"), "{texts:?}");
}

#[test]
fn links_without_a_url_are_errors_if_the_default_is_disabled() {
    let error = error_of(&[("DISABLE_DEFAULT_CONNECTION", "true")]);
    assert!(error.contains("URL") && error.contains("DISABLE_DEFAULT_CONNECTION"));
    assert!(
        read(&[("DISABLE_DEFAULT_CONNECTION", "false")])
            .settings
            .is_ok()
    );
}
