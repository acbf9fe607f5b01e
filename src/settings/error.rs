//! Errors and warnings about settings. None of them shows a secret, in any form.

use std::fmt;

use crate::error::Error;
use crate::settings::origin::Origin;

/// A setting that makes the link, or the provider, unusable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SettingError {
    #[error("invalid setting {name}{value} in {origin}: {reason}")]
    Invalid {
        name: &'static str,
        value: ShownValue,
        origin: Origin,
        reason: InvalidValue,
    },
    #[error("invalid setting {name} in {origin}: expected text in UTF-8")]
    NotUtf8 { name: &'static str, origin: Origin },
    #[error("invalid setting {name}: missing; {reason}")]
    Missing { name: &'static str, reason: String },
    /// The value is valid, but not together with others.
    #[error("invalid setting {setting}: {reason}")]
    Conflict {
        /// The name, and the value where the reason needs it.
        setting: String,
        reason: String,
    },
}

impl SettingError {
    pub(crate) fn missing(name: &'static str, reason: impl Into<String>) -> Self {
        Self::Missing {
            name,
            reason: reason.into(),
        }
    }

    pub(crate) fn conflict(setting: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Conflict {
            setting: setting.into(),
            reason: reason.into(),
        }
    }
}

/// The reply to each call over a link that has such a setting.
impl From<SettingError> for Error {
    fn from(error: SettingError) -> Self {
        Self::other(error.to_string()).with_source(error)
    }
}

/// An invalid value as an error shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ShownValue {
    /// Without credentials.
    Public(String),
    Secret,
}

impl fmt::Display for ShownValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Public(value) => write!(f, "={value:?}"),
            Self::Secret => f.write_str(" (value not shown: it may be secret)"),
        }
    }
}

/// The reason why a parser rejects a value.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}{}", Suffix(.hint.as_deref()))]
pub(crate) struct InvalidValue {
    expected: String,
    /// May repeat the value.
    hint: Option<String>,
}

impl InvalidValue {
    /// The description of valid values.
    pub(crate) fn expected(description: impl Into<String>) -> Self {
        Self {
            expected: description.into(),
            hint: None,
        }
    }

    /// Adds a hint that may repeat the value; it is removed where the value is secret.
    pub(crate) fn with_hint(mut self, hint: String) -> Self {
        self.hint = Some(hint);
        self
    }

    pub(crate) fn without_hint(mut self) -> Self {
        self.hint = None;
        self
    }
}

/// Without the hint: a parser does not know yet whether the value is secret.
impl fmt::Debug for InvalidValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InvalidValue")
            .field("expected", &self.expected)
            .finish_non_exhaustive()
    }
}

struct Suffix<'a>(Option<&'a str>);

impl fmt::Display for Suffix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |hint| write!(f, "; {hint}"))
    }
}

/// A setting that works, and needs the operator's attention.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConfigWarning {
    pub(crate) origin: Origin,
    pub(crate) message: String,
}
