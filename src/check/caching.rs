//! Whether what is read may be kept in memory, as `CACHE_MAX_ENTRIES` wants: Redis must tell of
//! changes (RESP3 and `CLIENT TRACKING`).

use futures_util::future::join_all;

use crate::check::connect::ProbedNode;
use crate::check::report::{Finding, Report, Status};
use crate::redis::diagnostics;
use crate::redis::diagnostics::TrackingSupport;
use crate::redis::options::ConnectOptions;

/// Reports it, where a cache is wanted.
pub(crate) async fn check(target: &ConnectOptions, nodes: &[ProbedNode], report: &mut Report) {
    let tried = nodes
        .iter()
        .map(|node| diagnostics::tracking_support(target, &node.place));
    let mut all_keep = None;
    for (node, support) in nodes.iter().zip(join_all(tried).await) {
        match support {
            TrackingSupport::Disabled => {}
            TrackingSupport::Supported => all_keep = all_keep.or(Some(true)),
            TrackingSupport::Unsupported(why) => {
                all_keep = Some(false);
                let text = format!("{} lets nothing be kept: {why}", node.site);
                let finding = Finding::new("cache", Status::Failed, text);
                report.add(finding.advice(
                    "allow the user `+client|tracking +client|caching`, or leave CACHE_MAX_ENTRIES out: every \
                     read then asks Redis",
                ));
            }
        }
    }
    if all_keep == Some(true) {
        let text = "reads may be kept, Redis tells of changes";
        report.add(Finding::new("cache", Status::Ok, text));
    }
}
