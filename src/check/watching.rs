//! The notifications of changes that `WATCH` needs: Redis's setting `notify-keyspace-events`, and the
//! permission to subscribe to the channels.

use crate::redis::server_error::ServerError;
use futures_util::future::join_all;

use crate::check::acl::quoted;
use crate::check::connect::ProbedNode;
use crate::check::report::{Finding, Report, Status};
use crate::link::keyspace::Keyspace;
use crate::redis::command::admin::AdminCommand;
use crate::redis::command_error::CommandError;
use crate::redis::diagnostics;
use crate::redis::options::ConnectOptions;
use crate::redis::pubsub::connection::SubscribeError;
use crate::redis::pubsub::keyspace_events;
use crate::redis::pubsub::keyspace_events::SETTING as NOTIFICATIONS;
use crate::redis::selector::ServerSelector;
use crate::redis::server_error::ServerErrorExt as _;
use crate::settings::link_settings::Settings;
use crate::watcher::watch;

/// The flags of a node, or the reason why they are unknown.
type Flags = Result<String, String>;

/// Without `WATCH`, reports only the present flags.
pub(crate) async fn check(
    settings: &Settings,
    options: &ConnectOptions,
    nodes: &[ProbedNode],
    report: &mut Report,
) {
    let publishers: Vec<&ProbedNode> = nodes
        .iter()
        .filter(|node| publishes_changes(node))
        .collect();
    let of_nodes = join_all(publishers.iter().map(|node| flags(node))).await;
    if settings.watch.is_empty() {
        let now = match of_nodes.first() {
            Some(Ok(flags)) => format!("; {NOTIFICATIONS} is \"{flags}\""),
            _ => String::new(),
        };
        let text = format!("not needed: WATCH is not set{now}");
        report.add(Finding::new("notifications", Status::Info, text));
        return;
    }
    let several = publishers.len() > 1;
    let mut seen: Vec<(Flags, bool)> = Vec::new();
    for (node, flags) in publishers.iter().zip(of_nodes) {
        let may_set = settings.watch_configure_redis && may_configure(node).await;
        if seen.contains(&(flags.clone(), may_set)) {
            continue;
        }
        let mut finding = notifications(settings, &flags, may_set);
        if several && !(flags.is_ok() && seen.is_empty()) {
            finding = finding.detail("node", node.addr.to_string());
        }
        report.add(finding);
        seen.push((flags, may_set));
    }
    report.add(subscription(settings, options, &publishers).await);
}

/// Only primaries are subscribed to: they publish changes.
fn publishes_changes(node: &ProbedNode) -> bool {
    !matches!(
        node.selector,
        ServerSelector::Replica(_) | ServerSelector::ClusterReplica(_)
    )
}

async fn flags(node: &ProbedNode) -> Flags {
    let get = AdminCommand::ConfigGet(NOTIFICATIONS);
    let reply = node.probe.execute(get).await;
    let reply = reply.map_err(|error| error.to_string())?;
    keyspace_events::current(&reply).ok_or_else(|| "the setting does not exist".to_owned())
}

/// Tries it with a setting that no server has.
async fn may_configure(node: &ProbedNode) -> bool {
    let set = AdminCommand::ConfigSet {
        name: "kvredis-check",
        value: "",
    };
    let forbids = |refusal: &ServerError| {
        let details = refusal.details().unwrap_or_default();
        refusal.code() == "NOPERM" || details.starts_with("unknown command")
    };
    match node.probe.execute(set).await {
        Ok(_) => true,
        Err(CommandError::ServerError(error)) => !forbids(&error),
        Err(_) => false,
    }
}

fn notifications(settings: &Settings, flags: &Flags, may_set: bool) -> Finding {
    let name = "notifications";
    let needed = watch::required_flags(&settings.watch);
    let current = match flags {
        Ok(current) => current,
        Err(why) => {
            let text = format!("{NOTIFICATIONS} cannot be read: {why}");
            return Finding::new(name, Status::Warning, text)
                .advice(format!(
                    "let an administrator check that it contains {needed}; kvredis watches \
                     nevertheless"
                ))
                .detail("needed", needed);
        }
    };
    let Some(to_set) = keyspace_events::to_set(current, needed) else {
        let text = format!("{NOTIFICATIONS} is \"{current}\", which suffices for WATCH");
        return Finding::new(name, Status::Ok, text)
            .detail("flags", current.as_str())
            .detail("needed", needed);
    };
    let missing: String = to_set.chars().skip(current.chars().count()).collect();
    let command = format!("CONFIG SET {NOTIFICATIONS} {to_set}");
    let text = format!("{NOTIFICATIONS} is \"{current}\" and lacks {missing} for WATCH");
    let finding = if may_set {
        let text = format!("{text}; kvredis will add that (WATCH_CONFIGURE_REDIS)");
        Finding::new(name, Status::Ok, text)
    } else if settings.watch_configure_redis {
        let advice = format!(
            "allow the user `+config|get +config|set`, or run `{command}` in Redis (and persist it in its configuration file)"
        );
        let text = format!("{text}; WATCH_CONFIGURE_REDIS may not add that");
        Finding::new(name, Status::Failed, text).advice(advice)
    } else {
        let advice = format!(
            "run `{command}` in Redis (and persist it in its configuration file), or set \
             WATCH_CONFIGURE_REDIS=true"
        );
        Finding::new(name, Status::Failed, text).advice(advice)
    };
    finding
        .detail("flags", current.as_str())
        .detail("needed", needed)
        .detail("missing", missing)
        .detail("command", command)
}

async fn subscription(
    settings: &Settings,
    options: &ConnectOptions,
    nodes: &[&ProbedNode],
) -> Finding {
    let name = "subscription";
    let keyspace = Keyspace::new(settings);
    let Ok(bucket) = keyspace.bucket(&settings.watch_bucket) else {
        let text = format!("the link has no bucket {:?}", settings.watch_bucket);
        return Finding::new(name, Status::Failed, text)
            .advice("set WATCH_BUCKET to one that BUCKETS and BUCKET_LAYOUT allow");
    };
    let channels = watch::channel_patterns(settings, &bucket);
    let patterns: Vec<String> = channels.map(|(pattern, _)| pattern).collect();
    let tried = nodes
        .iter()
        .map(|node| diagnostics::subscribe(options, &node.selector, &patterns));
    let failed = join_all(tried).await.into_iter().find_map(Result::err);
    match failed {
        None => {
            let text = format!("subscribed to {}", patterns.join(" "));
            Finding::new(name, Status::Ok, text).detail("channels", patterns)
        }
        Some(why) => {
            let user = settings.address.username.as_deref().unwrap_or("default");
            let is_denied = matches!(&why, SubscribeError::Refused(error) if error.is_acl_denied());
            let advice = if is_denied {
                // Redis compares patterns letter by letter.
                let channels: Vec<String> = patterns
                    .iter()
                    .map(|pattern| quoted(&format!("&{pattern}")))
                    .collect();
                let (user, channels) = (quoted(user), channels.join(" "));
                format!("run `ACL SETUSER {user} +psubscribe {channels}` in Redis")
            } else {
                "a watching link needs a connection of its own: check whether Redis accepts more \
                 (`maxclients`)"
                    .to_owned()
            };
            Finding::new(name, Status::Failed, why.to_string()).advice(advice)
        }
    }
}
