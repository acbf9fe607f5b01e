//! What is known of a setting: an entry of the `table`.

use super::value::Value;

/// One setting, that of a link or of the provider (`T`).
pub struct Definition<T> {
    /// The name, in capitals.
    pub name: &'static str,
    /// The default in words; see [`Self::default_value`].
    pub default: &'static str,
    /// What it means.
    pub meaning: &'static str,
    /// A value that says more than the default does; empty where none is needed.
    pub example: &'static str,
    /// Whether its value must not be seen by everybody.
    pub secrecy: Secrecy,
    /// A link with a `URL` of its own does not take the provider's value.
    pub belongs_to_url: bool,
    /// Whether this text holds a password, and should not be in plain configuration.
    pub(super) holds_password: fn(&str) -> bool,
    /// How a text becomes a part of the settings.
    pub(super) value: Value<T>,
}

/// Whether a value must not be seen by everybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secrecy {
    /// Anybody may see it.
    Open,
    /// It may hold a password.
    MayHoldPassword,
    /// It is a secret.
    Secret,
}

/// Defaults that are no values.
const NO_VALUES: [&str; 4] = ["", "none", "any", "system roots"];

impl<T> Definition<T> {
    /// The default, if it is a value that could be set.
    pub fn default_value(&self) -> Option<&'static str> {
        (!NO_VALUES.contains(&self.default)).then_some(self.default)
    }

    /// An entry without the rarer parts; they follow as struct update.
    pub(super) const fn new(
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
            secrecy: Secrecy::Open,
            belongs_to_url: false,
            holds_password: |_| false,
            value,
        }
    }
}
