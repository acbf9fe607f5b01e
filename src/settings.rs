//! The settings of a link: from the names and texts that a host is_transient on to typed values, and the
//! words for everything that can be wrong with them.
//!
//! `table` defines each setting in one entry, `value` how texts of its kind are read, `source` says
//! whose value counts, `url` reads addresses. `listing` and `schema` show the table to people and
//! to programs. Nothing here does I/O or logs: warnings are handed back with the settings.

pub(crate) mod address;
pub(crate) mod defaults;
pub(crate) mod definition;
pub(crate) mod definitions;
pub(crate) mod render;
pub(crate) mod schema;
pub(crate) mod source;
pub(crate) mod url;
pub(crate) mod value;
pub(crate) mod watch;

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

pub(crate) use crate::settings::address::Address;
pub(crate) use crate::settings::definition::SettingDefinition;
pub(crate) use crate::settings::definitions::{LINK_SETTINGS, PROVIDER_SETTINGS};
pub(crate) use crate::settings::source::{Origin, Sources};
pub(crate) use crate::settings::watch::Watched;

use crate::settings::source::FoundValue;

/// A text that no log, error or `Debug` form shows.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Secret(String);

impl Secret {
    /// The text itself, for the one place that needs it.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Certificates or keys in PEM.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Pem {
    /// The text itself.
    Text(Secret),
    /// The absolute path of a file.
    File(PathBuf),
}

/// What TLS is spoken with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Tls {
    /// Who is trusted; `None` is whom the system trusts.
    pub(crate) ca: Option<Pem>,
    /// The certificate that the server may ask for.
    pub(crate) cert: Option<Pem>,
    /// The key of that certificate.
    pub(crate) key: Option<Pem>,
}

/// How the buckets of a link are laid out in Redis's one space of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BucketLayout {
    /// The default bucket holds plain keys, any other bucket `b` holds `b:key`.
    PrefixNamed,
    /// Every bucket `b` holds `b:key`.
    PrefixAll,
    /// Bucket names make no difference.
    Flat,
}

/// What the provider's health says of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    /// The provider is unhealthy while the link is without its Redis.
    Links,
    /// The link makes no difference: the process runs.
    Process,
}

/// Everything that a link can set; `table` documents each with its default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// `URL`, `USERNAME` and `PASSWORD`.
    pub(crate) address: Address,
    /// `PASSWORD_FILE`.
    pub(crate) password_file: Option<PathBuf>,
    /// `TLS_CA`, `TLS_CERT` and `TLS_KEY`.
    pub(crate) tls: Tls,
    /// `READ_FROM` is `replica`.
    pub(crate) read_from_replica: bool,
    /// `BACKEND_CONNECTION_TIMEOUT_MS`.
    pub(crate) connection_timeout: Duration,
    /// `BACKEND_RESPONSE_TIMEOUT_MS`.
    pub(crate) response_timeout: Duration,
    /// `BACKEND_RECONNECT_NUM_RETRIES`.
    pub(crate) retries: u32,
    /// `BACKEND_RECONNECT_MAX_DELAY_MS`.
    pub(crate) reconnect_max_delay: Duration,
    /// `DISABLE_DEFAULT_CONNECTION`.
    pub(crate) own_url_required: bool,
    /// `SHARE_CONNECTIONS_BY_URL`.
    pub(crate) share_connection: bool,
    /// `PREFIX`.
    pub(crate) prefix: String,
    /// `BUCKET_LAYOUT`.
    pub(crate) layout: BucketLayout,
    /// `BUCKETS`; `None` is any.
    pub(crate) buckets: Option<BTreeSet<String>>,
    /// `READ_ONLY`.
    pub(crate) read_only: bool,
    /// `TTL_MS`.
    pub(crate) ttl: Option<Duration>,
    /// `SCAN_COUNT`, in keys.
    pub(crate) scan_count: u32,
    /// `MAX_IN_FLIGHT`, in calls.
    pub(crate) max_in_flight: usize,
    /// `MAX_WAITING`, in calls.
    pub(crate) max_waiting: usize,
    /// `MAX_VALUE_BYTES`.
    pub(crate) max_value_bytes: usize,
    /// `HEALTH`.
    pub(crate) health: Health,
    /// `CACHE_MAX_ENTRIES`; 0 is off.
    pub(crate) cache_max_entries: usize,
    /// `CACHE_MAX_BYTES`.
    pub(crate) cache_max_bytes: usize,
    /// `CACHE_TTL_MS`.
    pub(crate) cache_ttl: Duration,
    /// `WATCH`.
    pub(crate) watch: Vec<Watched>,
    /// `WATCH_BUCKET`.
    pub(crate) watch_bucket: String,
    /// `WATCH_CONFIGURE_REDIS`.
    pub(crate) watch_configure_redis: bool,
    /// `WATCH_ONCE`.
    pub(crate) watch_once: bool,
}

/// What a provider process can set for all its links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProviderSettings {
    /// `MAX_BYTES_IN_FLIGHT`.
    pub(crate) max_bytes_in_flight: usize,
}

/// What came of reading settings.
#[derive(Debug)]
pub(crate) struct ParseOutcome<T> {
    /// The settings, or what is wrong with one of them.
    pub(crate) settings: Result<T, String>,
    /// What an operator should know although it works.
    pub(crate) warnings: Vec<Warning>,
}

/// Something about a value that an operator should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Warning {
    /// Where the value is.
    pub(crate) origin: Origin,
    /// In words.
    pub(crate) text: String,
}

/// Why a value does not do. It becomes part of an error that names the setting and the value.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct InvalidValue {
    expected: String,
    hint: Option<String>,
}

impl InvalidValue {
    /// The value is not what was expected.
    pub(crate) fn expected(what: impl Into<String>) -> Self {
        Self {
            expected: what.into(),
            hint: None,
        }
    }

    /// Adds words that may repeat the value; they are left out where it is secret.
    pub(crate) fn with_hint(mut self, hint: String) -> Self {
        self.hint = Some(hint);
        self
    }
}

impl fmt::Display for InvalidValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}", self.expected)?;
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

impl Settings {
    /// Reads the settings of one link.
    pub(crate) fn read(sources: &Sources) -> ParseOutcome<Self> {
        let mut warnings = source::unknown_names(sources.link(), LINK_SETTINGS);
        let own_url = sources.find_own("URL").is_some();
        let find = |definition: &SettingDefinition<Self>| {
            if own_url && definition.belongs_to_url {
                sources.find_own(definition.name)
            } else {
                sources.find(definition.name)
            }
        };
        let settings = apply_all(LINK_SETTINGS, find, &mut warnings).and_then(|settings| {
            if settings.own_url_required && !own_url {
                return Err(
                    "wrong setting URL: it is missing, and DISABLE_DEFAULT_CONNECTION allows no \
                     default; expected a URL in the link's secrets or configuration"
                        .to_owned(),
                );
            }
            settings.validate()?;
            Ok(settings)
        });
        ParseOutcome { settings, warnings }
    }
}

impl Settings {
    /// What each setting may be, but not together.
    fn validate(&self) -> Result<(), String> {
        let wrong = |what: String| Err(format!("wrong setting {what}"));
        if self.read_from_replica && !self.address.has_replicas() {
            return wrong(format!(
                "READ_FROM=replica: {} is a single server; expected a cluster or sentinels as URL",
                self.address
            ));
        }
        let tls = [
            ("TLS_CA", &self.tls.ca),
            ("TLS_CERT", &self.tls.cert),
            ("TLS_KEY", &self.tls.key),
        ];
        if let (false, Some((name, _))) =
            (self.address.tls, tls.iter().find(|(_, pem)| pem.is_some()))
        {
            return wrong(format!(
                "{name}: {} is reached without TLS; expected a URL that begins with rediss",
                self.address
            ));
        }
        match (&self.tls.cert, &self.tls.key) {
            (Some(_), None) => wrong("TLS_KEY: it is missing; TLS_CERT needs its key".to_owned()),
            (None, Some(_)) => {
                wrong("TLS_CERT: it is missing; TLS_KEY is of no use alone".to_owned())
            }
            _ => Ok(()),
        }
    }
}

impl ProviderSettings {
    /// Reads the settings of the process, and looks for names in the provider's secrets and
    /// configuration that nobody knows.
    pub(crate) fn read(sources: &Sources) -> ParseOutcome<Self> {
        let known = LINK_SETTINGS
            .iter()
            .map(|definition| definition.name)
            .chain(PROVIDER_SETTINGS.iter().map(|definition| definition.name));
        let mut warnings = source::unknown_names_among(sources.provider(), known);
        let find = |definition: &SettingDefinition<Self>| sources.find(definition.name);
        ParseOutcome {
            settings: apply_all(PROVIDER_SETTINGS, find, &mut warnings),
            warnings,
        }
    }
}

/// The defaults, with every value applied that is found.
fn apply_all<'a, T: Default>(
    definitions: &[SettingDefinition<T>],
    find: impl Fn(&SettingDefinition<T>) -> Option<FoundValue<'a>>,
    warnings: &mut Vec<Warning>,
) -> Result<T, String> {
    let mut settings = T::default();
    for definition in definitions {
        if let Some(found) = find(definition) {
            warnings.extend(definition.apply(&found, &mut settings)?);
        }
    }
    Ok(settings)
}

impl<T> SettingDefinition<T> {
    /// Applies a value that was found; answers a warning, if there is cause for one.
    fn apply(&self, found: &FoundValue<'_>, settings: &mut T) -> Result<Option<Warning>, String> {
        let Some(text) = found.text else {
            return Err(format!(
                "wrong setting {} in {}: expected text in UTF-8",
                self.name, found.origin
            ));
        };
        let noticed = self
            .value
            .read(settings, text)
            .map_err(|wrong| self.in_words(found.origin, text, wrong))?;
        let plain_password = !found.origin.is_secret() && (self.holds_password)(text);
        let text = if plain_password {
            Some(format!(
                "{} in {} holds a password that anybody who reads the configuration sees: \
                 better make it a secret",
                self.name, found.origin
            ))
        } else {
            noticed.map(|notice| format!("{} in {}: {notice}", self.name, found.origin))
        };
        Ok(text.map(|text| Warning {
            origin: found.origin,
            text,
        }))
    }

    fn in_words(&self, origin: Origin, text: &str, mut wrong: InvalidValue) -> String {
        let name = self.name;
        if origin.is_secret() || (self.holds_password)(text) {
            wrong.hint = None;
            return format!("wrong setting {name} in {origin} (its value is secret): {wrong}");
        }
        // What stands elsewhere may have been meant for the URL, too.
        let is_address = name == "URL" || text.contains("://") || text.contains('@');
        let shown = if is_address && name != "WATCH" {
            url::redacted(text)
        } else {
            text.to_owned()
        };
        let shown: String = shown.chars().take(100).collect();
        format!("wrong setting {name}={shown:?} in {origin}: {wrong}")
    }
}

#[cfg(test)]
mod tests;
