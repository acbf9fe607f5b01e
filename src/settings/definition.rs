//! What is known of a setting: an entry of the `table`.

use crate::settings::value::Value;

/// One setting, that of a link or of the provider (`T`).
pub(crate) struct SettingDefinition<T> {
    /// The name, in capitals.
    pub(crate) name: &'static str,
    /// The default in words; see [`Self::default_value`].
    pub(crate) default: &'static str,
    /// What it means.
    pub(crate) meaning: &'static str,
    /// A value that says more than the default does; empty where none is needed.
    pub(crate) example: &'static str,
    /// Whether its value must not be seen by everybody.
    pub(crate) secrecy: Secrecy,
    /// A link with a `URL` of its own does not take the provider's value.
    pub(crate) belongs_to_url: bool,
    /// Whether this text holds a password, and should not be in plain configuration.
    pub(crate) holds_password: fn(&str) -> bool,
    /// How a text becomes a part of the settings.
    pub(crate) value: Value<T>,
}

/// Whether a value must not be seen by everybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Secrecy {
    /// Anybody may see it.
    Public,
    /// It may hold a password.
    MayHoldPassword,
    /// It is a secret.
    Secret,
}

/// Defaults that are no values.
const NO_VALUES: [&str; 4] = ["", "none", "any", "system roots"];

impl<T> SettingDefinition<T> {
    /// The default, if it is a value that could be set.
    pub(crate) fn default_value(&self) -> Option<&'static str> {
        (!NO_VALUES.contains(&self.default)).then_some(self.default)
    }

    /// An entry without the rarer parts; they follow as struct update.
    pub(crate) const fn new(
        name: &'static str,
        default: &'static str,
        meaning: &'static str,
        value: Value<T>,
    ) -> Self {
        Self {
            name,
            default,
            meaning,
            example: "",
            secrecy: Secrecy::Public,
            belongs_to_url: false,
            holds_password: |_| false,
            value,
        }
    }
}
