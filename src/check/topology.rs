//! The servers that a link would connect to, and the connections to them: the server of the URL, the
//! one that sentinels report, or the nodes of a cluster.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use serde_json::json;

use crate::check::connect::{FailedStep, ProbedNode};
use crate::check::report::{Finding, Report, Status};
use crate::redis::cluster::slot_map::SLOT_COUNT;
use crate::redis::cluster::slot_ranges::SlotRange;
use crate::redis::diagnostics;
use crate::redis::options::ConnectOptions;
use crate::redis::selector::ServerSelector;
use crate::redis::transport::ServerAddr;
use crate::settings::address::{Endpoint, Sentinels, ServerSpec};

const SLOTS: usize = SLOT_COUNT as usize;

/// Connects to all servers of the link. Returns none if that fails.
pub(crate) async fn find(options: &ConnectOptions, report: &mut Report) -> Vec<ProbedNode> {
    let address = options.address.to_string();
    match &options.address.server {
        ServerSpec::Tcp(endpoint) => {
            let selector = ServerSelector::Fixed(ServerAddr::Tcp(endpoint.clone()));
            one(options, selector, &endpoint.to_string(), report).await
        }
        ServerSpec::Unix { path } => {
            let selector = ServerSelector::Fixed(ServerAddr::Unix(path.clone()));
            one(options, selector, &path.display().to_string(), report).await
        }
        ServerSpec::Sentinel(sentinels) => {
            let Some(primary) = query_sentinels(options, sentinels, report).await else {
                return Vec::new();
            };
            let selector = ServerSelector::Primary(sentinels.clone());
            let mut nodes = one(options, selector, &primary, report).await;
            if options.read_from_replica && !nodes.is_empty() {
                nodes.extend(replica(options, sentinels, &primary, report).await);
            }
            nodes
        }
        ServerSpec::Cluster { seeds } => cluster(options, seeds, &address, report).await,
    }
}

async fn one(
    options: &ConnectOptions,
    selector: ServerSelector,
    server: &str,
    report: &mut Report,
) -> Vec<ProbedNode> {
    match ProbedNode::open(options, selector).await {
        Ok(node) => {
            report.add(node.reachable());
            report.add(node.tls(&options.tls));
            vec![node]
        }
        Err(failure) => {
            fail(failure, server, report);
            Vec::new()
        }
    }
}

fn fail(failure: FailedStep, server: &str, report: &mut Report) {
    for finding in failure.findings(server) {
        report.add(finding);
    }
}

/// Queries each sentinel for the primary, and all together as a link does.
async fn query_sentinels(
    options: &ConnectOptions,
    sentinels: &Sentinels,
    report: &mut Report,
) -> Option<String> {
    let queries = sentinels.endpoints.iter().map(async |endpoint| {
        let alone = ServerSelector::Primary(Sentinels {
            endpoints: vec![endpoint.clone()],
            ..sentinels.clone()
        });
        diagnostics::resolve(options, &alone).await
    });
    let all_together = ServerSelector::Primary(sentinels.clone());
    let (replies, together) = tokio::join!(
        join_all(queries),
        diagnostics::resolve(options, &all_together)
    );
    let primary = match together {
        Ok(addr) => addr.to_string(),
        Err(why) => {
            let step = crate::check::connect::Step::Sentinels;
            fail(
                FailedStep { step, why },
                &options.address.to_string(),
                report,
            );
            return None;
        }
    };
    let agree = replies
        .iter()
        .filter(|reply| reply.as_ref().is_ok_and(|addr| addr.to_string() == primary));
    let (agree, all) = (agree.count(), replies.len());
    let service = &sentinels.service;
    let text = format!("{agree} of {all} name {primary} as the primary of {service}");
    let status = if agree == all {
        Status::Ok
    } else {
        Status::Warning
    };
    let mut finding = Finding::new("sentinels", status, text)
        .detail("primary", primary.as_str())
        .detail("agree", agree)
        .detail("asked", all);
    let error = replies.into_iter().find_map(Result::err);
    if let Some(why) = error {
        finding = finding.advice(format!("check the others ({})", why.message()));
    }
    report.add(finding);
    Some(primary)
}

async fn replica(
    options: &ConnectOptions,
    sentinels: &Sentinels,
    primary: &str,
    report: &mut Report,
) -> Option<ProbedNode> {
    match ProbedNode::open(options, ServerSelector::Replica(sentinels.clone())).await {
        Ok(node) if node.addr.to_string() != primary => {
            let text = format!("reads may go to {}", node.addr);
            report.add(Finding::new("replicas", Status::Ok, text));
            Some(node)
        }
        Ok(_) => {
            let text = "the sentinels name no healthy replica: reads go to the primary";
            report.add(Finding::new("replicas", Status::Warning, text));
            None
        }
        Err(failure) => {
            let advice = failure.advice();
            let text = format!("no replica can be read from: {}", failure.why.message());
            report.add(Finding::new("replicas", Status::Warning, text).advice(advice));
            None
        }
    }
}

async fn cluster(
    options: &ConnectOptions,
    seeds: &[Endpoint],
    address: &str,
    report: &mut Report,
) -> Vec<ProbedNode> {
    let (mut reached, failures) =
        open_all(options, seeds.iter().cloned(), ServerSelector::Fixed).await;
    if reached.is_empty() {
        // The reason of one seed suffices.
        if let Some((endpoint, failure)) = failures.into_iter().next() {
            fail(failure, &endpoint.to_string(), report);
        }
        return Vec::new();
    }
    let first = reached.swap_remove(0);
    report.add(first.reachable());
    report.add(first.tls(&options.tls));
    for (endpoint, failure) in failures {
        let advice = failure.advice();
        let text = format!("the node {endpoint} of the URL: {}", failure.why.message());
        report.add(Finding::new("reachable", Status::Warning, text).advice(advice));
    }
    let ranges = match &first.addr {
        ServerAddr::Tcp(endpoint) => first.probe.slots(endpoint).await,
        ServerAddr::Unix(_) => Ok(None),
    };
    let ranges = match ranges {
        Ok(Some(ranges)) => Ok(ranges),
        Ok(None) => Err("the reply to CLUSTER SLOTS has no slots".to_owned()),
        Err(error) => Err(error.to_string()),
    };
    let ranges = match ranges {
        Ok(ranges) => ranges,
        Err(why) => {
            let advice = if why.contains("NOPERM") {
                "allow the user `+cluster|slots`"
            } else {
                "if it is not a cluster, the URL begins with redis:// (rediss:// with TLS)"
            };
            let text = format!("{address} does not return the slot map: {why}");
            report.add(Finding::new("cluster", Status::Failed, text).advice(advice));
            return Vec::new();
        }
    };
    nodes_of(options, &ranges, report).await
}

/// Connects to all nodes that a link would use.
async fn nodes_of(
    options: &ConnectOptions,
    ranges: &[SlotRange],
    report: &mut Report,
) -> Vec<ProbedNode> {
    let primaries: BTreeSet<_> = ranges.iter().map(|range| range.primary.clone()).collect();
    let replicas: BTreeSet<_> = ranges
        .iter()
        .flat_map(|range| range.replicas.clone())
        .collect();
    let covered: usize = ranges
        .iter()
        .map(|range| usize::from(range.last).saturating_sub(usize::from(range.first)) + 1)
        .sum();
    let text = format!(
        "{} primaries and {} replicas, {covered} of {SLOTS} slots covered",
        primaries.len(),
        replicas.len()
    );
    let names = |nodes: &BTreeSet<Endpoint>| -> Vec<String> {
        nodes.iter().map(ToString::to_string).collect()
    };
    let status = if covered == SLOTS {
        Status::Ok
    } else {
        Status::Failed
    };
    let mut finding = Finding::new("cluster", status, text)
        .detail("primaries", json!(names(&primaries)))
        .detail("replicas", json!(names(&replicas)))
        .detail("slots_covered", covered);
    if covered < SLOTS {
        finding = finding.advice(
            "keys in the other slots have no server: run `redis-cli --cluster check host:port` \
             there, and `--cluster fix` or `create`",
        );
    }
    report.add(finding);
    let (mut nodes, failures) =
        open_all(options, primaries.into_iter(), ServerSelector::Fixed).await;
    report_unreachable(failures, Status::Failed, report);
    if options.read_from_replica {
        let selector = ServerSelector::ClusterReplica;
        let (replicas, failures) = open_all(options, replicas.into_iter(), selector).await;
        // Reads then go to its primary.
        report_unreachable(failures, Status::Warning, report);
        nodes.extend(replicas);
    }
    nodes
}

fn report_unreachable(failures: Vec<(Endpoint, FailedStep)>, status: Status, report: &mut Report) {
    for (endpoint, failure) in failures {
        let advice = format!(
            "{}; the nodes must be reachable by the addresses that they name \
             (`cluster-announce-ip`, `cluster-announce-port`)",
            failure.advice()
        );
        let text = format!("the node {endpoint}: {}", failure.why.message());
        let finding = Finding::new("cluster", status, text).advice(advice);
        report.add(finding.detail("node", endpoint.to_string()));
    }
}

/// Connects to several servers at once.
async fn open_all(
    options: &ConnectOptions,
    endpoints: impl Iterator<Item = Endpoint>,
    selector: impl Fn(ServerAddr) -> ServerSelector,
) -> (Vec<ProbedNode>, Vec<(Endpoint, FailedStep)>) {
    let opening = endpoints.map(|endpoint| {
        let selector = selector(ServerAddr::Tcp(endpoint.clone()));
        async move {
            let opened = ProbedNode::open(options, selector).await;
            opened.map_err(|failure| (endpoint, failure))
        }
    });
    let (mut nodes, mut failures) = (Vec::new(), Vec::new());
    for opened in join_all(opening).await {
        match opened {
            Ok(node) => nodes.push(node),
            Err(failure) => failures.push(failure),
        }
    }
    (nodes, failures)
}
