//! Certificates and keys for TLS, as they are configured: texts, or paths of files that `redis` reads
//! at every connect.

use std::path::PathBuf;

use crate::settings::secret::Secret;

/// Certificates or a key in PEM.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Pem {
    Text(Secret),
    /// The absolute path of a file.
    File(PathBuf),
}

/// The settings of TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Tls {
    /// The trusted certificate authorities; `None` stands for those of the system.
    pub(crate) ca: Option<Pem>,
    /// The client certificate.
    pub(crate) cert: Option<Pem>,
    /// The private key of the client certificate.
    pub(crate) key: Option<Pem>,
}
