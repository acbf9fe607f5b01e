//! The four places that a value can come from.

use std::fmt;

/// The place that a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    LinkSecrets,
    LinkConfig,
    ProviderSecrets,
    ProviderConfig,
}

impl Origin {
    /// Returns true if values from here must not be shown.
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
