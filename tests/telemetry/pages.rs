//! The pages match the telemetry: docs/telemetry.md lists exactly the exported signals,
//! docs/operations.md explains every warning and error of the log, and the dashboard queries only
//! documented metrics.

// Guarantees: G56

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use test_support::collector::{self, Collector};
use test_support::component::{Behavior, Component};
use test_support::test_env::TestEnv;
use test_support::wait::{eventually, eventually_eq};

use crate::observed::observed;

/// The cells of the rows that begin with a name in backquotes, in the tables below a heading.
fn rows(page: &str, heading: &str) -> Vec<Vec<String>> {
    section(page, heading)
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| {
            let cells = line.trim_matches('|').split('|');
            cells.map(|cell| cell.trim().to_owned()).collect()
        })
        .collect()
}

/// The section below a heading.
fn section(page: &str, heading: &str) -> String {
    let page = read(page);
    let (_, after) = page
        .split_once(&format!("\n## {heading}\n"))
        .unwrap_or_else(|| panic!("the page has no heading {heading}"));
    after.split("\n## ").next().unwrap_or_default().to_owned()
}

/// The names in backquotes in a cell.
fn names(cell: &str) -> BTreeSet<String> {
    let parts = cell.split('`').skip(1).step_by(2);
    parts.map(str::to_owned).collect()
}

fn read(path: impl AsRef<Path>) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// An environment with a link of this configuration, and a component that watches `k`.
async fn watched(collector: &Collector, config: &[(&str, &str)]) -> (TestEnv, Component) {
    let env = observed(collector).config(config).start().await;
    let () = env
        .redis
        .command(&["CONFIG", "SET", "notify-keyspace-events", "KEA"])
        .await;
    let component = env.component("watcher").await;
    env.watch("watcher", "default", &[("WATCH", "SET@k")]).await;
    (env, component)
}

#[tokio::test]
async fn documented_metrics_and_attributes_match_the_exports() {
    let collector = collector::start();
    let config = [("BACKEND_RESPONSE_TIMEOUT_MS", "500")];
    let (mut env, component) = watched(&collector, &config).await;
    env.client.set("", "k", "v").await.unwrap();
    component.wait_for_call("k").await;
    component.set_behavior(Behavior::Unresponsive);
    env.client.set("", "k", "env").await.unwrap();
    let () = env.redis.command(&["RPUSH", "list", "v"]).await;
    env.client.get("", "list").await.unwrap_err();
    eventually("a loss is exported", async || {
        collector.sum("kvredis.watch.losses", &[]) > 0.0
    })
    .await;
    env.redis.restart().await;

    let mut listed = BTreeMap::new();
    for row in rows("docs/telemetry.md", "Metrics") {
        let [name, kind, unit, attributes, ..] = row.as_slice() else {
            panic!("{row:?}")
        };
        let unit = names(unit).into_iter().next().unwrap_or_default();
        let received = (kind.clone(), unit, names(attributes));
        listed.insert(name.trim_matches('`').to_owned(), received);
    }
    eventually_eq("the exported signals match the page", listed, async || {
        let mut exported = BTreeMap::new();
        for point in collector.points() {
            let names = || point.attributes.keys().cloned();
            let (_, _, attributes) = exported
                .entry(point.metric.clone())
                .or_insert_with(|| (point.kind.to_owned(), point.unit.clone(), BTreeSet::new()));
            attributes.extend(names());
        }
        exported
    })
    .await;
}

#[tokio::test]
async fn documented_span_attributes_match_the_exports() {
    let collector = collector::start();
    let (env, component) = watched(&collector, &[("TTL_MS", "60000")]).await;
    env.client
        .set_many("", &[("k", "1"), ("l", "2")])
        .await
        .unwrap();
    component.wait_for_call("k").await;
    let () = env.redis.command(&["RPUSH", "list", "v"]).await;
    env.client.get("", "list").await.unwrap_err();
    component.set_behavior(Behavior::Unresponsive);
    env.client.set("", "k", "3").await.unwrap();
    let mut listed = BTreeMap::new();
    for row in rows("docs/telemetry.md", "Spans") {
        // The section's other table lists error types.
        if let [name, kind, attributes, _] = row.as_slice() {
            let name = name.trim_matches('`').to_owned();
            listed.insert((name, kind.clone()), names(attributes));
        }
    }
    eventually_eq("the exported signals match the page", listed, async || {
        let mut exported: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
        for span in collector.spans() {
            let operation = span.attribute("db.operation.name");
            let name = if span.name.starts_with("wrpc:keyvalue/watcher/") {
                "wrpc:keyvalue/watcher/FUNCTION".to_owned()
            } else if span.name.starts_with("wrpc:keyvalue/") {
                "wrpc:keyvalue/INTERFACE/FUNCTION".to_owned()
            } else if !operation.is_empty() && span.name.starts_with(operation) {
                "OPERATION HOST:PORT".to_owned()
            } else {
                span.name.clone()
            };
            let kind = format!("{:?}", span.kind).to_lowercase();
            let names = span.attributes.keys().cloned();
            exported.entry((name, kind)).or_default().extend(names);
        }
        exported
    })
    .await;
}

#[test]
fn dashboard_and_alerts_query_documented_metrics() {
    let mut known = BTreeSet::new();
    for row in rows("docs/telemetry.md", "Metrics") {
        let series = names(&row[4]);
        assert!(!series.is_empty(), "{row:?} has no name in Prometheus");
        for name in series {
            if row[1] == "histogram" {
                known.extend(["_bucket", "_sum", "_count"].map(|part| format!("{name}{part}")));
            } else {
                known.insert(name);
            }
        }
    }
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/kvredis.json")).unwrap();
    let mut queries = Vec::new();
    expressions(&dashboard, &mut queries);
    assert!(queries.len() > 10, "{} queries", queries.len());
    let alerts = section("docs/operations.md", "Alerts");
    let alerts = alerts.lines().filter(|line| line.starts_with("| "));
    let alerts = alerts.filter_map(|line| names(line.split('|').nth(2)?).into_iter().next());
    let before = queries.len();
    queries.extend(alerts);
    assert!(queries.len() > before + 5, "{queries:#?}");
    let mut asked = BTreeSet::new();
    for query in &queries {
        let words = query.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let starts = ["db_", "rpc_", "kvredis_", "process_"];
        let metrics: Vec<&str> = words
            .filter(|word| starts.iter().any(|start| word.starts_with(start)))
            .filter(|word| !is_label(word, query))
            .collect();
        assert!(!metrics.is_empty(), "{query} queries no metric of kvredis");
        for metric in metrics {
            assert!(
                known.contains(metric),
                "{metric} in {query} is not documented"
            );
            asked.insert(metric.to_owned());
        }
    }
    for name in ["rpc_server_call_duration", "kvredis_connections_up"] {
        assert!(
            asked.iter().any(|metric| metric.starts_with(name)),
            "{name}"
        );
    }
}

/// True if a word in a query is the name of a label: in braces, or in a grouping.
fn is_label(word: &str, query: &str) -> bool {
    let quoted = [format!("{word}="), format!("{word}!="), format!("{word}~")];
    let grouped = query.split(" by (").skip(1).any(|after| {
        let labels = after.split(')').next().unwrap_or_default();
        labels.split(", ").any(|label| label == word)
    });
    grouped || quoted.iter().any(|label| query.contains(label.as_str()))
}

/// All `expr` fields of a dashboard, and the queries of its variables.
fn expressions(json: &Value, found: &mut Vec<String>) {
    match json {
        Value::Object(fields) => {
            for (name, value) in fields {
                match (name.as_str(), value) {
                    ("expr", Value::String(query)) => found.push(query.clone()),
                    _ => expressions(value, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| expressions(value, found)),
        _ => {}
    }
}

// Guarantees: G55
#[test]
fn every_warning_and_error_is_documented() {
    let page = in_one_line(&read("docs/operations.md"));
    let mut files = Vec::new();
    sources(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        &mut files,
    );
    let mut messages = Vec::new();
    for file in files {
        let source = fs::read_to_string(&file).unwrap();
        for level in ["warn!(", "error!("] {
            for after in source.split(level).skip(1) {
                let message = message(after)
                    .unwrap_or_else(|| panic!("{}: {level} has no text", file.display()));
                messages.push(message);
            }
        }
    }
    assert!(messages.len() > 20, "{messages:?}");
    for message in messages {
        assert!(
            !message.contains('{'),
            "{message:?}: variable parts belong in fields, so that lines can be found by their text"
        );
        let row = format!("| `{message}` |");
        assert!(
            page.contains(&row),
            "docs/operations.md does not explain {message:?}"
        );
    }
}

// Guarantees: G55
#[test]
fn example_log_lines_have_messages_and_targets_of_the_sources() {
    let page = section("docs/operations.md", "The log");
    let mut examples = Vec::new();
    for line in page.lines() {
        if line.starts_with('{') {
            let event: Value = serde_json::from_str(line).unwrap();
            let (target, message) = (&event["target"], &event["fields"]["message"]);
            examples.push((
                target.as_str().unwrap().to_owned(),
                message.as_str().unwrap().to_owned(),
            ));
        } else if let Some((_, event)) = line.split_once(" kvredis::")
            && line.starts_with(|first: char| first.is_ascii_digit())
        {
            let (target, rest) = event.split_once(": ").unwrap();
            let words = rest.split(' ').take_while(|word| !word.contains('='));
            let message = words.collect::<Vec<_>>().join(" ");
            examples.push((format!("kvredis::{target}"), message));
        }
    }
    assert!(examples.len() > 5, "{examples:?}");
    for (target, message) in examples {
        let file = target.replacen("kvredis", "src", 1).replace("::", "/") + ".rs";
        assert!(
            read(&file).contains(&format!("\"{message}\"")),
            "{file} does not log {message:?}"
        );
    }
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The message of a log line: the last string of the macro before its closing parenthesis.
fn message(after: &str) -> Option<String> {
    let mut depth = 1;
    let mut last = None;
    let mut rest = after;
    while depth > 0 {
        let at = rest.find(['(', ')', '"'])?;
        let found = rest.as_bytes()[at];
        rest = &rest[at + 1..];
        match found {
            b'(' => depth += 1,
            b')' => depth -= 1,
            _ => {
                let end = rest.find('"')?;
                if depth == 1 {
                    last = Some(rest[..end].to_owned());
                }
                rest = &rest[end + 1..];
            }
        }
    }
    last.map(|text| in_one_line(&text.replace("\\\n", " ")))
}

fn in_one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
