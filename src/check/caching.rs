//! The servers' support for the cache of `CACHE_MAX_ENTRIES`: it needs client tracking (RESP3 and
//! `CLIENT TRACKING`).

use futures_util::future::join_all;

use crate::check::connect::ProbedNode;
use crate::check::report::{Finding, Report, Status};
use crate::redis::diagnostics;
use crate::redis::diagnostics::TrackingSupport;
use crate::redis::options::ConnectOptions;

pub(crate) async fn check(options: &ConnectOptions, nodes: &[ProbedNode], report: &mut Report) {
    let tried = nodes
        .iter()
        .map(|node| diagnostics::tracking_support(options, &node.selector));
    let mut all_support = None;
    for (node, support) in nodes.iter().zip(join_all(tried).await) {
        match support {
            TrackingSupport::Disabled => {}
            TrackingSupport::Supported => all_support = all_support.or(Some(true)),
            TrackingSupport::Unsupported(why) => {
                all_support = Some(false);
                let text = format!("{}: client tracking is unavailable: {why}", node.addr);
                let finding = Finding::new("cache", Status::Failed, text);
                report.add(finding.advice(
                    "allow the user `+client|tracking +client|caching`, or leave CACHE_MAX_ENTRIES out: every \
                     read then asks Redis",
                ));
            }
        }
    }
    if all_support == Some(true) {
        let text = "client tracking works: reads are cached";
        report.add(Finding::new("cache", Status::Ok, text));
    }
}
