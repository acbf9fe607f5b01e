//! The reply to `CLUSTER SLOTS`, and the endpoints in it and in redirects.

use std::collections::HashMap;

use redis::Value;

use crate::redis::reply::text;
use crate::settings::address::Endpoint;

/// Contiguous slots, and the nodes that serve them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SlotRange {
    pub(crate) first: u16,
    pub(crate) last: u16,
    pub(crate) primary: Endpoint,
    pub(crate) replicas: Vec<Endpoint>,
}

/// The host of a node, as another node names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NodeHost {
    Named(String),
    /// That of the node that replied, see `cluster-preferred-endpoint-type` in `redis.conf`.
    Replying,
    /// `?`: the node has no `cluster-announce-hostname`.
    Unknown,
}

impl NodeHost {
    fn new(host: &str) -> Self {
        match host {
            "" => Self::Replying,
            "?" => Self::Unknown,
            host => Self::Named(host.trim_matches(['[', ']']).to_owned()),
        }
    }

    fn endpoint(&self, port: u16, replying: &Endpoint) -> Option<Endpoint> {
        let host = match self {
            Self::Named(host) => host,
            Self::Replying => &replying.host,
            Self::Unknown => return None,
        };
        Some(Endpoint {
            host: host.clone(),
            port,
        })
    }
}

/// A node in a reply to `CLUSTER SLOTS`.
struct NamedNode<'a> {
    host: NodeHost,
    port: u16,
    id: Option<&'a str>,
}

/// Parses `host:port` of a redirect: an IPv6 address has colons, but no brackets.
pub(crate) fn parse_redirect(text: &str) -> Option<(NodeHost, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    Some((NodeHost::new(host), port.parse().ok()?))
}

/// Parses a reply to `CLUSTER SLOTS` of the node `queried`.
///
/// # Errors
///
/// The reason that the reply is not usable.
pub(crate) fn parse_slots(reply: &Value, queried: &Endpoint) -> Result<Vec<SlotRange>, String> {
    const MALFORMED: &str = "its reply is not one that Redis sends";
    let Value::Array(ranges) = reply else {
        return Err(MALFORMED.to_owned());
    };
    let mut slots = Vec::with_capacity(ranges.len());
    let mut primaries = HashMap::new();
    for range in ranges {
        let (first, last, primary, replicas) = parse_range(range).ok_or(MALFORMED)?;
        let Some(endpoint) = primary.host.endpoint(primary.port, queried) else {
            return Err(format!(
                "it names no host of the node with the slots {first} to {last} \
                 (cluster-announce-hostname)"
            ));
        };
        let (id, is_named) = primaries
            .entry(endpoint.clone())
            .or_insert((primary.id, true));
        *is_named &= matches!(primary.host, NodeHost::Named(_));
        // A listing would visit one of them, and never the others.
        if !*is_named && *id != primary.id {
            return Err(format!(
                "several nodes of the cluster have the address {endpoint} \
                 (cluster-preferred-endpoint-type, cluster-announce-port)"
            ));
        }
        slots.push(SlotRange {
            first,
            last,
            primary: endpoint,
            replicas: replicas
                .iter()
                .filter_map(|replica| replica.host.endpoint(replica.port, queried))
                .collect(),
        });
    }
    Ok(slots)
}

fn parse_range(range: &Value) -> Option<(u16, u16, NamedNode<'_>, Vec<NamedNode<'_>>)> {
    let Value::Array(parts) = range else {
        return None;
    };
    let [Value::Int(first), Value::Int(last), primary, replicas @ ..] = &parts[..] else {
        return None;
    };
    Some((
        u16::try_from(*first).ok()?,
        u16::try_from(*last).ok()?,
        parse_node(primary)?,
        replicas.iter().filter_map(parse_node).collect(),
    ))
}

fn parse_node(node: &Value) -> Option<NamedNode<'_>> {
    let Value::Array(parts) = node else {
        return None;
    };
    let [host, Value::Int(port), rest @ ..] = &parts[..] else {
        return None;
    };
    let host = match host {
        Value::Nil => NodeHost::Replying,
        host => NodeHost::new(text(host)?),
    };
    let address = || rest.get(1).and_then(address_in).map(NodeHost::new);
    Some(NamedNode {
        host: match host {
            NodeHost::Unknown => address().unwrap_or(NodeHost::Unknown),
            host => host,
        },
        port: u16::try_from(*port).ok()?,
        id: rest.first().and_then(text),
    })
}

/// The `ip` in the metadata of a node, which Redis 7 adds where another name is preferred.
fn address_in(metadata: &Value) -> Option<&str> {
    let is_ip = |name: &Value| text(name) == Some("ip");
    let ip = match metadata {
        Value::Array(words) => {
            let mut pairs = words.chunks_exact(2);
            &pairs.find(|pair| is_ip(&pair[0]))?[1]
        }
        // RESP3.
        Value::Map(pairs) => &pairs.iter().find(|(name, _)| is_ip(name))?.1,
        _ => return None,
    };
    text(ip).filter(|ip| !ip.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(host: &str, port: u16) -> Endpoint {
        Endpoint {
            host: host.to_owned(),
            port,
        }
    }

    fn word(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn node(host: Value, port: i64, id: &str, metadata: Value) -> Value {
        Value::Array(vec![host, Value::Int(port), word(id), metadata])
    }

    fn range(first: i64, nodes: &[Value]) -> Value {
        let slots = [Value::Int(first), Value::Int(first + 4)];
        Value::Array([&slots, nodes].concat())
    }

    fn parse(ranges: &[Value]) -> Result<Vec<SlotRange>, String> {
        parse_slots(&Value::Array(ranges.to_vec()), &endpoint("seed", 1))
    }

    #[test]
    fn redirects_are_split_at_the_last_colon() {
        let named = |host: &str| Some((NodeHost::Named(host.to_owned()), 7000));
        assert_eq!(parse_redirect("10.0.0.1:7000"), named("10.0.0.1"));
        assert_eq!(parse_redirect("2001:db8::1:7000"), named("2001:db8::1"));
        assert_eq!(parse_redirect("[2001:db8::1]:7000"), named("2001:db8::1"));
        assert_eq!(parse_redirect(":7000"), Some((NodeHost::Replying, 7000)));
        assert_eq!(parse_redirect("?:7000"), Some((NodeHost::Unknown, 7000)));
        assert_eq!(parse_redirect("nowhere"), None);
    }

    #[test]
    fn every_form_of_a_host_is_understood() {
        let ip = [word("ip"), word("10.0.0.9")];
        let nothing = Value::Array(Vec::new());
        let flat = Value::Array(ip.to_vec());
        let map = Value::Map(vec![(ip[0].clone(), ip[1].clone())]);
        for (host, metadata, expected) in [
            (Value::Nil, &flat, Some("seed")),
            (word(""), &nothing, Some("seed")),
            (word("2001:db8::1"), &nothing, Some("2001:db8::1")),
            (word("node.example"), &flat, Some("node.example")),
            (word("?"), &flat, Some("10.0.0.9")),
            (word("?"), &map, Some("10.0.0.9")),
            (word("?"), &nothing, None),
        ] {
            let replica = node(host.clone(), 7001, "b", metadata.clone());
            let parsed = parse(&[range(
                0,
                &[node(host, 7000, "a", metadata.clone()), replica],
            )]);
            match expected {
                Some(host) => {
                    let parsed = parsed.unwrap();
                    assert_eq!(parsed[0].primary, endpoint(host, 7000));
                    assert_eq!(parsed[0].replicas, [endpoint(host, 7001)]);
                }
                None => assert!(parsed.unwrap_err().contains("cluster-announce-hostname")),
            }
        }
    }

    #[test]
    fn nodes_without_a_host_must_have_different_ports() {
        let of = |first, port, id| range(first, &[node(Value::Nil, port, id, Value::Nil)]);
        let parsed = parse(&[of(0, 7000, "a"), of(5, 7001, "b"), of(10, 7000, "a")]);
        assert_eq!(parsed.unwrap().len(), 3);
        let error = parse(&[of(0, 7000, "a"), of(5, 7000, "b")]).unwrap_err();
        assert!(error.contains("several nodes"), "{error}");
    }
}
