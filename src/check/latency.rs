//! The latency of the servers.

use std::time::{Duration, Instant};

use futures_util::future::join_all;

use crate::check::connect::ProbedNode;
use crate::check::report::{Finding, Report, Status};
use crate::redis::command::admin::AdminCommand;
use crate::redis::command_error::CommandError;

/// The number of samples for each server.
const PINGS: usize = 20;

/// Reports the median and the longest latency, over all servers.
pub(crate) async fn check(nodes: &[ProbedNode], report: &mut Report) {
    let mut times: Vec<(Duration, &ProbedNode)> = Vec::new();
    for (node, samples) in nodes.iter().zip(join_all(nodes.iter().map(ping)).await) {
        match samples {
            Ok(samples) => times.extend(samples.into_iter().map(|time| (time, node))),
            Err(why) => {
                let text = format!("{}: {why}", node.addr);
                let advice = "see whether Redis is overloaded (`SLOWLOG GET`), or far away; a \
                              higher BACKEND_RESPONSE_TIMEOUT_MS waits longer";
                report.add(Finding::new("latency", Status::Failed, text).advice(advice));
                return;
            }
        }
    }
    times.sort_by_key(|(time, _)| *time);
    let (Some((median, _)), Some((longest, slowest))) = (times.get(times.len() / 2), times.last())
    else {
        return;
    };
    let milliseconds = |time: &Duration| time.as_secs_f64() * 1_000.0;
    let (median, longest) = (milliseconds(median), milliseconds(longest));
    let slowest = if nodes.len() > 1 {
        format!(" ({})", slowest.addr)
    } else {
        String::new()
    };
    let text = format!(
        "{} PINGs: median {median:.2} ms, longest {longest:.2} ms{slowest}",
        times.len()
    );
    let finding = Finding::new("latency", Status::Ok, text)
        .detail("median_ms", median)
        .detail("max_ms", longest)
        .detail("pings", times.len());
    report.add(finding);
}

async fn ping(node: &ProbedNode) -> Result<Vec<Duration>, CommandError> {
    let mut times = Vec::with_capacity(PINGS);
    for _ in 0..PINGS {
        let started = Instant::now();
        // A refused PING takes as long.
        match node.probe.execute(AdminCommand::Ping).await {
            Ok(_) | Err(CommandError::ServerError(_)) => {}
            Err(error) => return Err(error),
        }
        times.push(started.elapsed());
    }
    Ok(times)
}
