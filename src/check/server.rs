//! The user that the server identifies, its version, mode and role, and whether a link can work with
//! them.

use std::collections::HashMap;

use crate::redis::reply::Value;
use futures_util::future::join_all;

use crate::check::connect::ProbedNode;
use crate::check::report::{Finding, Report, Status};
use crate::redis::command::admin::AdminCommand;
use crate::redis::command_error::CommandError;
use crate::redis::reply::text;
use crate::redis::selector::ServerSelector;
use crate::settings::address::Address;
use crate::settings::address::ServerSpec;
use crate::settings::link_settings::Settings;

/// The oldest versions served.
const OLDEST_REDIS: (u32, u32) = (6, 2);
const OLDEST_VALKEY: (u32, u32) = (7, 2);

/// The properties that a server reports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct ServerInfo {
    /// `Redis` or `Valkey`.
    name: &'static str,
    version: String,
    /// `standalone`, `cluster` or `sentinel`.
    mode: String,
    /// `primary` or `replica`.
    role: &'static str,
    /// The primary of a replica, if the server reports it.
    primary: Option<String>,
    /// A replica that accepts writes nevertheless.
    accepts_writes: bool,
}

pub(crate) async fn check(settings: &Settings, nodes: &[ProbedNode], report: &mut Report) {
    if let [first, ..] = nodes {
        report.add(login(&settings.address, first).await);
    }
    let info = join_all(nodes.iter().map(server_info)).await;
    let several = nodes.len() > 1;
    let mut seen: Vec<String> = Vec::new();
    for (node, info) in nodes.iter().zip(info) {
        let mut finding = match info {
            Ok(info) => assess(&info, settings, node),
            Err(why) => Finding::new("server", Status::Warning, format!("version unknown: {why}"))
                .advice("allow the user `+info` to have it checked; kvredis works without it"),
        };
        // Nodes of a cluster are usually alike: a finding that repeats an earlier one is omitted.
        let text = finding.text().to_owned();
        if several && seen.contains(&text) {
            continue;
        }
        seen.push(text);
        if several {
            finding = finding.detail("node", node.addr.to_string());
        }
        report.add(finding);
    }
}

async fn login(address: &Address, node: &ProbedNode) -> Finding {
    let set = address.username.as_deref().unwrap_or("default");
    match node.probe.execute(AdminCommand::WhoAmI).await {
        Ok(reply) => {
            let user = text(&reply).unwrap_or(set);
            let text = format!("logged in as {user}");
            Finding::new("login", Status::Ok, text).detail("user", user)
        }
        // A strict ACL may forbid the command, but the login has succeeded.
        Err(CommandError::ServerError(_)) => {
            let text = format!("logged in as {set} (`ACL WHOAMI` is not allowed)");
            Finding::new("login", Status::Ok, text).detail("user", set)
        }
        Err(error) => Finding::new("login", Status::Failed, error.to_string())
            .advice("the server stopped replying: check whether it hangs or is overloaded"),
    }
}

/// Queries `INFO`; if the ACL forbids it, `HELLO`, which every user may execute.
async fn server_info(node: &ProbedNode) -> Result<ServerInfo, String> {
    let mut texts = String::new();
    for section in ["server", "replication"] {
        match node.probe.execute(AdminCommand::Info { section }).await {
            Ok(reply) => texts.push_str(text(&reply).unwrap_or_default()),
            Err(refused @ CommandError::ServerError(_)) => {
                let hello = match node.probe.execute(AdminCommand::Hello).await {
                    Ok(reply) => parse_hello(&reply),
                    Err(CommandError::ServerError(_)) => None,
                    Err(error) => return Err(error.to_string()),
                };
                return hello.ok_or_else(|| refused.to_string());
            }
            Err(error) => return Err(error.to_string()),
        }
    }
    parse_info(&texts).ok_or_else(|| "INFO names no version".to_owned())
}

fn parse_info(text: &str) -> Option<ServerInfo> {
    let fields: HashMap<&str, &str> = text
        .lines()
        .filter_map(|line| line.trim().split_once(':'))
        .collect();
    let field = |name: &str| fields.get(name).copied();
    // For old clients, Valkey reports the version of Redis that it is compatible with as
    // `redis_version`.
    let (name, version) = match field("valkey_version") {
        Some(version) => ("Valkey", version),
        None if field("server_name") == Some("valkey") => ("Valkey", field("redis_version")?),
        None => ("Redis", field("redis_version")?),
    };
    let mode = field("server_mode").or_else(|| field("redis_mode"));
    let primary = field("master_host").zip(field("master_port"));
    Some(ServerInfo {
        name,
        version: version.to_owned(),
        mode: mode.unwrap_or("standalone").to_owned(),
        role: role(field("role").unwrap_or("master")),
        primary: primary.map(|(host, port)| format!("{host}:{port}")),
        accepts_writes: field("slave_read_only") == Some("0"),
    })
}

fn parse_hello(reply: &Value) -> Option<ServerInfo> {
    let Value::Array(items) = reply else {
        return None;
    };
    let fields: HashMap<&str, &str> = items
        .chunks_exact(2)
        .filter_map(|pair| Some((text(&pair[0])?, text(&pair[1])?)))
        .collect();
    let field = |name: &str| fields.get(name).copied();
    let is_valkey = field("server") == Some("valkey");
    Some(ServerInfo {
        name: if is_valkey { "Valkey" } else { "Redis" },
        version: field("version")?.to_owned(),
        mode: field("mode")?.to_owned(),
        role: role(field("role")?),
        primary: None,
        accepts_writes: false,
    })
}

fn role(word: &str) -> &'static str {
    match word {
        "slave" | "replica" => "replica",
        _ => "primary",
    }
}

fn assess(info: &ServerInfo, settings: &Settings, node: &ProbedNode) -> Finding {
    let ServerInfo {
        name,
        version,
        mode,
        role,
        ..
    } = info;
    let text = match &info.primary {
        Some(primary) if *role == "replica" => {
            format!("{name} {version}, {mode}, {role} of {primary}")
        }
        _ => format!("{name} {version}, {mode}, {role}"),
    };
    let defect = defect(info, settings, &node.selector);
    let finding = match defect {
        Some((status, what, advice)) => {
            Finding::new("server", status, format!("{text}: {what}")).advice(advice)
        }
        None => Finding::new("server", Status::Ok, text),
    };
    finding
        .detail("server", *name)
        .detail("version", version.as_str())
        .detail("mode", mode.as_str())
        .detail("role", *role)
}

/// The reason why a link does not work with such a server, and advice; `None` if it works.
fn defect(
    info: &ServerInfo,
    settings: &Settings,
    selector: &ServerSelector,
) -> Option<(Status, String, String)> {
    let failed = |what: &str, advice: String| Some((Status::Failed, what.to_owned(), advice));
    if is_too_old(info) {
        let what = "it is too old for kvredis".to_owned();
        let advice = format!(
            "update it: Redis {}.{} and Valkey {}.{} are the oldest that work",
            OLDEST_REDIS.0, OLDEST_REDIS.1, OLDEST_VALKEY.0, OLDEST_VALKEY.1
        );
        return Some((Status::Failed, what, advice));
    }
    let tls = if settings.address.tls { "s" } else { "" };
    let in_cluster = matches!(settings.address.server, ServerSpec::Cluster { .. });
    match info.mode.as_str() {
        "cluster" if !in_cluster => {
            let advice = format!("use redis{tls}-cluster://host:port as URL");
            return failed("it is a node of a cluster", advice);
        }
        "sentinel" => {
            let advice = format!(
                "use redis{tls}-sentinel://host:port?sentinelServiceName=NAME as URL, or the \
                 address of the Redis itself"
            );
            return failed("it is a sentinel, which holds no keys", advice);
        }
        _ => {}
    }
    let meant_as_replica = matches!(
        selector,
        ServerSelector::Replica(_) | ServerSelector::ClusterReplica(_)
    );
    if info.role == "replica" && !meant_as_replica && !settings.read_only {
        if info.accepts_writes {
            let what = "values written there are lost when it synchronizes".to_owned();
            let advice = "use the address of its primary as URL".to_owned();
            return Some((Status::Warning, what, advice));
        }
        let advice = "use the address of its primary as URL, or set READ_ONLY=true".to_owned();
        return failed("it rejects writes", advice);
    }
    None
}

fn is_too_old(info: &ServerInfo) -> bool {
    let mut numbers = info.version.split('.').map(str::parse);
    // A version that is not a number belongs to a custom build.
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        return false;
    };
    let oldest = match info.name {
        "Valkey" => OLDEST_VALKEY,
        _ => OLDEST_REDIS,
    };
    (major, minor) < oldest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::transport::ServerAddr;

    fn parsed(text: &str) -> ServerInfo {
        parse_info(text).unwrap()
    }

    fn advice(info: &ServerInfo, settings: &Settings) -> Option<String> {
        let selector = ServerSelector::Fixed(ServerAddr::Unix("/s".into()));
        let (status, what, advice) = defect(info, settings, &selector)?;
        assert_eq!(status, Status::Failed, "{what}");
        Some(advice)
    }

    #[test]
    fn versions_are_read_and_old_ones_refused() {
        let info = parsed("redis_version:7.0.15\r\nredis_mode:standalone\r\nrole:master\r\n");
        assert_eq!((info.name, info.version.as_str()), ("Redis", "7.0.15"));
        assert_eq!(advice(&info, &Settings::default()), None);
        for (text, old) in [
            ("redis_version:6.2.0", false),
            ("redis_version:6.0.16", true),
            ("redis_version:5.0.14", true),
            ("redis_version:10.0.0", false),
            ("redis_version:unstable", false),
            (
                "redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.0.1",
                false,
            ),
            (
                "redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:7.2.0",
                false,
            ),
            ("redis_version:7.0.0\r\nserver_name:valkey", true),
        ] {
            assert_eq!(is_too_old(&parsed(text)), old, "{text}");
        }
        let advice = advice(&parsed("redis_version:5.0.14"), &Settings::default()).unwrap();
        assert!(advice.contains("Redis 6.2 and Valkey 7.2"), "{advice}");
    }

    #[test]
    fn hello_identifies_servers_too() {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let pairs = [
            ("server", "redis"),
            ("version", "7.0.15"),
            ("mode", "cluster"),
            ("role", "replica"),
        ];
        let items = pairs
            .iter()
            .flat_map(|(name, value)| [text(name), text(value)]);
        let info = parse_hello(&Value::Array(items.collect())).unwrap();
        assert_eq!((info.version.as_str(), info.role), ("7.0.15", "replica"));
        assert!(
            advice(&info, &Settings::default())
                .unwrap()
                .contains("redis-cluster://")
        );
        assert_eq!(parse_hello(&Value::Nil), None);
    }

    #[test]
    fn a_replica_serves_read_only_links() {
        let info = parsed(
            "redis_version:7.0.15\r\nrole:slave\r\nmaster_host:h\r\nmaster_port:1\r\n\
             slave_read_only:1",
        );
        assert_eq!(info.primary.as_deref(), Some("h:1"));
        assert!(
            advice(&info, &Settings::default())
                .unwrap()
                .contains("READ_ONLY")
        );
        let reads = Settings {
            read_only: true,
            ..Settings::default()
        };
        assert_eq!(advice(&info, &reads), None);
    }
}
