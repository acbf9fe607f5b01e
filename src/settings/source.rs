//! The sources of settings: a link's secrets and configuration, then the provider's.
//!
//! Names match in any case, `NAME.anything` reads as `NAME`, and the first source that has a name
//! wins.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use wasmcloud_provider_sdk::core::secrets::SecretValue;

use crate::settings::origin::Origin;
use crate::settings::redaction;

/// The values of one origin, by the name of the setting.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Layer {
    origin: Origin,
    /// By name in capitals without `.anything`; `None` stands for bytes that are not UTF-8.
    values: BTreeMap<String, Option<String>>,
}

/// A value and its origin.
pub(crate) struct SourcedValue<'a> {
    pub(crate) origin: Origin,
    pub(crate) text: Option<&'a str>,
}

/// The sources of a link's settings, in the order of precedence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sources {
    layers: [Layer; 4],
}

impl Layer {
    /// Named configuration as the host sends it.
    pub(crate) fn config(origin: Origin, values: &HashMap<String, String>) -> Self {
        let texts = values.iter().map(|(name, text)| (name, Some(text.clone())));
        Self::new(origin, texts)
    }

    /// Decrypted secrets as the host sends them, text or bytes.
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

    pub(crate) fn empty(origin: Origin) -> Self {
        Self {
            origin,
            values: BTreeMap::new(),
        }
    }

    fn new<'a>(origin: Origin, values: impl Iterator<Item = (&'a String, Option<String>)>) -> Self {
        // The plain name takes precedence, then the first qualified one in alphabetical order.
        let sorted: BTreeMap<(bool, &String), Option<String>> = values
            .map(|(name, text)| ((name.contains('.'), name), text))
            .collect();
        let mut layer = Self::empty(origin);
        for ((_, qualified), text) in sorted {
            let name = qualified.split('.').next().unwrap_or_default();
            layer
                .values
                .entry(name.to_ascii_uppercase())
                .or_insert(text);
        }
        layer
    }

    pub(crate) fn origin(&self) -> Origin {
        self.origin
    }

    /// The names of all values, in capitals.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }

    fn find(&self, name: &str) -> Option<SourcedValue<'_>> {
        self.values.get(name).map(|text| SourcedValue {
            origin: self.origin,
            text: text.as_deref(),
        })
    }
}

/// Names only: a value may be secret, even in plain configuration.
impl fmt::Debug for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        let names = self.names().map(redaction::name);
        f.debug_set().entries(names).finish()
    }
}

impl Sources {
    /// The sources of a link; the provider's own settings have two empty layers for the link.
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

    pub(crate) fn find(&self, name: &str) -> Option<SourcedValue<'_>> {
        self.layers.iter().find_map(|layer| layer.find(name))
    }

    /// The value from the link itself, not from the provider.
    pub(crate) fn find_own(&self, name: &str) -> Option<SourcedValue<'_>> {
        self.link().iter().find_map(|layer| layer.find(name))
    }
}
