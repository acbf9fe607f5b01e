//! `kvredis check`: tries a connection as a link would, and reports its findings.
//!
//! The check follows the steps of a link: it connects (`topology`, `connect`), identifies each server
//! (`server`), tries the commands that this link needs (`acl`), client tracking (`caching`) and the
//! notifications of changes (`watching`), and measures the latency (`latency`). `arguments` parses
//! the command line, `report` renders the findings. `redis::diagnostics` executes the steps. Nothing
//! in Redis is changed.

pub(crate) mod acl;
pub(crate) mod arguments;
pub(crate) mod caching;
pub(crate) mod connect;
pub(crate) mod latency;
pub(crate) mod report;
pub(crate) mod server;
pub(crate) mod topology;
pub(crate) mod watching;

use crate::check::report::{Finding, Report, Status};
use crate::redis::options::ConnectOptions;
use crate::settings::link_settings::Settings;
use crate::settings::source::Sources;

/// Checks whether a link with these settings would work.
pub(crate) async fn check(sources: &Sources) -> Report {
    let mut report = Report::default();
    let parsed = Settings::parse(sources);
    for warning in &parsed.warnings {
        report.add(Finding::new("settings", Status::Warning, &warning.message));
    }
    let mut settings = match parsed.settings {
        Ok(settings) => settings,
        Err(error) => {
            let finding = Finding::new("settings", Status::Failed, error.to_string());
            report.add(finding.advice("correct it: `kvredis settings` lists all settings"));
            return report;
        }
    };
    if !settings.watch.is_empty() {
        // A watching link reads from the primary: a replica may lag behind the notification of a
        // change.
        settings.read_from_replica = false;
    }
    report.address = Some(settings.address.to_string());
    if parsed.warnings.is_empty() {
        report.add(Finding::new(
            "settings",
            Status::Ok,
            "all are known and valid",
        ));
    }
    let options = ConnectOptions::new(&settings);
    let nodes = topology::find(&options, &mut report).await;
    if nodes.is_empty() {
        return report;
    }
    server::check(&settings, &nodes, &mut report).await;
    acl::check(&settings, &nodes, &mut report).await;
    caching::check(&options, &nodes, &mut report).await;
    watching::check(&settings, &options, &nodes, &mut report).await;
    latency::check(&nodes, &mut report).await;
    report
}
