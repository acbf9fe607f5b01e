//! Where settings come from: a link's secrets and configuration, then the provider's.
//!
//! Knows how names match (any case, `NAME.anything` reads as `NAME`) and which value counts where
//! several are given. What a value means is for `table`.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use wasmcloud_provider_sdk::core::secrets::SecretValue;

use crate::settings::Warning;
use crate::settings::definition::SettingDefinition;

/// Names that the provider SDK reads from the same configuration.
pub(crate) const NAMES_OF_THE_SDK: [&str; 2] = ["OTEL_", "FLAMEGRAPH_PATH"];

/// Whose value it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The secrets of the link.
    LinkSecrets,
    /// The named configuration of the link.
    LinkConfig,
    /// The secrets of the provider.
    ProviderSecrets,
    /// The named configuration of the provider.
    ProviderConfig,
}

impl Origin {
    /// Whether what comes from here must not be shown.
    pub(crate) fn is_secret(self) -> bool {
        matches!(self, Self::LinkSecrets | Self::ProviderSecrets)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LinkSecrets => "the link's secrets",
            Self::LinkConfig => "the link's configuration",
            Self::ProviderSecrets => "the provider's secrets",
            Self::ProviderConfig => "the provider's configuration",
        })
    }
}

/// The values of one origin, by the name of the setting.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Layer {
    origin: Origin,
    /// By name in capitals without `.anything`; `None` stands for bytes that are no text.
    values: BTreeMap<String, Option<String>>,
}

/// A value that was found, and where.
pub(crate) struct FoundValue<'a> {
    pub(crate) origin: Origin,
    pub(crate) text: Option<&'a str>,
}

/// All that a link's settings are read from, first found first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sources {
    pub(crate) layers: [Layer; 4],
}

impl Layer {
    /// Named configuration as the host hands it over.
    pub(crate) fn config(origin: Origin, values: &HashMap<String, String>) -> Self {
        let texts = values.iter().map(|(name, text)| (name, Some(text.clone())));
        Self::new(origin, texts)
    }

    /// Opened secrets as the host hands them over, text or bytes.
    pub(crate) fn secrets(origin: Origin, values: &HashMap<String, SecretValue>) -> Self {
        let texts = values.iter().map(|(name, value)| {
            let text = match value {
                SecretValue::String(text) => Some(text.clone()),
                SecretValue::Bytes(bytes) => String::from_utf8(bytes.clone()).ok(),
            };
            (name, text)
        });
        Self::new(origin, texts)
    }

    /// Without any value.
    pub(crate) fn empty(origin: Origin) -> Self {
        Self {
            origin,
            values: BTreeMap::new(),
        }
    }

    fn new<'a>(origin: Origin, values: impl Iterator<Item = (&'a String, Option<String>)>) -> Self {
        // Of several the plain name counts, then the first in alphabetical order.
        let sorted: BTreeMap<(bool, &String), Option<String>> = values
            .map(|(given, text)| ((given.contains('.'), given), text))
            .collect();
        let mut layer = Self::empty(origin);
        for ((_, given), text) in sorted {
            let name = given.split('.').next().unwrap_or_default();
            layer
                .values
                .entry(name.to_ascii_uppercase())
                .or_insert(text);
        }
        layer
    }

    fn find(&self, name: &str) -> Option<FoundValue<'_>> {
        self.values.get(name).map(|text| FoundValue {
            origin: self.origin,
            text: text.as_deref(),
        })
    }
}

/// Names only: a value may be secret, also in plain configuration.
impl fmt::Debug for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        f.debug_set().entries(self.values.keys()).finish()
    }
}

impl Sources {
    /// A link's sources; those of the provider alone are read with two empty layers of a link.
    pub(crate) fn new(
        link_secrets: Layer,
        link_config: Layer,
        provider_secrets: Layer,
        provider_config: Layer,
    ) -> Self {
        Self {
            layers: [link_secrets, link_config, provider_secrets, provider_config],
        }
    }

    pub(crate) fn link(&self) -> &[Layer] {
        &self.layers[..2]
    }

    pub(crate) fn provider(&self) -> &[Layer] {
        &self.layers[2..]
    }

    pub(crate) fn find(&self, name: &str) -> Option<FoundValue<'_>> {
        self.layers.iter().find_map(|layer| layer.find(name))
    }

    /// Only what the link itself brings.
    pub(crate) fn find_own(&self, name: &str) -> Option<FoundValue<'_>> {
        self.link().iter().find_map(|layer| layer.find(name))
    }
}

/// A warning for each name that no definition knows.
pub(crate) fn unknown_names<T>(layers: &[Layer], known: &[SettingDefinition<T>]) -> Vec<Warning> {
    unknown_names_among(layers, known.iter().map(|definition| definition.name))
}

/// A warning for each name that is not among the known ones.
pub(crate) fn unknown_names_among<'a>(
    layers: &[Layer],
    known: impl Iterator<Item = &'a str>,
) -> Vec<Warning> {
    let known: Vec<&str> = known.collect();
    let mut warnings = Vec::new();
    for layer in layers {
        for name in layer.values.keys() {
            let is_known = known.contains(&name.as_str())
                || NAMES_OF_THE_SDK.iter().any(|sdk| name.starts_with(sdk));
            if is_known {
                continue;
            }
            let nearest = known
                .iter()
                .max_by(|a, b| closeness(name, a).total_cmp(&closeness(name, b)));
            let nearest = nearest.copied().unwrap_or_default();
            warnings.push(Warning {
                origin: layer.origin,
                text: format!(
                    "unknown setting {name:?} in {} is ignored; the nearest known one is {nearest}",
                    layer.origin
                ),
            });
        }
    }
    warnings
}

fn closeness(a: &str, b: &str) -> f64 {
    strsim::normalized_damerau_levenshtein(a, b)
}
