//! The address of a Redis, as the setting `URL` gives it.
//!
//! Parses `redis://` and `redis+unix://` (and `valkey…`) into an [`Address`], and says what is
//! wrong with anything else. It opens nothing: that is for `connection`.

use std::fmt;
use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use url::{Host, Url};

use super::{Secret, Wrong};

const DEFAULT_PORT: u16 = 6379;
const EXPECTED: &str = "redis://[user[:password]@]host[:port][/db] or redis+unix:///path[?db=N]";

/// Where a Redis is, and who logs in there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// The server.
    pub server: Server,
    /// The ACL user; `None` is Redis's `default`.
    pub username: Option<String>,
    /// The password, if one is needed.
    pub password: Option<Secret>,
    /// The database number.
    pub database: u32,
}

/// How a server is reached.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Server {
    /// Over TCP.
    Tcp {
        /// A host name or an IP address (an IPv6 address without brackets).
        host: String,
        /// The port.
        port: u16,
    },
    /// Over a Unix socket.
    Unix {
        /// The socket's path.
        path: PathBuf,
    },
}

/// What was read from a URL.
#[derive(Debug, PartialEq, Eq)]
pub struct ParsedUrl {
    /// The address meant.
    pub address: Address,
    /// The wildcard address that was given instead of this machine's, if one was.
    pub wildcard: Option<String>,
}

impl Default for Address {
    fn default() -> Self {
        Self {
            server: Server::Tcp {
                host: "127.0.0.1".to_owned(),
                port: DEFAULT_PORT,
            },
            username: None,
            password: None,
            database: 0,
        }
    }
}

/// The address without its credentials: fit for logs and errors.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.server {
            Server::Tcp { host, port } if host.contains(':') => {
                write!(f, "redis://[{host}]:{port}")?;
            }
            Server::Tcp { host, port } => write!(f, "redis://{host}:{port}")?,
            Server::Unix { path } => write!(f, "redis+unix://{}", path.display())?,
        }
        match (&self.server, self.database) {
            (_, 0) => Ok(()),
            (Server::Tcp { .. }, database) => write!(f, "/{database}"),
            (Server::Unix { .. }, database) => write!(f, "?db={database}"),
        }
    }
}

/// Reads the setting `URL`.
///
/// # Errors
///
/// What is wrong with the text and what was expected instead.
pub fn parse(text: &str) -> Result<ParsedUrl, Wrong> {
    let Some((scheme, _)) = text.split_once("://") else {
        return Err(without_scheme(text));
    };
    let unix = match scheme.to_ascii_lowercase().as_str() {
        "redis" | "valkey" => false,
        "redis+unix" | "valkey+unix" => true,
        "unix" => {
            return Err(Wrong::expected(
                "redis+unix:///path, the scheme of a Unix socket",
            ));
        }
        "rediss" | "valkeys" => {
            return Err(Wrong::expected(
                "redis://: this version has no TLS (rediss://) yet",
            ));
        }
        other if other.contains("-cluster") || other.contains("-sentinel") => {
            return Err(Wrong::expected(
                "redis://: this version serves no cluster or sentinel yet",
            ));
        }
        _ => return Err(Wrong::expected(EXPECTED)),
    };
    let url = Url::parse(text).map_err(|error| {
        Wrong::expected(format!(
            "{EXPECTED}, special characters in user and password percent-encoded ({error})"
        ))
    })?;
    if url.fragment().is_some() {
        return Err(Wrong::expected(format!("{EXPECTED}, without `#…`")));
    }
    let mut parsed = if unix {
        unix_address(&url)?
    } else {
        tcp_address(&url)?
    };
    parsed.address.username = decoded(url.username(), "the user")?.filter(|user| !user.is_empty());
    parsed.address.password = match url.password() {
        Some(password) => decoded(password, "the password")?.map(Secret::from),
        None => None,
    };
    Ok(parsed)
}

/// The URL with whatever may be secret in it left out.
pub fn redacted(text: &str) -> String {
    let without_query = text.split('?').next().unwrap_or_default();
    match (without_query.find("://"), without_query.rfind('@')) {
        (Some(scheme), Some(at)) if scheme < at => {
            format!(
                "{}***{}",
                &without_query[..scheme + 3],
                &without_query[at..]
            )
        }
        (None, Some(at)) => format!("***{}", &without_query[at..]),
        _ => without_query.to_owned(),
    }
}

fn without_scheme(text: &str) -> Wrong {
    let wrong = Wrong::expected(EXPECTED);
    if text.is_empty() || text.contains(char::is_whitespace) {
        return wrong;
    }
    let suggestion = match text.strip_prefix('/') {
        Some(_) => format!("redis+unix://{}", redacted(text)),
        None => format!("redis://{}", redacted(text)),
    };
    wrong.with_hint(format!("did you mean {suggestion}?"))
}

fn tcp_address(url: &Url) -> Result<ParsedUrl, Wrong> {
    if url.query().is_some() {
        return Err(Wrong::expected(format!("{EXPECTED}, without `?…`")));
    }
    let host = match url.host() {
        Some(Host::Domain(host)) => decoded(host, "the host")?.unwrap_or_default(),
        Some(Host::Ipv4(ip)) => ip.to_string(),
        Some(Host::Ipv6(ip)) => ip.to_string(),
        None => String::new(),
    };
    if host.is_empty() {
        return Err(Wrong::expected(format!("{EXPECTED}, with a host")));
    }
    let loopback = match host.as_str() {
        "0.0.0.0" => Some("127.0.0.1"),
        "::" => Some("::1"),
        _ => None,
    };
    let address = Address {
        server: Server::Tcp {
            host: loopback.unwrap_or(&host).to_owned(),
            port: url.port().unwrap_or(DEFAULT_PORT),
        },
        database: match url.path().trim_matches('/') {
            "" => 0,
            database => database_number(database)?,
        },
        ..Address::default()
    };
    Ok(ParsedUrl {
        address,
        wildcard: loopback.is_some().then_some(host),
    })
}

fn unix_address(url: &Url) -> Result<ParsedUrl, Wrong> {
    let path = decoded(url.path(), "the path")?.unwrap_or_default();
    if url.host_str().is_some_and(|host| !host.is_empty()) || path.is_empty() || path == "/" {
        return Err(Wrong::expected(
            "redis+unix:///path[?db=N], an absolute path after three slashes",
        ));
    }
    let mut database = 0;
    for (name, value) in url.query_pairs() {
        match name.as_ref() {
            "db" => database = database_number(&value)?,
            _ => {
                return Err(Wrong::expected(
                    "redis+unix:///path[?db=N]; the settings USERNAME and PASSWORD take the \
                     credentials",
                ));
            }
        }
    }
    let address = Address {
        server: Server::Unix { path: path.into() },
        database,
        ..Address::default()
    };
    Ok(ParsedUrl {
        address,
        wildcard: None,
    })
}

fn database_number(text: &str) -> Result<u32, Wrong> {
    text.parse::<u16>()
        .map(u32::from)
        .map_err(|_| Wrong::expected(format!("{EXPECTED}, where the database is a number")))
}

fn decoded(text: &str, what: &str) -> Result<Option<String>, Wrong> {
    percent_decode_str(text)
        .decode_utf8()
        .map(|text| Some(text.into_owned()))
        .map_err(|_| Wrong::expected(format!("{EXPECTED}, with UTF-8 in {what}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        parse(text).unwrap().address
    }

    fn wrong(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    #[test]
    fn tcp_in_all_its_parts() {
        assert_eq!(address("redis://127.0.0.1"), Address::default());
        let full = address("redis://ada:p%40ss%2F@redis.example:7000/3");
        assert_eq!(
            full,
            Address {
                server: Server::Tcp {
                    host: "redis.example".to_owned(),
                    port: 7000
                },
                username: Some("ada".to_owned()),
                password: Some(Secret::from("p@ss/".to_owned())),
                database: 3,
            }
        );
        assert_eq!(full.to_string(), "redis://redis.example:7000/3");
        assert_eq!(address("valkey://[::1]:1/").to_string(), "redis://[::1]:1");
        assert_eq!(address("redis://:pw@h").username, None);
    }

    #[test]
    fn unix_sockets() {
        let unix = address("redis+unix:///run/my%20redis.sock?db=2");
        assert_eq!(unix.database, 2);
        assert_eq!(unix.to_string(), "redis+unix:///run/my redis.sock?db=2");
        assert_eq!(
            address("valkey+unix:///s").server,
            Server::Unix { path: "/s".into() }
        );
    }

    #[test]
    fn wildcards_mean_this_machine() {
        let parsed = parse("redis://0.0.0.0:6379").unwrap();
        assert_eq!(parsed.address, Address::default());
        assert_eq!(parsed.wildcard.as_deref(), Some("0.0.0.0"));
        let parsed = parse("redis://[::]").unwrap();
        assert_eq!(parsed.address.to_string(), "redis://[::1]:6379");
    }

    #[test]
    fn a_missing_scheme_is_suggested_without_the_password() {
        assert!(wrong("10.0.0.7:6379").contains("did you mean redis://10.0.0.7:6379?"));
        assert!(wrong("localhost").contains("did you mean redis://localhost?"));
        assert!(wrong("/run/redis.sock").contains("redis+unix:///run/redis.sock"));
        let with_password = wrong("ada:hunter2@h:1");
        assert!(!with_password.contains("hunter2"), "{with_password}");
    }

    #[test]
    fn anything_else_is_wrong() {
        for text in [
            "",
            "http://h",
            "redis://",
            "redis://h:port",
            "redis://h/zero",
            "redis://h/0?protocol=resp3",
            "redis://h#insecure",
            "rediss://h",
            "redis-cluster://h",
            "redis-sentinel://h",
            "unix:///s",
            "redis+unix://host/s",
            "redis+unix:///s?user=ada",
            "redis://user:p%ff@h",
        ] {
            assert!(parse(text).is_err(), "{text} must be wrong");
        }
    }

    #[test]
    fn redaction_leaves_no_credentials() {
        assert_eq!(redacted("redis://u:p@ss@h:1/2?x=y"), "redis://***@h:1/2");
        assert_eq!(redacted("u:p@h"), "***@h");
        assert_eq!(redacted("redis://h"), "redis://h");
    }
}
