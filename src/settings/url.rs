//! The setting `URL`: from text to an [`Address`], and what is wrong with any other text.
//!
//! It opens nothing: that is for `connection`.

use percent_encoding::percent_decode_str;
use url::{Host, Url};

use super::address::{Address, Endpoint, REDIS_PORT, SENTINEL_PORT, Sentinels, Server};
use super::{Secret, Wrong};

const EXPECTED: &str = "redis://[user[:password]@]host[:port][/db] (rediss:// with TLS), \
                        redis+unix:///path[?db=N], redis-cluster://… or redis-sentinel://…";
const EXPECTED_CLUSTER: &str =
    "redis-cluster://[user[:password]@]host[:port][?node=host:port&node=…]";
const EXPECTED_SENTINEL: &str = "redis-sentinel://[user[:password]@]host[:port][/db]\
                                 ?sentinelServiceName=NAME[&node=host:port&sentinelUsername=…\
                                 &sentinelPassword=…]";

/// What was read from a URL.
#[derive(Debug, PartialEq, Eq)]
pub struct ParsedUrl {
    /// The address meant.
    pub address: Address,
    /// The wildcard address that was given instead of this machine's, if one was.
    pub wildcard: Option<String>,
}

impl ParsedUrl {
    /// Whether the URL holds a password.
    pub fn holds_password(&self) -> bool {
        let of_sentinels = match &self.address.server {
            Server::Sentinel(sentinels) => sentinels.password.is_some(),
            _ => false,
        };
        of_sentinels || self.address.password.is_some()
    }
}

enum Kind {
    Single,
    Unix,
    Cluster,
    Sentinel,
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
    let (kind, tls) = match scheme.to_ascii_lowercase().as_str() {
        "redis" | "valkey" => (Kind::Single, false),
        "rediss" | "valkeys" => (Kind::Single, true),
        "redis+unix" | "valkey+unix" => (Kind::Unix, false),
        "redis-cluster" | "valkey-cluster" => (Kind::Cluster, false),
        "rediss-cluster" | "valkeys-cluster" => (Kind::Cluster, true),
        "redis-sentinel" | "valkey-sentinel" => (Kind::Sentinel, false),
        "rediss-sentinel" | "valkeys-sentinel" => (Kind::Sentinel, true),
        "unix" => {
            return Err(Wrong::expected(
                "redis+unix:///path, the scheme of a Unix socket",
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
        return Err(Wrong::expected(format!(
            "{EXPECTED}, without `#…`: TLS is always verified"
        )));
    }
    let mut parsed = match kind {
        Kind::Single => tcp_address(&url)?,
        Kind::Unix => unix_address(&url)?,
        Kind::Cluster => cluster_address(&url)?,
        Kind::Sentinel => sentinel_address(&url)?,
    };
    parsed.address.tls = tls;
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
    let (endpoint, wildcard) = endpoint(url, REDIS_PORT)?;
    Ok(ParsedUrl {
        address: Address {
            server: Server::Tcp(endpoint),
            database: database_of_path(url)?,
            ..Address::default()
        },
        wildcard,
    })
}

fn cluster_address(url: &Url) -> Result<ParsedUrl, Wrong> {
    if database_of_path(url)? != 0 {
        return Err(Wrong::expected(format!(
            "{EXPECTED_CLUSTER}: a cluster has no database numbers"
        )));
    }
    let (endpoint, wildcard) = endpoint(url, REDIS_PORT)?;
    let mut seeds = vec![endpoint];
    for (name, value) in url.query_pairs() {
        match name.as_ref() {
            "node" => seeds.push(node(&value, REDIS_PORT)?),
            _ => return Err(Wrong::expected(EXPECTED_CLUSTER)),
        }
    }
    Ok(ParsedUrl {
        address: Address {
            server: Server::Cluster { seeds },
            ..Address::default()
        },
        wildcard,
    })
}

fn sentinel_address(url: &Url) -> Result<ParsedUrl, Wrong> {
    let (endpoint, wildcard) = endpoint(url, SENTINEL_PORT)?;
    let mut sentinels = Sentinels {
        endpoints: vec![endpoint],
        service: String::new(),
        username: None,
        password: None,
    };
    for (name, value) in url.query_pairs() {
        match name.as_ref() {
            "node" => sentinels.endpoints.push(node(&value, SENTINEL_PORT)?),
            "sentinelServiceName" => sentinels.service = value.into_owned(),
            "sentinelUsername" => sentinels.username = Some(value.into_owned()),
            "sentinelPassword" => sentinels.password = Some(Secret::from(value.into_owned())),
            _ => return Err(Wrong::expected(EXPECTED_SENTINEL)),
        }
    }
    if sentinels.service.is_empty() {
        return Err(Wrong::expected(format!(
            "{EXPECTED_SENTINEL}: the name of the service is missing"
        )));
    }
    Ok(ParsedUrl {
        address: Address {
            server: Server::Sentinel(sentinels),
            database: database_of_path(url)?,
            ..Address::default()
        },
        wildcard,
    })
}

/// The host and port of a URL, and the wildcard address that stood for this machine, if one did.
fn endpoint(url: &Url, default_port: u16) -> Result<(Endpoint, Option<String>), Wrong> {
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
    let endpoint = Endpoint {
        host: loopback.unwrap_or(&host).to_owned(),
        port: url.port().unwrap_or(default_port),
    };
    Ok((endpoint, loopback.is_some().then_some(host)))
}

/// `host:port`, as `node` has it.
fn node(text: &str, default_port: u16) -> Result<Endpoint, Wrong> {
    let wrong = || Wrong::expected("node=host:port, as often as there are more nodes");
    let url = Url::parse(&format!("redis://{text}")).map_err(|_| wrong())?;
    let plain = url.username().is_empty() && url.password().is_none() && url.path().is_empty();
    if !plain || url.query().is_some() || url.fragment().is_some() {
        return Err(wrong());
    }
    endpoint(&url, default_port)
        .map(|(endpoint, _)| endpoint)
        .map_err(|_| wrong())
}

fn database_of_path(url: &Url) -> Result<u32, Wrong> {
    match url.path().trim_matches('/') {
        "" => Ok(0),
        database => database_number(database),
    }
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
                server: Server::Tcp(Endpoint {
                    host: "redis.example".to_owned(),
                    port: 7000
                }),
                tls: false,
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
    fn tls_clusters_and_sentinels() {
        assert_eq!(
            address("rediss://h").to_string(),
            "rediss://h:6379",
            "the scheme shows TLS"
        );
        let cluster = address("rediss-cluster://u:p@a?node=b:7001&node=[::1]");
        assert!(cluster.tls && cluster.has_replicas());
        assert_eq!(
            cluster.to_string(),
            "rediss-cluster://a:6379,b:7001,[::1]:6379"
        );
        let sentinel = parse(
            "valkey-sentinel://:db@s/2?node=t:1&sentinelServiceName=main&sentinelUsername=w\
             &sentinelPassword=s%3Dt",
        )
        .unwrap();
        assert!(sentinel.holds_password());
        assert_eq!(
            sentinel.address.to_string(),
            "redis-sentinel://s:26379,t:1 (service main)/2"
        );
        let Server::Sentinel(sentinels) = sentinel.address.server else {
            panic!("not of sentinels")
        };
        assert_eq!(sentinels.username.as_deref(), Some("w"));
        assert_eq!(sentinels.password.unwrap().reveal(), "s=t");
        assert_eq!(sentinel.address.password.unwrap().reveal(), "db");
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
            "rediss://h#insecure",
            "redis-cluster://h/1",
            "redis-cluster://h?seed=b:1",
            "redis-cluster://h?node=u:p@b:1",
            "redis-cluster://h?node=b:port",
            "redis-sentinel://h",
            "redis-sentinel://h?sentinelServiceName=",
            "redis-sentinel://h?sentinelServiceName=a&password=b",
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
