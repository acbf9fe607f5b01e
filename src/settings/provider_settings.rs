//! The settings of the provider's process as typed values, with their defaults.

const MAX_BYTES_IN_FLIGHT: usize = 256 << 20;

/// The settings of the process, which all its links share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProviderSettings {
    /// `MAX_BYTES_IN_FLIGHT`.
    pub(crate) max_bytes_in_flight: usize,
}

impl Default for ProviderSettings {
    fn default() -> Self {
        Self {
            max_bytes_in_flight: MAX_BYTES_IN_FLIGHT,
        }
    }
}
