//! The definition of one setting; `definitions` has one of each.

use crate::settings::value_parser::ValueParser;

/// A setting of a link or of the provider (`T` are their typed settings).
pub(crate) struct SettingDefinition<T> {
    /// The name, in capitals.
    pub(crate) name: &'static str,
    /// The default in words; see [`Self::default_value`].
    pub(crate) default: &'static str,
    pub(crate) meaning: &'static str,
    /// A value that shows more than the default does; empty where none is needed.
    pub(crate) example: &'static str,
    pub(crate) secrecy: Secrecy,
    /// A link with its own `URL` does not inherit the provider's value.
    pub(crate) belongs_to_url: bool,
    /// Returns true if this text contains a password, and must not be in plain configuration.
    pub(crate) contains_password: fn(&str) -> bool,
    /// Errors may show an invalid value, if it contains nothing that looks like a secret.
    pub(crate) shows_invalid: bool,
    pub(crate) parser: ValueParser<T>,
}

/// The secrecy of a setting's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Secrecy {
    Public,
    MayContainPassword,
    Secret,
}

/// Defaults that describe the absence of a value.
const NO_VALUE: [&str; 5] = ["", "none", "any", "system roots", "the call's time"];

impl<T> SettingDefinition<T> {
    /// The default, if it is a value that can be set.
    pub(crate) fn default_value(&self) -> Option<&'static str> {
        (!NO_VALUE.contains(&self.default)).then_some(self.default)
    }

    /// A definition without the rarer fields, which follow with struct update syntax.
    pub(crate) const fn new(
        name: &'static str,
        default: &'static str,
        meaning: &'static str,
        parser: ValueParser<T>,
    ) -> Self {
        Self {
            name,
            default,
            meaning,
            example: "",
            secrecy: Secrecy::Public,
            belongs_to_url: false,
            contains_password: |_| false,
            shows_invalid: true,
            parser,
        }
    }
}
