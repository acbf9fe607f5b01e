//! The reply to `CLUSTER SLOTS`, and the endpoints in it and in redirects.

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

/// Parses `host:port` as Redis writes it: an IPv6 address has colons, but no brackets.
pub(crate) fn parse_endpoint(text: &str) -> Option<Endpoint> {
    let (host, port) = text.rsplit_once(':')?;
    Some(Endpoint {
        host: host.trim_matches(['[', ']']).to_owned(),
        port: port.parse().ok()?,
    })
}

/// Parses a reply to `CLUSTER SLOTS`. A node that does not know its own host has the host of the node
/// that was queried.
pub(crate) fn parse_slots(reply: &Value, queried: &Endpoint) -> Option<Vec<SlotRange>> {
    let Value::Array(ranges) = reply else {
        return None;
    };
    ranges
        .iter()
        .map(|range| {
            let Value::Array(parts) = range else {
                return None;
            };
            let [Value::Int(first), Value::Int(last), primary, replicas @ ..] = &parts[..] else {
                return None;
            };
            Some(SlotRange {
                first: u16::try_from(*first).ok()?,
                last: u16::try_from(*last).ok()?,
                primary: endpoint(primary, queried)?,
                replicas: replicas
                    .iter()
                    .filter_map(|replica| endpoint(replica, queried))
                    .collect(),
            })
        })
        .collect()
}

fn endpoint(node: &Value, queried: &Endpoint) -> Option<Endpoint> {
    let Value::Array(parts) = node else {
        return None;
    };
    let [host, Value::Int(port), ..] = &parts[..] else {
        return None;
    };
    let host = match host {
        Value::Nil => "",
        host => text(host)?,
    };
    // `?` is a node whose host name is not configured (`cluster-announce-hostname`).
    let host = if host.is_empty() || host == "?" {
        &queried.host
    } else {
        host
    };
    Some(Endpoint {
        host: host.to_owned(),
        port: u16::try_from(*port).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_split_at_the_last_colon() {
        let read = |text| parse_endpoint(text).map(|endpoint| endpoint.to_string());
        assert_eq!(read("10.0.0.1:7000").as_deref(), Some("10.0.0.1:7000"));
        assert_eq!(
            read("2001:db8::1:7000").as_deref(),
            Some("[2001:db8::1]:7000")
        );
        assert_eq!(read("nowhere"), None);
    }

    #[test]
    fn a_node_without_a_host_has_the_host_of_the_queried_node() {
        let node = |host| {
            Value::Array(vec![
                host,
                Value::Int(7000),
                Value::BulkString(b"id".to_vec()),
            ])
        };
        let queried = parse_endpoint("seed:1").unwrap();
        let reply = Value::Array(vec![Value::Array(vec![
            Value::Int(0),
            Value::Int(5),
            node(Value::Nil),
            node(Value::BulkString(b"10.0.0.2".to_vec())),
        ])]);
        let ranges = parse_slots(&reply, &queried).unwrap();
        assert_eq!(ranges[0].primary, parse_endpoint("seed:7000").unwrap());
        assert_eq!(
            ranges[0].replicas,
            [parse_endpoint("10.0.0.2:7000").unwrap()]
        );
    }
}
