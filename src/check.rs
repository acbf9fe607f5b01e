//! `kvredis check`: tries a connection as a link would, and says what it found.
//!
//! It goes the link's way step by step (`reach`), asks each server what it is (`server`), whether
//! it allows all that this link needs (`rights`), whether reads may be kept (`caching`), whether it
//! tells of changes (`watching`) and how fast it answers (`latency`). `arguments` reads the command
//! line, `report` is what is shown. The steps themselves are `connection::probe`'s. Nothing in Redis
//! is changed.

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
    let reading = Settings::parse(sources);
    for warning in &reading.warnings {
        report.add(Finding::new("settings", Status::Warning, &warning.message));
    }
    let mut settings = match reading.settings {
        Ok(settings) => settings,
        Err(error) => {
            let finding = Finding::new("settings", Status::Failed, error.to_string());
            report.add(finding.advice("correct it: `kvredis settings` lists what there is"));
            return report;
        }
    };
    if !settings.watch.is_empty() {
        // As a watching link does: a replica may not know yet of what the component is told of.
        settings.read_from_replica = false;
    }
    report.address = Some(settings.address.to_string());
    if reading.warnings.is_empty() {
        report.add(Finding::new(
            "settings",
            Status::Ok,
            "all are known and valid",
        ));
    }
    let target = ConnectOptions::new(&settings);
    let nodes = topology::find(&target, &mut report).await;
    if nodes.is_empty() {
        return report;
    }
    server::check(&settings, &nodes, &mut report).await;
    acl::check(&settings, &nodes, &mut report).await;
    caching::check(&target, &nodes, &mut report).await;
    watching::check(&settings, &target, &nodes, &mut report).await;
    latency::check(&nodes, &mut report).await;
    report
}
