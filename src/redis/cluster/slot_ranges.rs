//! The reply to `CLUSTER SLOTS`, and the endpoints in it and in redirects.

use redis::Value;

use crate::redis::reply;
use crate::settings::address::Endpoint;

/// A run of slots, and who has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    /// The first slot.
    pub(crate) first: u16,
    /// The last slot.
    pub(crate) last: u16,
    /// The primary.
    pub(crate) primary: Endpoint,
    /// Its replicas.
    pub(crate) replicas: Vec<Endpoint>,
}

/// `host:port` as Redis writes it; the host of an IPv6 address has colons, too.
pub(crate) fn endpoint_of(text: &str) -> Option<Endpoint> {
    let (host, port) = text.rsplit_once(':')?;
    Some(Endpoint {
        host: host.trim_matches(['[', ']']).to_owned(),
        port: port.parse().ok()?,
    })
}

/// Reads `CLUSTER SLOTS`; a node that does not know its own name has that by which it was asked.
pub(crate) fn ranges(answer: &Value, asked: &Endpoint) -> Option<Vec<Range>> {
    let Value::Array(ranges) = answer else {
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
            Some(Range {
                first: u16::try_from(*first).ok()?,
                last: u16::try_from(*last).ok()?,
                primary: endpoint(primary, asked)?,
                replicas: replicas
                    .iter()
                    .filter_map(|replica| endpoint(replica, asked))
                    .collect(),
            })
        })
        .collect()
}

fn endpoint(node: &Value, asked: &Endpoint) -> Option<Endpoint> {
    let Value::Array(parts) = node else {
        return None;
    };
    let [host, Value::Int(port), ..] = &parts[..] else {
        return None;
    };
    let host = match host {
        Value::Nil => "",
        host => reply::text(host)?,
    };
    // `?` is a node that has not been told its host name.
    let host = if host.is_empty() || host == "?" {
        &asked.host
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
    fn endpoints_are_read_with_ports_at_the_end() {
        let read = |text| endpoint_of(text).map(|endpoint| endpoint.to_string());
        assert_eq!(read("10.0.0.1:7000").as_deref(), Some("10.0.0.1:7000"));
        assert_eq!(
            read("2001:db8::1:7000").as_deref(),
            Some("[2001:db8::1]:7000")
        );
        assert_eq!(read("nowhere"), None);
    }

    #[test]
    fn a_node_without_a_name_is_the_one_that_was_asked() {
        let node = |host| {
            Value::Array(vec![
                host,
                Value::Int(7000),
                Value::BulkString(b"id".to_vec()),
            ])
        };
        let asked = endpoint_of("seed:1").unwrap();
        let answer = Value::Array(vec![Value::Array(vec![
            Value::Int(0),
            Value::Int(5),
            node(Value::Nil),
            node(Value::BulkString(b"10.0.0.2".to_vec())),
        ])]);
        let ranges = ranges(&answer, &asked).unwrap();
        assert_eq!(ranges[0].primary, endpoint_of("seed:7000").unwrap());
        assert_eq!(ranges[0].replicas, [endpoint_of("10.0.0.2:7000").unwrap()]);
    }
}
