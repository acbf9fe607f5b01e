//! Parsing of settings: each definition takes its value from the sources; then the settings are
//! checked together. An invalid value is an error, an unknown name or a careless value a warning.

use crate::settings::catalog::{link_setting_names, setting_names};
use crate::settings::definition::SettingDefinition;
use crate::settings::definitions::{LINK_SETTINGS, PROVIDER_SETTINGS};
use crate::settings::error::{ConfigWarning, InvalidValue, SettingError, ShownValue};
use crate::settings::link_settings::Settings;
use crate::settings::origin::Origin;
use crate::settings::provider_settings::ProviderSettings;
use crate::settings::redaction;
use crate::settings::source::{Layer, SourcedValue, Sources};

/// The names that the provider SDK reads from the same configuration begin so.
pub(crate) const SDK_NAMES: [&str; 2] = ["OTEL_", "FLAMEGRAPH_PATH"];

/// The outcome of parsing: warnings come with valid settings and with invalid ones.
#[derive(Debug)]
pub(crate) struct ParseOutcome<T> {
    pub(crate) settings: Result<T, SettingError>,
    pub(crate) warnings: Vec<ConfigWarning>,
}

impl Settings {
    /// Parses the settings of one link.
    pub(crate) fn parse(sources: &Sources) -> ParseOutcome<Self> {
        let mut warnings = unknown_names(sources.link(), link_setting_names());
        let has_own_url = sources.find_own("URL").is_some();
        let find = |definition: &SettingDefinition<Self>| {
            if has_own_url && definition.belongs_to_url {
                sources.find_own(definition.name)
            } else {
                sources.find(definition.name)
            }
        };
        let settings = parse_all(LINK_SETTINGS, find, &mut warnings).and_then(|settings| {
            if settings.require_own_url && !has_own_url {
                return Err(SettingError::missing(
                    "URL",
                    "DISABLE_DEFAULT_CONNECTION disables the default; expected a URL in the link's \
                     secrets or configuration",
                ));
            }
            settings.validate()?;
            Ok(settings)
        });
        ParseOutcome { settings, warnings }
    }

    /// Checks the combination of settings that are valid one by one.
    fn validate(&self) -> Result<(), SettingError> {
        if self.read_from_replica && !self.address.has_replicas() {
            let reason = format!(
                "{} is a single server; expected a cluster or sentinels as URL",
                self.address
            );
            return Err(SettingError::conflict("READ_FROM=replica", reason));
        }
        let tls = [
            ("TLS_CA", &self.tls.ca),
            ("TLS_CERT", &self.tls.cert),
            ("TLS_KEY", &self.tls.key),
        ];
        let first_set = tls.iter().find(|(_, pem)| pem.is_some());
        if let (false, Some((name, _))) = (self.address.tls, first_set) {
            let reason = format!(
                "{} does not use TLS; expected a URL that begins with rediss",
                self.address
            );
            return Err(SettingError::conflict(*name, reason));
        }
        match (&self.tls.cert, &self.tls.key) {
            (Some(_), None) => Err(SettingError::missing(
                "TLS_KEY",
                "TLS_CERT requires its private key",
            )),
            (None, Some(_)) => Err(SettingError::missing(
                "TLS_CERT",
                "TLS_KEY requires its certificate",
            )),
            _ => Ok(()),
        }
    }
}

impl ProviderSettings {
    /// Parses the settings of the process, and warns about unknown names in the provider's secrets
    /// and configuration, which are also the defaults of all links.
    pub(crate) fn parse(sources: &Sources) -> ParseOutcome<Self> {
        let mut warnings = unknown_names(sources.provider(), setting_names());
        let find = |definition: &SettingDefinition<Self>| sources.find(definition.name);
        ParseOutcome {
            settings: parse_all(PROVIDER_SETTINGS, find, &mut warnings),
            warnings,
        }
    }
}

/// The defaults, overridden by every value that is found.
fn parse_all<'a, T: Default>(
    definitions: &[SettingDefinition<T>],
    find: impl Fn(&SettingDefinition<T>) -> Option<SourcedValue<'a>>,
    warnings: &mut Vec<ConfigWarning>,
) -> Result<T, SettingError> {
    let mut settings = T::default();
    for definition in definitions {
        if let Some(value) = find(definition) {
            warnings.extend(definition.parse(&value, &mut settings)?);
        }
    }
    Ok(settings)
}

impl<T> SettingDefinition<T> {
    /// Parses a value into the settings; returns a warning, if there is one.
    fn parse(
        &self,
        value: &SourcedValue<'_>,
        settings: &mut T,
    ) -> Result<Option<ConfigWarning>, SettingError> {
        let (name, origin) = (self.name, value.origin);
        let text = value.text.ok_or(SettingError::NotUtf8 { name, origin })?;
        let warning = self
            .parser
            .parse(settings, text)
            .map_err(|reason| self.invalid(origin, text, reason))?;
        let is_exposed = !origin.is_secret() && (self.contains_password)(text);
        let message = if is_exposed {
            Some(format!(
                "{name} in {origin} contains a password in plain text; use a secret instead"
            ))
        } else {
            warning.map(|warning| format!("{name} in {origin}: {warning}"))
        };
        Ok(message.map(|message| ConfigWarning { origin, message }))
    }

    fn invalid(&self, origin: Origin, text: &str, reason: InvalidValue) -> SettingError {
        let is_secret = origin.is_secret() || (self.contains_password)(text);
        let shown = match self.name {
            _ if is_secret || !self.shows_invalid => None,
            "URL" => redaction::recognized_url(text),
            _ => redaction::public_value(text),
        };
        let (value, reason) = match shown {
            Some(shown) => (ShownValue::Public(shown), reason),
            None => (ShownValue::Secret, reason.without_hint()),
        };
        SettingError::Invalid {
            name: self.name,
            value,
            origin,
            reason,
        }
    }
}

/// A warning for each name that is not among the known ones, with the most similar one.
fn unknown_names<'a>(layers: &[Layer], known: impl Iterator<Item = &'a str>) -> Vec<ConfigWarning> {
    let known: Vec<&str> = known.collect();
    let is_known =
        |name: &str| known.contains(&name) || SDK_NAMES.iter().any(|sdk| name.starts_with(sdk));
    let mut warnings = Vec::new();
    for layer in layers {
        let origin = layer.origin();
        for name in layer.names().filter(|name| !is_known(name)) {
            let similarity = |known: &str| strsim::normalized_damerau_levenshtein(name, known);
            let nearest = known
                .iter()
                .max_by(|a, b| similarity(a).total_cmp(&similarity(b)));
            let nearest = nearest.copied().unwrap_or_default();
            let message = format!(
                "unknown setting {:?} in {origin} is ignored; did you mean {nearest}?",
                redaction::name(name)
            );
            warnings.push(ConfigWarning { origin, message });
        }
    }
    warnings
}
