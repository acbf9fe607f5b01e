//! The parser of the setting `URL`. No error of it repeats a part of the text, except as a hint.

use std::net::Ipv6Addr;

use percent_encoding::percent_decode_str;
use url::{Host, Url};

use crate::settings::address::{
    Address, Endpoint, REDIS_PORT, SENTINEL_PORT, Sentinels, ServerSpec,
};
use crate::settings::error::InvalidValue;
use crate::settings::foreign_form;
use crate::settings::redaction::{is_host_name, recognized_url};
use crate::settings::secret::Secret;

const EXPECTED: &str = "redis://[user[:password]@]host[:port][/db] (rediss:// with TLS), \
                        redis+unix:///path[?db=N], redis-cluster://… or redis-sentinel://…";
const EXPECTED_CLUSTER: &str =
    "redis-cluster://[user[:password]@]host[:port][?node=host:port&node=…]";
const EXPECTED_SENTINEL: &str = "redis-sentinel://[user[:password]@]host[:port][/db]\
                                 ?sentinelServiceName=NAME[&node=host:port&sentinelUsername=…\
                                 &sentinelPassword=…]";

/// A regular expression (ECMA-262) for the texts that [`parse`] accepts. It does not check the parts
/// between the separators, such as host and port.
pub(crate) const PATTERN: &str = concat!(
    r"^(",
    // One server; over a Unix socket; a cluster; sentinels.
    r"([Rr][Ee][Dd][Ii][Ss]|[Vv][Aa][Ll][Kk][Ee][Yy])[Ss]?://([^/?#\t\r\n]*@)?[^/?#@\s,;=]+(/+[0-9]*/*)?",
    r"|([Rr][Ee][Dd][Ii][Ss]|[Vv][Aa][Ll][Kk][Ee][Yy])\+[Uu][Nn][Ii][Xx]:///[^?#\s,;=@]+(\?db=[0-9]+)?",
    r"|([Rr][Ee][Dd][Ii][Ss]|[Vv][Aa][Ll][Kk][Ee][Yy])[Ss]?-[Cc][Ll][Uu][Ss][Tt][Ee][Rr]",
    r"://([^/?#\t\r\n]*@)?[^/?#@\s,;=]+/*(\?node=[^&#@]+(&node=[^&#@]+)*)?",
    r"|([Rr][Ee][Dd][Ii][Ss]|[Vv][Aa][Ll][Kk][Ee][Yy])[Ss]?-[Ss][Ee][Nn][Tt][Ii][Nn][Ee][Ll]",
    r"://([^/?#\t\r\n]*@)?[^/?#@\s,;=]+(/+[0-9]*/*)?\?((node|sentinelUsername|sentinelPassword)=[^&#]*&)*",
    r"sentinelServiceName=[A-Za-z0-9.%_-]+(&(node|sentinelUsername|sentinelPassword)=[^&#]*)*",
    r")$",
);

/// A parsed URL.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ParsedUrl {
    pub(crate) address: Address,
    /// The wildcard address in the URL, which `address` replaces by this machine's.
    pub(crate) wildcard: Option<String>,
}

impl ParsedUrl {
    pub(crate) fn contains_password(&self) -> bool {
        let sentinels_password = match &self.address.server {
            ServerSpec::Sentinel(sentinels) => sentinels.password.as_ref(),
            _ => None,
        };
        self.address.password.is_some() || sentinels_password.is_some()
    }
}

enum UrlScheme {
    Single,
    Unix,
    Cluster,
    Sentinel,
}

/// Parses the setting `URL`.
pub(crate) fn parse(text: &str) -> Result<ParsedUrl, InvalidValue> {
    parse_url(text).map_err(|invalid| match foreign_form::describe(text) {
        Some(form) => InvalidValue::expected(format!("{EXPECTED}; {form}")),
        None => invalid,
    })
}

fn parse_url(text: &str) -> Result<ParsedUrl, InvalidValue> {
    // The parser of the crate `url` would remove line breaks and tabs.
    if text.contains(char::is_control) {
        return Err(InvalidValue::expected(format!(
            "{EXPECTED}, without line breaks and tabs"
        )));
    }
    let Some((scheme, _)) = text.split_once("://") else {
        return Err(without_scheme(text));
    };
    let (kind, tls) = match scheme.to_ascii_lowercase().as_str() {
        "redis" | "valkey" => (UrlScheme::Single, false),
        "rediss" | "valkeys" => (UrlScheme::Single, true),
        "redis+unix" | "valkey+unix" => (UrlScheme::Unix, false),
        "redis-cluster" | "valkey-cluster" => (UrlScheme::Cluster, false),
        "rediss-cluster" | "valkeys-cluster" => (UrlScheme::Cluster, true),
        "redis-sentinel" | "valkey-sentinel" => (UrlScheme::Sentinel, false),
        "rediss-sentinel" | "valkeys-sentinel" => (UrlScheme::Sentinel, true),
        "unix" => {
            return Err(InvalidValue::expected(
                "redis+unix:///path for a Unix socket",
            ));
        }
        _ => return Err(InvalidValue::expected(EXPECTED)),
    };
    let url = Url::parse(text).map_err(|error| {
        InvalidValue::expected(format!(
            "{EXPECTED}, special characters in user and password percent-encoded ({error})"
        ))
    })?;
    if url.fragment().is_some() {
        return Err(InvalidValue::expected(format!(
            "{EXPECTED}, without `#…`: certificates are always verified"
        )));
    }
    let mut parsed = match kind {
        UrlScheme::Single => tcp_address(&url)?,
        UrlScheme::Unix if text.contains(char::is_whitespace) => return Err(unusual_path()),
        UrlScheme::Unix => unix_address(&url)?,
        UrlScheme::Cluster => cluster_address(&url)?,
        UrlScheme::Sentinel => sentinel_address(&url)?,
    };
    parsed.address.tls = tls;
    parsed.address.username = decoded(url.username(), "the user")?.filter(|user| !user.is_empty());
    parsed.address.password = match url.password() {
        Some(password) => decoded(password, "the password")?.map(Secret::from),
        None => None,
    };
    Ok(parsed)
}

/// The error for a text that does not begin with a scheme.
fn without_scheme(text: &str) -> InvalidValue {
    let invalid = InvalidValue::expected(EXPECTED);
    match recognized_url(text).filter(|shown| !shown.is_empty() && !shown.contains('*')) {
        Some(path) if path.starts_with('/') => {
            invalid.with_hint(format!("did you mean redis+unix://{path}?"))
        }
        Some(server) => invalid.with_hint(format!("did you mean redis://{server}?")),
        None => invalid,
    }
}

fn tcp_address(url: &Url) -> Result<ParsedUrl, InvalidValue> {
    if url.query().is_some() {
        return Err(InvalidValue::expected(format!("{EXPECTED}, without `?…`")));
    }
    let (endpoint, wildcard) = endpoint(url, REDIS_PORT)?;
    Ok(ParsedUrl {
        address: Address {
            server: ServerSpec::Tcp(endpoint),
            database: database_of_path(url)?,
            ..Address::default()
        },
        wildcard,
    })
}

fn cluster_address(url: &Url) -> Result<ParsedUrl, InvalidValue> {
    if database_of_path(url)? != 0 {
        return Err(InvalidValue::expected(format!(
            "{EXPECTED_CLUSTER}: a cluster has no database numbers"
        )));
    }
    let (endpoint, wildcard) = endpoint(url, REDIS_PORT)?;
    let mut seeds = vec![endpoint];
    for (name, value) in url.query_pairs() {
        match name.as_ref() {
            "node" => seeds.push(node(&value, REDIS_PORT)?),
            _ => return Err(InvalidValue::expected(EXPECTED_CLUSTER)),
        }
    }
    Ok(ParsedUrl {
        address: Address {
            server: ServerSpec::Cluster { seeds },
            ..Address::default()
        },
        wildcard,
    })
}

fn sentinel_address(url: &Url) -> Result<ParsedUrl, InvalidValue> {
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
            _ => return Err(InvalidValue::expected(EXPECTED_SENTINEL)),
        }
    }
    if sentinels.service.is_empty() {
        return Err(InvalidValue::expected(format!(
            "{EXPECTED_SENTINEL}: sentinelServiceName is missing"
        )));
    }
    if !is_service_name(&sentinels.service) {
        return Err(InvalidValue::expected(format!(
            "{EXPECTED_SENTINEL}: letters, digits, `.`, `-` and `_` in sentinelServiceName"
        )));
    }
    Ok(ParsedUrl {
        address: Address {
            server: ServerSpec::Sentinel(sentinels),
            database: database_of_path(url)?,
            ..Address::default()
        },
        wildcard,
    })
}

/// Sentinels accept no other characters in the name of a primary.
fn is_service_name(text: &str) -> bool {
    text.chars()
        .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
}

/// The host and port of a URL, and the wildcard address that they replace, if there is one.
fn endpoint(url: &Url, default_port: u16) -> Result<(Endpoint, Option<String>), InvalidValue> {
    let host = match url.host() {
        Some(Host::Domain(host)) => decoded(host, "the host")?.unwrap_or_default(),
        Some(Host::Ipv4(ip)) => ip.to_string(),
        Some(Host::Ipv6(ip)) => ip.to_string(),
        None => String::new(),
    };
    if host.is_empty() {
        return Err(InvalidValue::expected(format!("{EXPECTED}, with a host")));
    }
    if !is_host_name(&host) && host.parse::<Ipv6Addr>().is_err() {
        return Err(InvalidValue::expected(format!(
            "{EXPECTED}, with letters, digits, `-`, `_` and `.` in the host"
        )));
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

/// The value of the parameter `node`.
fn node(text: &str, default_port: u16) -> Result<Endpoint, InvalidValue> {
    let invalid = || InvalidValue::expected("node=host:port, once for each further node");
    let url = Url::parse(&format!("redis://{text}")).map_err(|_| invalid())?;
    let plain = url.username().is_empty() && url.password().is_none() && url.path().is_empty();
    if !plain || url.query().is_some() || url.fragment().is_some() {
        return Err(invalid());
    }
    endpoint(&url, default_port)
        .map(|(endpoint, _)| endpoint)
        .map_err(|_| invalid())
}

fn database_of_path(url: &Url) -> Result<u32, InvalidValue> {
    match url.path().trim_matches('/') {
        "" => Ok(0),
        database => database_number(database),
    }
}

fn unusual_path() -> InvalidValue {
    InvalidValue::expected(
        "redis+unix:///path[?db=N], special characters in the path percent-encoded",
    )
}

fn unix_address(url: &Url) -> Result<ParsedUrl, InvalidValue> {
    if url
        .path()
        .contains([',', ';', '=', '@', '"', '\'', '{', '}'])
    {
        return Err(unusual_path());
    }
    let path = decoded(url.path(), "the path")?.unwrap_or_default();
    if url.host_str().is_some_and(|host| !host.is_empty()) || path.is_empty() || path == "/" {
        return Err(InvalidValue::expected(
            "redis+unix:///path[?db=N], an absolute path after three slashes",
        ));
    }
    let mut database = 0;
    for (name, value) in url.query_pairs() {
        match name.as_ref() {
            "db" => database = database_number(&value)?,
            _ => {
                return Err(InvalidValue::expected(
                    "redis+unix:///path[?db=N]; credentials belong in the settings USERNAME and \
                     PASSWORD",
                ));
            }
        }
    }
    let address = Address {
        server: ServerSpec::Unix { path: path.into() },
        database,
        ..Address::default()
    };
    Ok(ParsedUrl {
        address,
        wildcard: None,
    })
}

fn database_number(text: &str) -> Result<u32, InvalidValue> {
    text.parse::<u16>()
        .map(u32::from)
        .map_err(|_| InvalidValue::expected(format!("{EXPECTED}, with a number as the database")))
}

fn decoded(text: &str, what: &str) -> Result<Option<String>, InvalidValue> {
    percent_decode_str(text)
        .decode_utf8()
        .map(|text| Some(text.into_owned()))
        .map_err(|_| InvalidValue::expected(format!("{EXPECTED}, with UTF-8 in {what}")))
}

#[cfg(test)]
mod tests;
