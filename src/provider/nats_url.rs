//! The NATS URL of the host data: its servers, and the credentials that it holds.
//!
//! `async_nats` ignores credentials in URLs, and its `ServerAddr` shows them in its `Debug` form: they
//! are removed from the servers. No error repeats a part of the URL.

use async_nats::ServerAddr;
use percent_encoding::percent_decode_str;

use crate::settings::secret::Secret;

const DEFAULT_SERVER: &str = "nats://127.0.0.1:4222";
const DEFAULT_SCHEME: &str = "nats";

/// The servers, without credentials, and the credentials for all of them.
#[derive(Debug)]
pub(crate) struct NatsUrl {
    pub(crate) servers: Vec<ServerAddr>,
    pub(crate) credentials: Option<UrlCredentials>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum UrlCredentials {
    Password { user: Secret, password: Secret },
    Token(Secret),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NatsUrlError {
    #[error(
        "server {0} of the NATS URL in the host data is malformed (it is not repeated, because it may hold \
         a password): expected nats://host:port, nats://user:password@host:port or \
         nats://token@host:port, separated by commas; write a comma in a password as %2C"
    )]
    Malformed(usize),
    #[error(
        "the servers of the NATS URL in the host data have different credentials: kvredis uses the same \
         ones for all of them"
    )]
    SeveralCredentials,
}

impl NatsUrl {
    /// Parses servers that are separated by commas; the default server if there is none.
    ///
    /// # Errors
    ///
    /// See [`NatsUrlError`].
    pub(crate) fn parse(text: &str) -> Result<Self, NatsUrlError> {
        let mut url = Self {
            servers: Vec::new(),
            credentials: None,
        };
        let parts = text.split(',').map(str::trim);
        for (index, part) in parts.filter(|part| !part.is_empty()).enumerate() {
            let malformed = NatsUrlError::Malformed(index + 1);
            let (server, credentials) = parse_server(part).ok_or(malformed)?;
            url.servers.push(server);
            match (&url.credentials, credentials) {
                (Some(first), Some(other)) if *first != other => {
                    return Err(NatsUrlError::SeveralCredentials);
                }
                (None, Some(first)) => url.credentials = Some(first),
                _ => {}
            }
        }
        if url.servers.is_empty() {
            let default = DEFAULT_SERVER.parse().ok();
            url.servers.push(default.ok_or(NatsUrlError::Malformed(1))?);
        }
        Ok(url)
    }
}

/// The last `@` ends the credentials, so that characters such as `/` and `#` need no encoding in them.
fn parse_server(text: &str) -> Option<(ServerAddr, Option<UrlCredentials>)> {
    let (scheme, rest) = text.split_once("://").unwrap_or((DEFAULT_SCHEME, text));
    let (userinfo, host) = match rest.rsplit_once('@') {
        Some((userinfo, host)) => (Some(userinfo), host),
        None => (None, rest),
    };
    let server: ServerAddr = format!("{scheme}://{host}").parse().ok()?;
    if server.host().is_empty() {
        return None;
    }
    let credentials = match userinfo {
        None | Some("" | ":") => None,
        Some(userinfo) => Some(match userinfo.split_once(':') {
            Some((user, password)) => UrlCredentials::Password {
                user: decode(user)?,
                password: decode(password)?,
            },
            None => UrlCredentials::Token(decode(userinfo)?),
        }),
    };
    Some((server, credentials))
}

fn decode(text: &str) -> Option<Secret> {
    let decoded = percent_decode_str(text).decode_utf8().ok()?;
    Some(Secret::from(decoded.into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(user: &str, password: &str) -> Option<UrlCredentials> {
        Some(UrlCredentials::Password {
            user: user.to_owned().into(),
            password: password.to_owned().into(),
        })
    }

    fn token(token: &str) -> Option<UrlCredentials> {
        Some(UrlCredentials::Token(token.to_owned().into()))
    }

    #[test]
    fn servers_and_credentials_of_urls() {
        let cases = [
            ("", "127.0.0.1:4222", None),
            (" , ", "127.0.0.1:4222", None),
            ("nats", "nats:4222", None),
            ("10.0.0.1:5222", "10.0.0.1:5222", None),
            ("nats://n", "n:4222", None),
            ("nats://n:1/", "n:1", None),
            ("tls://n:1", "n:1", None),
            ("nats://[::1]:1", "::1:1", None),
            ("nats://@n", "n:4222", None),
            ("nats://u:p@n:1", "n:1", password("u", "p")),
            ("u:p@n:1", "n:1", password("u", "p")),
            ("nats://u:@n", "n:4222", password("u", "")),
            ("nats://u:p%40:%2C/x@n", "n:4222", password("u", "p@:,/x")),
            ("nats://u:a/b#c?d@e@n", "n:4222", password("u", "a/b#c?d@e")),
            ("nats://u:100%@n", "n:4222", password("u", "100%")),
            ("nats://t0k-en@n", "n:4222", token("t0k-en")),
            ("nats://t%2Fk@n", "n:4222", token("t/k")),
            (
                "nats://u:p@a:1, nats://u:p@b:2",
                "a:1 b:2",
                password("u", "p"),
            ),
            ("nats://a:1,u:p@b:2,", "a:1 b:2", password("u", "p")),
            ("nats://t@a,b,tls://c", "a:4222 b:4222 c:4222", token("t")),
        ];
        for (text, servers, credentials) in cases {
            let url = NatsUrl::parse(text).unwrap();
            let shown = |server: &ServerAddr| format!("{}:{}", server.host(), server.port());
            let parsed: Vec<_> = url.servers.iter().map(shown).collect();
            assert_eq!(parsed.join(" "), servers, "{text}");
            assert_eq!(url.credentials, credentials, "{text}");
        }
    }

    #[test]
    fn neither_errors_nor_debug_forms_repeat_credentials() {
        let malformed = [
            "http://u:hunter2@n",
            "nats://u:hunter2@n:port",
            "nats://u:hunter2@",
            "nats://u:hunter2@n:99999",
            "nats://u:hunter2",
            "nats://u:hunter2,x@n",
            "nats://hunter2%ff@n",
            "nats://u:hunter2@a b",
            "hunter2:sw0rdfish",
            "nats://",
        ];
        for text in malformed {
            let error = NatsUrl::parse(text).unwrap_err();
            assert_eq!(error, NatsUrlError::Malformed(1), "{text}");
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{text}");
        }
        let several = NatsUrl::parse("nats://u:hunter2@a,nats://hunter2@b").unwrap_err();
        assert_eq!(several, NatsUrlError::SeveralCredentials);
        for text in ["nats://hunter2:hunter2@a", "nats://hunter2@a"] {
            let url = NatsUrl::parse(text).unwrap();
            assert!(!format!("{url:?}").contains("hunter2"), "{url:?}");
        }
    }
}
