//! Runs the binary as a person does, to its end, and takes its output apart.

use std::process::{Command, Output};

use serde_json::Value as Json;
use test_support::provider::kvredis_binary;
use test_support::wait::test_timeout;

/// What a command printed, and how it ended.
pub struct Ran {
    /// The exit code.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// Runs `kvredis` with these arguments; it must end by itself.
pub async fn kvredis(arguments: &[&str]) -> Ran {
    let mut command = Command::new(kvredis_binary());
    command.args(arguments).env_clear();
    run(command).await
}

/// Runs any command to its end.
pub async fn run(mut command: Command) -> Ran {
    let ended = tokio::task::spawn_blocking(move || command.output());
    let output: Output = tokio::time::timeout(test_timeout(), ended)
        .await
        .expect("it ends by itself")
        .expect("nobody panics")
        .expect("it starts");
    Ran {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).expect("text"),
        err: String::from_utf8(output.stderr).expect("text"),
    }
}

/// Runs `kvredis check` twice, for people and as JSON; both must come to the same result.
pub async fn check(arguments: &[&str]) -> Check {
    let words = [&["check"], arguments].concat();
    let text = kvredis(&words).await;
    let json = kvredis(&[&words[..], &["--json"]].concat()).await;
    assert_eq!(text.code, json.code, "{}\n{}", text.out, json.out);
    assert_eq!((text.err.as_str(), json.err.as_str()), ("", ""));
    assert!(!text.out.contains('\u{1b}'), "no colours in a pipe");
    let report: Json = serde_json::from_str(&json.out).expect(&json.out);
    assert_eq!(report["works"], text.code == Some(0), "{}", json.out);
    Check {
        code: text.code,
        text: text.out,
        json: report,
    }
}

/// What a check found.
pub struct Check {
    /// The exit code.
    pub code: Option<i32>,
    /// As people see it.
    pub text: String,
    /// As programs see it.
    pub json: Json,
}

impl Check {
    /// The findings of a name.
    pub fn all(&self, name: &str) -> Vec<&Json> {
        let findings = self.json["findings"].as_array().expect("a list");
        findings
            .iter()
            .filter(|finding| finding["name"] == name)
            .collect()
    }

    /// The only finding of a name.
    pub fn one(&self, name: &str) -> &Json {
        let all = self.all(name);
        assert_eq!(all.len(), 1, "{name} in {:#}", self.json);
        all[0]
    }

    /// The status of the only finding of a name.
    pub fn status(&self, name: &str) -> &str {
        self.one(name)["status"].as_str().expect("a word")
    }

    /// That exactly these fail, each with advice, and the exit code says so.
    pub fn fails(&self, names: &[&str]) {
        assert_eq!(
            self.code,
            Some(i32::from(!names.is_empty())),
            "{}",
            self.text
        );
        let findings = self.json["findings"].as_array().expect("a list");
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

    /// That the only finding of a name says all of this, in its text or advice.
    pub fn says(&self, name: &str, words: &[&str]) {
        let finding = self.one(name);
        let text = format!("{} {}", finding["text"], finding["advice"]).replace("\\\"", "\"");
        for word in words {
            assert!(text.contains(word), "no {word:?} in {text}");
        }
    }
}
