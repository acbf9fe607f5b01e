//! The commands and keys that this link needs, and that the ACL forbids or the server refuses.
//!
//! Each command is tried in a form that changes nothing: Redis checks the ACL before the arguments,
//! so that a command which cannot succeed shows whether it is allowed. (`ACL DRYRUN` would require a
//! permission of its own, and Redis 7.) The trials use keys that no client has. `required_commands`
//! lists them.

pub(crate) mod required_commands;

use std::collections::{BTreeMap, BTreeSet};

use crate::redis::server_error::ServerError;
use futures_util::future::join_all;
use serde_json::json;

use crate::check::acl::required_commands::{RequiredCommand, required_commands};
use crate::check::connect::ProbedNode;
use crate::check::report::{Finding, Report, Status};
use crate::redis::command::admin::AdminCommand;
use crate::redis::command::spec::Access;
use crate::redis::command_error::CommandError;
use crate::redis::selector::ServerSelector;
use crate::redis::server_error::ServerErrorExt as _;
use crate::settings::link_settings::{BucketLayout, Settings};

/// The meaning of a refused trial.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Refused {
    /// The ACL forbids it; this rule allows it.
    Forbidden { rule: String },
    /// The server does not know the command: it was renamed, or the server is not Redis.
    Unknown { command: &'static str },
    /// The ACL allows it, but the state of the server does not.
    State { message: String },
}

/// The refused commands of a node.
type Refusals = Vec<(RequiredCommand, Refused)>;

pub(crate) async fn check(settings: &Settings, nodes: &[ProbedNode], report: &mut Report) {
    let of_nodes = join_all(nodes.iter().map(|node| refusals(settings, node))).await;
    let mut alike: BTreeMap<Vec<Refused>, (Vec<String>, Refusals)> = BTreeMap::new();
    for (node, refusals) in nodes.iter().zip(of_nodes) {
        let shown = node.addr.to_string();
        match refusals {
            Ok(refusals) => {
                let refused = refusals
                    .iter()
                    .map(|(_, refused)| refused.clone())
                    .collect();
                let (nodes, _) = alike.entry(refused).or_insert((Vec::new(), refusals));
                nodes.push(shown);
            }
            Err(why) => {
                let advice = "the server stopped replying: check whether it hangs or is overloaded";
                let text = format!("{shown} does not reply: {why}");
                report.add(Finding::new("acl", Status::Failed, text).advice(advice));
                return;
            }
        }
    }
    let all_alike = alike.len() == 1;
    for (nodes, refusals) in alike.into_values() {
        let at = if all_alike {
            String::new()
        } else {
            format!("at {}: ", nodes.join(", "))
        };
        for mut finding in findings(settings, &at, &refusals) {
            if !all_alike {
                finding = finding.detail("nodes", json!(nodes));
            }
            report.add(finding);
        }
    }
}

async fn refusals(settings: &Settings, node: &ProbedNode) -> Result<Refusals, CommandError> {
    let reads_only = matches!(
        node.selector,
        ServerSelector::Replica(_) | ServerSelector::ClusterReplica(_)
    );
    let mut refusals = Vec::new();
    for need in required_commands(settings) {
        if reads_only && need.access != Access::Read {
            continue;
        }
        // A transaction that cannot be ended must not begin.
        let is_exec = |(earlier, _): &(RequiredCommand, Refused)| earlier.rule == "+exec";
        if need.rule == "+multi" && refusals.iter().any(is_exec) {
            continue;
        }
        match node.probe.execute(AdminCommand::Trial(&need.trial)).await {
            Ok(_) => {}
            Err(CommandError::ServerError(error)) => {
                refusals.extend(classify(&need, &error).map(|refused| (need, refused)));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(refusals)
}

/// Classifies a refusal; `None` if Redis refused only the arguments, as intended.
fn classify(need: &RequiredCommand, refusal: &ServerError) -> Option<Refused> {
    let details = refusal.details().unwrap_or_default();
    match refusal.code() {
        _ if refusal.is_acl_denied() => {
            // Redis 7.2 and newer phrase it differently.
            let is_command = details.contains(" run the ") || details.contains(" command");
            let rule = if is_command || !details.contains("key") {
                need.rule.to_owned()
            } else {
                need.key_rule.clone()
            };
            Some(Refused::Forbidden { rule })
        }
        "ERR" if details.starts_with("unknown command") || details.starts_with("unknown subc") => {
            let command = need.rule.trim_start_matches('+');
            Some(Refused::Unknown { command })
        }
        "OOM" | "MISCONF" | "NOREPLICAS" | "LOADING" | "MASTERDOWN" | "CLUSTERDOWN" | "BUSY"
        | "READONLY" => Some(Refused::State {
            message: refusal.message(),
        }),
        // Wrong arguments, or a key of another node: the ACL allows the command.
        _ => None,
    }
}

fn findings(settings: &Settings, at: &str, refusals: &Refusals) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(forbidden(settings, at, refusals, true));
    findings.extend(forbidden(settings, at, refusals, false));
    findings.extend(unknown(at, refusals));
    findings.extend(refused_writes(at, refusals));
    if findings.is_empty() {
        let what = if settings.watch.is_empty() && settings.read_only {
            "every command of a read-only link"
        } else if settings.watch.is_empty() {
            "every command of store, atomics and batch"
        } else {
            "every command of watching"
        };
        let text = format!("{at}{what} is allowed");
        findings.push(Finding::new("acl", Status::Ok, text));
    }
    findings
}

/// The finding about forbidden commands and keys: those that the link requires, or the others.
fn forbidden(
    settings: &Settings,
    at: &str,
    refusals: &Refusals,
    necessary: bool,
) -> Option<Finding> {
    let mut rules: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut all_writes = true;
    for (need, refused) in refusals {
        if let Refused::Forbidden { rule } = refused
            && need.necessary == necessary
        {
            rules.entry(rule).or_default().insert(need.purpose);
            all_writes &= need.access == Access::Write;
        }
    }
    if rules.is_empty() {
        return None;
    }
    let user = settings.address.username.as_deref().unwrap_or("default");
    let listed: Vec<String> = rules
        .iter()
        .map(|(rule, purposes)| {
            let purposes: Vec<&str> = purposes.iter().copied().collect();
            format!("{rule} ({})", purposes.join(", "))
        })
        .collect();
    let arguments: Vec<String> = rules.keys().map(|rule| quoted(rule)).collect();
    let command = format!("ACL SETUSER {} {}", quoted(user), arguments.join(" "));
    let text = format!("{at}the user {user} lacks {}", listed.join(", "));
    let details: Vec<_> = rules
        .iter()
        .map(|(rule, purposes)| json!({ "rule": rule, "needed_for": purposes }))
        .collect();
    let (status, advice) = if necessary {
        let mut advice = format!(
            "run `{command}` in Redis (and persist it: `ACL SAVE`, or its configuration file)"
        );
        if all_writes && settings.watch.is_empty() {
            advice += "; or set READ_ONLY=true if the link only reads";
        }
        // A link that may open any bucket needs every key behind its PREFIX.
        let opens_any_bucket = settings.buckets.is_none() && settings.watch.is_empty();
        if opens_any_bucket && rules.keys().any(|rule| rule.starts_with('~')) {
            let names = match settings.layout {
                BucketLayout::Flat => "PREFIX",
                BucketLayout::PrefixNamed | BucketLayout::PrefixAll => "BUCKETS (or PREFIX)",
            };
            advice += "; or set ";
            advice += names;
            advice += " to the keys that this user may access";
        }
        (Status::Failed, advice)
    } else {
        let advice = format!("kvredis works without it; to allow it, run `{command}` in Redis");
        (Status::Warning, advice)
    };
    let finding = Finding::new("acl", status, text).advice(advice);
    Some(
        finding
            .detail("missing", json!(details))
            .detail("command", command),
    )
}

fn unknown(at: &str, refusals: &Refusals) -> Option<Finding> {
    let commands: BTreeSet<&str> = refusals
        .iter()
        .filter(|(need, _)| need.necessary)
        .filter_map(|(_, refused)| match refused {
            Refused::Unknown { command } => Some(*command),
            _ => None,
        })
        .collect();
    if commands.is_empty() {
        return None;
    }
    let listed: Vec<&str> = commands.into_iter().collect();
    let text = format!("{at}the server has no command {}", listed.join(", "));
    let advice = "remove `rename-command` for these from its configuration; kvredis needs them \
                  under their own names";
    let finding = Finding::new("acl", Status::Failed, text).advice(advice);
    Some(finding.detail("unknown", json!(listed)))
}

/// The finding about commands that Redis refuses at the moment for any client. `server` reports
/// replicas, which reject writes.
fn refused_writes(at: &str, refusals: &Refusals) -> Option<Finding> {
    let message = refusals.iter().find_map(|(_, refused)| match refused {
        Refused::State { message } if !message.starts_with("READONLY") => Some(message),
        _ => None,
    })?;
    let advice = match message.split(' ').next().unwrap_or_default() {
        "OOM" => {
            "raise `maxmemory` in Redis, choose a `maxmemory-policy` that evicts, or set TTL_MS"
        }
        "MISCONF" => "Redis cannot write to its disk: see its log, the disk's space, and `dir`",
        "NOREPLICAS" => "too few replicas follow: see `min-replicas-to-write` and the replicas",
        "CLUSTERDOWN" => "the cluster lacks nodes: run `redis-cli --cluster check host:port`",
        _ => "this is transient: try again in a moment",
    };
    let text = format!("{at}Redis refuses commands: {message}");
    Some(Finding::new("writes", Status::Failed, text).advice(advice))
}

/// The argument as `redis-cli` accepts it.
pub(crate) fn quoted(rule: &str) -> String {
    if rule.contains(|c: char| c.is_whitespace() || c == '"' || c == '\'') {
        format!("{rule:?}")
    } else {
        rule.to_owned()
    }
}

#[cfg(test)]
mod tests;
