//! The text of a value in errors and warnings: only those parts that were recognized.
//!
//! A value that no parser accepts can hold a password in any place, because it can be in the form of
//! another product: a connection string, a JSON object, a command line. So nothing is searched for
//! and removed; what is shown is put together from parts that cannot be a password.

use std::net::{IpAddr, Ipv6Addr};

/// Stands for everything that was not recognized.
const HIDDEN: &str = "***";

/// An error shows no more characters of a value.
const MAX_SHOWN_CHARACTERS: usize = 100;
const MAX_NAME_CHARACTERS: usize = 64;

/// The schemes of addresses, of Redis and of other products.
const SCHEMES: &[&str] = &[
    "redis",
    "rediss",
    "valkey",
    "valkeys",
    "redis+unix",
    "valkey+unix",
    "unix",
    "redis-cluster",
    "rediss-cluster",
    "valkey-cluster",
    "valkeys-cluster",
    "redis-sentinel",
    "rediss-sentinel",
    "valkey-sentinel",
    "valkeys-sentinel",
    "http",
    "https",
    "tcp",
    "tls",
    "ssl",
    "nats",
    "memcached",
    "postgres",
    "postgresql",
    "mysql",
    "mongodb",
    "amqp",
];

/// The recognized parts of a URL, or of a text that was meant as one; `None` if there is none.
pub(crate) fn recognized_url(text: &str) -> Option<String> {
    let text = text.trim();
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => {
            let scheme = scheme.to_ascii_lowercase();
            if !SCHEMES.contains(&scheme.as_str()) {
                return None;
            }
            (format!("{scheme}://"), rest)
        }
        None => (String::new(), text),
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    if scheme.is_empty() && authority.is_empty() {
        return is_socket_path(tail).then(|| tail.to_owned());
    }
    let (credentials, server) = match authority.rsplit_once('@') {
        Some((_, server)) => ("***@", recognized_server(server)),
        None => ("", recognized_server(authority)),
    };
    // A password can contain `/`, `?` and `#`: before a later `@`, everything may belong to it.
    match server {
        Some(server) if !tail.contains('@') => {
            let tail = recognized_tail(tail);
            Some(format!("{scheme}{credentials}{server}{tail}"))
        }
        _ if scheme.is_empty() => None,
        _ => Some(scheme + HIDDEN),
    }
}

/// An invalid value of a setting that does not hold addresses; `None` if it may contain a secret.
pub(crate) fn public_value(text: &str) -> Option<String> {
    let is_suspect = text.contains("://")
        || text.contains(['=', '"', '\'', '{'])
        || text.to_ascii_lowercase().contains("pass")
        || text.rsplit_once('@').is_some_and(|(start, _)| {
            // `SET@key` is the form of WATCH; `user:password@host` is the one of URL.
            start.contains([':', '/']) && !is_watch_entry(text)
        });
    (!is_suspect).then(|| text.chars().take(MAX_SHOWN_CHARACTERS).collect())
}

/// The name of an unknown setting; a line of another file can be in its place.
pub(crate) fn name(text: &str) -> &str {
    let is_name = text.len() <= MAX_NAME_CHARACTERS
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
    if is_name { text } else { HIDDEN }
}

/// Returns true if this can be the name of a host: letters, digits, `-`, `_` and `.`.
pub(crate) fn is_host_name(text: &str) -> bool {
    !text.is_empty()
        && text
            .chars()
            .all(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

fn is_watch_entry(text: &str) -> bool {
    let start = text.trim_start().get(..4);
    start.is_some_and(|start| {
        ["SET@", "DEL@"]
            .iter()
            .any(|w| w.eq_ignore_ascii_case(start))
    })
}

/// A host with a port. An invalid port may be a password, and `user:password` has the same form; so
/// the host must be more than a word.
fn recognized_server(text: &str) -> Option<String> {
    if text.is_empty() {
        return Some(String::new());
    }
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((ip, port)) => {
            ip.parse::<Ipv6Addr>().ok()?;
            (
                format!("[{ip}]"),
                port.strip_prefix(':').or(port.is_empty().then_some("")),
            )
        }
        None => {
            let (host, port) = text.split_once(':').unwrap_or((text, ""));
            if !is_unmistakable_host(host) {
                return None;
            }
            (host.to_owned(), Some(port))
        }
    };
    Some(match port {
        Some("") => host,
        Some(port) if is_number(port) => format!("{host}:{port}"),
        _ => format!("{host}:{HIDDEN}"),
    })
}

/// An IP address, `localhost`, or a name with a domain.
fn is_unmistakable_host(host: &str) -> bool {
    let mut labels = host.rsplit('.');
    let domain = labels.next().unwrap_or_default();
    let has_domain = host.contains('.')
        && domain.len() >= 2
        && domain.chars().all(|c| c.is_ascii_lowercase())
        && labels.all(|label| {
            !label.is_empty()
                && label
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_'))
        });
    host.parse::<IpAddr>().is_ok() || host == "localhost" || has_domain
}

/// A database number; anything else after the server is hidden.
fn recognized_tail(tail: &str) -> String {
    match tail.strip_prefix('/') {
        Some("") => "/".to_owned(),
        Some(database) if is_number(database) => format!("/{database}"),
        Some(_) => format!("/{HIDDEN}"),
        None if tail.is_empty() => String::new(),
        // `?` or `#`, which are one byte.
        None => format!("{}{HIDDEN}", &tail[..1]),
    }
}

fn is_number(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

fn is_socket_path(text: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '-' | '_');
    text.starts_with('/') && text.ends_with(".sock") && text.chars().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recognized_parts_are_shown() {
        for (text, shown) in [
            ("redis://h.example:1/2", "redis://h.example:1/2"),
            ("REDIS://10.0.0.7:99999", "redis://10.0.0.7:***"),
            ("redis://10.0.0.7/orders", "redis://10.0.0.7/***"),
            ("redis://[::1]:1", "redis://[::1]:1"),
            ("redis://[::1]x", "redis://[::1]:***"),
            ("redis://localhost?x=y", "redis://localhost?***"),
            ("redis://localhost#x", "redis://localhost#***"),
            ("redis://u:p@ss@h.example:1/2", "redis://***@h.example:1/2"),
            ("redis://u:x", "redis://***"),
            ("redis://", "redis://"),
            ("redis:///3", "redis:///3"),
            ("http://10.0.0.7", "http://10.0.0.7"),
            ("cache.example", "cache.example"),
            ("10.0.0.7:6379", "10.0.0.7:6379"),
            ("/run/redis.sock", "/run/redis.sock"),
        ] {
            assert_eq!(recognized_url(text).as_deref(), Some(shown), "{text}");
        }
        for text in ["", "h", "u:p", "u:p@h", "S://h.example", "/run/x", "h,x=y"] {
            assert_eq!(
                recognized_url(text).filter(|shown| !shown.is_empty()),
                None,
                "{text}"
            );
        }
    }

    #[test]
    fn values_that_may_contain_a_secret_are_not_shown() {
        for text in ["redis://h", "u:p@h", "a=b", "{\"a\"", "my passphrase"] {
            assert_eq!(public_value(text), None, "{text}");
        }
        for text in ["oops!", "a,,b", "64MB", "SET@a,GET@a:b"] {
            assert_eq!(public_value(text).as_deref(), Some(text));
        }
        assert_eq!(name("REDIS_PASSWORD=x"), HIDDEN);
        assert_eq!(name("PREFX"), "PREFX");
    }
}
