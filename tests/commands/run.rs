//! Runs the binary to its end and parses its output.

use std::process::{Command, Output};

use serde_json::Value as Json;
use test_support::provider::kvredis_binary;
use test_support::wait::test_timeout;

/// The output and the exit code of a command.
pub struct CommandOutput {
    /// The exit code.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// Runs `kvredis` with these arguments until it exits.
pub async fn kvredis(arguments: &[&str]) -> CommandOutput {
    let mut command = Command::new(kvredis_binary());
    command.args(arguments).env_clear();
    run(command).await
}

/// Runs any command until it exits.
pub async fn run(mut command: Command) -> CommandOutput {
    let ended = tokio::task::spawn_blocking(move || command.output());
    let output: Output = tokio::time::timeout(test_timeout(), ended)
        .await
        .expect("the command exits")
        .expect("the blocking task does not panic")
        .expect("the command starts");
    CommandOutput {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).expect("text"),
        err: String::from_utf8(output.stderr).expect("text"),
    }
}

/// Runs `kvredis check` twice, as text and as JSON; both must have the same result.
pub async fn check(arguments: &[&str]) -> CheckResult {
    let words = [&["check"], arguments].concat();
    let text = kvredis(&words).await;
    let json = kvredis(&[&words[..], &["--json"]].concat()).await;
    assert_eq!(text.code, json.code, "{}\n{}", text.out, json.out);
    assert_eq!((text.err.as_str(), json.err.as_str()), ("", ""));
    assert!(!text.out.contains('\u{1b}'), "colors in a pipe");
    let report: Json = serde_json::from_str(&json.out).expect(&json.out);
    assert_eq!(report["works"], text.code == Some(0), "{}", json.out);
    CheckResult {
        code: text.code,
        text: text.out,
        json: report,
    }
}

/// The result of a check.
pub struct CheckResult {
    /// The exit code.
    pub code: Option<i32>,
    /// The text report.
    pub text: String,
    /// The JSON report.
    pub json: Json,
}

impl CheckResult {
    /// The findings with this name.
    pub fn all(&self, name: &str) -> Vec<&Json> {
        let findings = self.json["findings"].as_array().expect("an array");
        findings
            .iter()
            .filter(|finding| finding["name"] == name)
            .collect()
    }

    /// The only finding with this name.
    pub fn one(&self, name: &str) -> &Json {
        let all = self.all(name);
        assert_eq!(all.len(), 1, "{name} in {:#}", self.json);
        all[0]
    }

    /// The status of the only finding with this name.
    pub fn status(&self, name: &str) -> &str {
        self.one(name)["status"].as_str().expect("a string")
    }

    /// Asserts that exactly these findings fail, each with advice, and that the exit code says so.
    pub fn fails(&self, names: &[&str]) {
        assert_eq!(
            self.code,
            Some(i32::from(!names.is_empty())),
            "{}",
            self.text
        );
        let findings = self.json["findings"].as_array().expect("an array");
        let failed: Vec<&Json> = findings
            .iter()
            .filter(|f| f["status"] == "failed")
            .collect();
        let found: Vec<&str> = failed.iter().map(|f| f["name"].as_str().unwrap()).collect();
        assert_eq!(found, names, "{}", self.text);
        for finding in failed {
            let advice = finding["advice"].as_str().unwrap_or_default();
            assert!(!advice.is_empty(), "no advice: {finding}");
            assert!(self.text.contains(advice), "{}", self.text);
        }
    }

    /// Asserts that the only finding with this name contains all words in its text or advice.
    pub fn says(&self, name: &str, words: &[&str]) {
        let finding = self.one(name);
        let text = format!("{} {}", finding["text"], finding["advice"]).replace("\\\"", "\"");
        for word in words {
            assert!(text.contains(word), "no {word:?} in {text}");
        }
    }
}
