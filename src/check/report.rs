//! The findings of a check, as lines for people and as JSON for programs.
//!
//! docs/check.md lists the names of findings and the fields of their details: scripts rely on them.

use std::fmt::Write as _;

use serde_json::{Map, Value as Json, json};

/// The result of one check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Ok,
    Info,
    /// The link works, but the finding needs the operator's attention.
    Warning,
    /// The link does not work, or only in part.
    Failed,
}

/// The result of one check, with a message, advice, and details for programs.
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    name: &'static str,
    status: Status,
    text: String,
    advice: Option<String>,
    details: Map<String, Json>,
}

/// All findings.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    /// The address without credentials; `None` if the settings are invalid.
    pub(crate) address: Option<String>,
    findings: Vec<Finding>,
}

impl Status {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Failed => "failed",
        }
    }

    /// The ANSI color code.
    fn color(self) -> u8 {
        match self {
            Self::Ok => 32,
            Self::Info => 36,
            Self::Warning => 33,
            Self::Failed => 31,
        }
    }
}

impl Finding {
    /// A finding with this message. Line breaks and other control characters become spaces.
    pub(crate) fn new(name: &'static str, status: Status, text: impl AsRef<str>) -> Self {
        Self {
            name,
            status,
            text: one_line(text.as_ref()),
            advice: None,
            details: Map::new(),
        }
    }

    /// Adds advice for the operator.
    pub(crate) fn advice(mut self, text: impl AsRef<str>) -> Self {
        self.advice = Some(one_line(text.as_ref()));
        self
    }

    /// Adds a field for programs.
    pub(crate) fn detail(mut self, name: &str, value: impl Into<Json>) -> Self {
        self.details.insert(name.to_owned(), value.into());
        self
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    fn json(&self) -> Json {
        json!({
            "name": self.name,
            "status": self.status.as_str(),
            "text": self.text,
            "advice": self.advice,
            "details": self.details,
        })
    }
}

impl Report {
    pub(crate) fn add(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    /// Returns true if a link with these settings would fully work.
    pub(crate) fn works(&self) -> bool {
        self.failed().next().is_none()
    }

    fn failed(&self) -> impl Iterator<Item = &Finding> {
        let findings = self.findings.iter();
        findings.filter(|finding| finding.status == Status::Failed)
    }

    /// One line for each finding, its advice, and a summary.
    pub(crate) fn text(&self, colored: bool) -> String {
        let mut text = String::new();
        for finding in &self.findings {
            let Finding { name, status, .. } = finding;
            let status = paint(&format!("{:<8}", status.as_str()), status.color(), colored);
            // Writing to a string does not fail.
            let _ = writeln!(text, "{status} {name:<13} {}", finding.text);
            if let Some(advice) = &finding.advice {
                let _ = writeln!(text, "{:<22} -> {advice}", "");
            }
        }
        let mut failed: Vec<&str> = self.failed().map(|finding| finding.name).collect();
        failed.dedup();
        let summary = if failed.is_empty() {
            paint("A link with these settings works.", 32, colored)
        } else {
            let summary = format!(
                "A link with these settings does not fully work: see {}.",
                failed.join(", ")
            );
            paint(&summary, 31, colored)
        };
        let _ = writeln!(text, "\n{summary}");
        text
    }

    pub(crate) fn json(&self) -> Json {
        json!({
            "works": self.works(),
            "address": self.address,
            "version": env!("KVREDIS_VERSION"),
            "findings": self.findings.iter().map(Finding::json).collect::<Vec<_>>(),
        })
    }
}

fn paint(text: &str, color: u8, colored: bool) -> String {
    if colored {
        format!("\u{1b}[{color}m{text}\u{1b}[0m")
    } else {
        text.to_owned()
    }
}

/// Control characters in a server's messages must not reach the terminal.
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
    fn only_failed_findings_mean_that_a_link_does_not_work() {
        for status in [Status::Ok, Status::Info, Status::Warning] {
            assert!(report(status).works(), "{status:?}");
        }
        assert!(!report(Status::Failed).works());
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
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
