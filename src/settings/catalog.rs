//! All settings, those of links and those of the provider, as `render` and `schema` describe them.

use crate::settings::definition::{Secrecy, SettingDefinition};
use crate::settings::definitions::{LINK_SETTINGS, PROVIDER_SETTINGS};

/// The configuration that a setting belongs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// A link's; in the provider's own it is the default of all links.
    Link,
    /// The provider's own only.
    Provider,
}

impl Scope {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Link => "link",
            Self::Provider => "provider",
        }
    }
}

/// The description of a setting of either scope.
#[derive(Debug)]
pub(crate) struct SettingInfo {
    /// The name, in capitals.
    pub(crate) name: &'static str,
    /// The default in words; empty where there is none.
    pub(crate) default: &'static str,
    /// The default, if it is a value that can be set.
    pub(crate) default_value: Option<&'static str>,
    pub(crate) meaning: &'static str,
    /// A value that shows more than the default does; empty where none is needed.
    pub(crate) example: &'static str,
    pub(crate) secrecy: Secrecy,
    pub(crate) scope: Scope,
    /// A regular expression for the accepted texts; `None` if all are.
    pub(crate) pattern: Option<String>,
    /// The words of a choice.
    pub(crate) words: &'static [&'static str],
}

impl SettingInfo {
    fn new<T>(definition: &SettingDefinition<T>, scope: Scope) -> Self {
        Self {
            name: definition.name,
            default: definition.default,
            default_value: definition.default_value(),
            meaning: definition.meaning,
            example: definition.example,
            secrecy: definition.secrecy,
            scope,
            pattern: definition.parser.pattern(),
            words: definition.parser.words(),
        }
    }

    /// A value that can be set; `None` where no value should be written down.
    pub(crate) fn any_example(&self) -> Option<&'static str> {
        Some(self.example)
            .filter(|example| !example.is_empty())
            .or(self.default_value)
    }
}

/// Every setting, in the order of the documentation.
pub(crate) fn all() -> Vec<SettingInfo> {
    let of_links = LINK_SETTINGS
        .iter()
        .map(|definition| SettingInfo::new(definition, Scope::Link));
    let of_provider = PROVIDER_SETTINGS
        .iter()
        .map(|definition| SettingInfo::new(definition, Scope::Provider));
    of_links.chain(of_provider).collect()
}

/// The names of all settings of a link.
pub(crate) fn link_setting_names() -> impl Iterator<Item = &'static str> {
    LINK_SETTINGS.iter().map(|definition| definition.name)
}

/// The names of all settings, those of links first.
pub(crate) fn setting_names() -> impl Iterator<Item = &'static str> {
    link_setting_names().chain(PROVIDER_SETTINGS.iter().map(|definition| definition.name))
}
