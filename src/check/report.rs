//! What a check found, as lines for people and as JSON for programs.
//!
//! The names of the findings and the fields of their details are those that docs/check.md lists;
//! scripts rely on them.

use std::fmt::Write as _;

use serde_json::{Map, Value as Json, json};

/// How it is with one thing that was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// As it should be.
    Ok,
    /// Neither good nor bad.
    Info,
    /// The link works, but somebody should know.
    Warning,
    /// The link does not work, or not fully.
    Failed,
}

/// One thing that was checked.
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    name: &'static str,
    status: Status,
    text: String,
    advice: Option<String>,
    details: Map<String, Json>,
}

/// Everything that a check found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    /// The address without credentials, once it is known.
    pub(crate) address: Option<String>,
    findings: Vec<Finding>,
}

impl Status {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Failed => "failed",
        }
    }

    /// The number of the colour, as terminals have them.
    fn colour(self) -> u8 {
        match self {
            Self::Ok => 32,
            Self::Info => 36,
            Self::Warning => 33,
            Self::Failed => 31,
        }
    }
}

impl Finding {
    /// A finding in words, which become one line.
    pub(crate) fn new(name: &'static str, status: Status, text: impl AsRef<str>) -> Self {
        Self {
            name,
            status,
            text: one_line(text.as_ref()),
            advice: None,
            details: Map::new(),
        }
    }

    /// What to do about it.
    pub(crate) fn advice(mut self, what: impl AsRef<str>) -> Self {
        self.advice = Some(one_line(what.as_ref()));
        self
    }

    /// The same for programs.
    pub(crate) fn detail(mut self, name: &str, value: impl Into<Json>) -> Self {
        self.details.insert(name.to_owned(), value.into());
        self
    }

    /// What was found, in words.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    fn json(&self) -> Json {
        json!({
            "name": self.name,
            "status": self.status.word(),
            "text": self.text,
            "advice": self.advice,
            "details": self.details,
        })
    }
}

impl Report {
    /// Adds what was found.
    pub(crate) fn add(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    /// Whether a link with these settings would fully work.
    pub(crate) fn works(&self) -> bool {
        self.failed().next().is_none()
    }

    fn failed(&self) -> impl Iterator<Item = &Finding> {
        let findings = self.findings.iter();
        findings.filter(|finding| finding.status == Status::Failed)
    }

    /// One line for each finding, and one for all.
    pub(crate) fn text(&self, coloured: bool) -> String {
        let mut text = String::new();
        for finding in &self.findings {
            let Finding { name, status, .. } = finding;
            let word = paint(&format!("{:<8}", status.word()), status.colour(), coloured);
            // Writing to a string does not fail.
            let _ = writeln!(text, "{word} {name:<13} {}", finding.text);
            if let Some(advice) = &finding.advice {
                let _ = writeln!(text, "{:<22} -> {advice}", "");
            }
        }
        let mut failed: Vec<&str> = self.failed().map(|finding| finding.name).collect();
        failed.dedup();
        let sum = if failed.is_empty() {
            paint("A link with these settings works.", 32, coloured)
        } else {
            let sum = format!(
                "A link with these settings does not fully work: see {}.",
                failed.join(", ")
            );
            paint(&sum, 31, coloured)
        };
        let _ = writeln!(text, "\n{sum}");
        text
    }

    /// The same as one JSON object.
    pub(crate) fn json(&self) -> Json {
        json!({
            "works": self.works(),
            "address": self.address,
            "version": env!("KVREDIS_VERSION"),
            "findings": self.findings.iter().map(Finding::json).collect::<Vec<_>>(),
        })
    }
}

fn paint(text: &str, colour: u8, coloured: bool) -> String {
    if coloured {
        format!("\u{1b}[{colour}m{text}\u{1b}[0m")
    } else {
        text.to_owned()
    }
}

/// What a server says must not steer the terminal.
fn one_line(text: &str) -> String {
    text.trim().replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(status: Status) -> Report {
        let mut report = Report::default();
        report.add(Finding::new("login", status, "a\u{1b}[31m\r\nb").advice("do it"));
        report
    }

    #[test]
    fn only_failures_keep_a_link_from_working() {
        for status in [Status::Ok, Status::Info, Status::Warning] {
            assert!(report(status).works(), "{status:?}");
        }
        assert!(!report(Status::Failed).works());
    }

    #[test]
    fn what_servers_say_does_not_steer_the_terminal() {
        let text = report(Status::Failed).text(false);
        assert!(!text.contains(['\u{1b}', '\r']), "{text:?}");
        assert_eq!(text.lines().count(), 4, "{text}");
        assert!(
            report(Status::Failed)
                .text(true)
                .contains("\u{1b}[31mfailed")
        );
    }
}
