//! TLS to Redis: trusted authorities, the client certificate, and messages for failed handshakes.
//!
//! The server is always verified; no setting disables that. Files are read for every connection, so
//! that renewed certificates are used from the next connection on.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use rustls::client::{VerifierBuilderError, WebPkiServerVerifier};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, Error as TlsError, InconsistentKeys,
    RootCertStore,
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::error::os_message;
use crate::redis::connect_error::{ConnectError, ConnectErrorKind};
use crate::settings::tls::{Pem, Tls};

/// Unusable TLS settings.
#[derive(Debug, thiserror::Error)]
enum TlsConfigError {
    #[error("{setting}: cannot read {}: {}", path.display(), os_message(source))]
    Unreadable {
        setting: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{0}: expected certificates in PEM")]
    NotCertificates(&'static str),
    #[error("{0} contains no certificate")]
    NoCertificate(&'static str),
    #[error("TLS_KEY: expected a private key in PEM")]
    NotAKey,
    #[error("TLS_KEY is not the key of the certificate in TLS_CERT")]
    KeyMismatch,
    #[error("TLS_CA: {0}")]
    Authorities(#[source] TlsError),
    #[error("TLS_CA: {0}")]
    Verifier(#[from] VerifierBuilderError),
    #[error("TLS_CERT, TLS_KEY: {0}")]
    ClientCertificate(#[source] TlsError),
    #[error(transparent)]
    Tls(TlsError),
}

/// Performs the TLS handshake with a server whose certificate must be for `host`.
pub(crate) async fn secure(
    stream: TcpStream,
    host: &str,
    settings: &Tls,
) -> Result<TlsStream<TcpStream>, ConnectError> {
    let name = ServerName::try_from(host.to_owned()).map_err(|error| {
        unusable(format!(
            "{host:?} is not a name that a certificate can have"
        ))
        .with_source(error)
    })?;
    let settings = settings.clone();
    // Reads files, and the first time all authorities of the system.
    let config = tokio::task::spawn_blocking(move || config(&settings))
        .await
        .map_err(|error| unusable("the TLS settings cannot be read").with_source(error))?
        .map_err(|error| unusable(error.to_string()).with_source(error))?;
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .map_err(|error| handshake_error(error, host))
}

/// Sends a `PING`, of which the reply does not matter. In TLS 1.3 a server rejects the client's
/// certificate only when the client reads for the first time, and the redis crate would lose the
/// alert.
pub(crate) async fn preflight_ping(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
) -> Result<(), ConnectError> {
    let reply = async {
        stream.write_all(b"*1\r\n$4\r\nPING\r\n").await?;
        stream.flush().await?;
        let mut last = [0; 2];
        while last != *b"\r\n" {
            last = [last[1], stream.read_u8().await?];
        }
        Ok(())
    };
    reply
        .await
        .map_err(|error| handshake_error(error, "the server"))
}

/// The error of a TLS handshake that failed, or that the server aborted.
fn handshake_error(error: io::Error, host: &str) -> ConnectError {
    let tls = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<TlsError>());
    match tls {
        Some(tls) => explain(tls, host).with_source(error),
        None if error.kind() == io::ErrorKind::UnexpectedEof => ConnectError::new(
            ConnectErrorKind::ClosedByPeer,
            "the connection was closed during the TLS handshake",
        ),
        None => ConnectError::io(error),
    }
}

fn unusable(message: impl Into<String>) -> ConnectError {
    ConnectError::new(ConnectErrorKind::InvalidConfig, message)
}

fn explain(error: &TlsError, host: &str) -> ConnectError {
    match error {
        TlsError::InvalidCertificate(certificate) => {
            let (kind, problem) = match certificate {
                CertificateError::UnknownIssuer => (
                    ConnectErrorKind::UnknownIssuer,
                    "is not from an authority that is trusted (TLS_CA, or the system's)".to_owned(),
                ),
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => (
                    ConnectErrorKind::CertificateExpired,
                    "has expired".to_owned(),
                ),
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => (
                    ConnectErrorKind::CertificateExpired,
                    "is not valid yet".to_owned(),
                ),
                CertificateError::NotValidForName
                | CertificateError::NotValidForNameContext { .. } => (
                    ConnectErrorKind::NameMismatch,
                    format!("is not for the name {host}"),
                ),
                other => (
                    ConnectErrorKind::InvalidConfig,
                    format!("is invalid: {other}"),
                ),
            };
            ConnectError::new(kind, format!("the server's certificate {problem}"))
        }
        TlsError::AlertReceived(AlertDescription::CertificateRequired) => {
            unusable("the server requires a client certificate: set TLS_CERT and TLS_KEY")
        }
        TlsError::AlertReceived(alert) => unusable(format!(
            "the server rejects the certificate in TLS_CERT, or the parameters of TLS: {alert:?}"
        )),
        TlsError::InvalidMessage(_) => ConnectError::new(
            ConnectErrorKind::NotTls,
            "the server does not speak TLS there",
        ),
        other => unusable(other.to_string()),
    }
}

fn config(settings: &Tls) -> Result<ClientConfig, TlsConfigError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let roots = match &settings.ca {
        Some(ca) => roots(certificates("TLS_CA", ca)?)?,
        None => system_roots(),
    };
    let verifier =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build()?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsConfigError::Tls)?
        .with_webpki_verifier(verifier);
    let (Some(cert), Some(key)) = (&settings.cert, &settings.key) else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = certificates("TLS_CERT", cert)?;
    let key = PrivateKeyDer::from_pem_slice(&read("TLS_KEY", key)?)
        .map_err(|_| TlsConfigError::NotAKey)?;
    builder
        .with_client_auth_cert(chain, key)
        .map_err(|error| match error {
            TlsError::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                TlsConfigError::KeyMismatch
            }
            other => TlsConfigError::ClientCertificate(other),
        })
}

fn certificates(
    setting: &'static str,
    pem: &Pem,
) -> Result<Vec<CertificateDer<'static>>, TlsConfigError> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&read(setting, pem)?)
        .collect::<Result<_, _>>()
        .map_err(|_| TlsConfigError::NotCertificates(setting))?;
    if certificates.is_empty() {
        return Err(TlsConfigError::NoCertificate(setting));
    }
    Ok(certificates)
}

fn read(setting: &'static str, pem: &Pem) -> Result<Vec<u8>, TlsConfigError> {
    match pem {
        Pem::Text(text) => Ok(text.reveal().as_bytes().to_vec()),
        Pem::File(path) => fs::read(path).map_err(|source| TlsConfigError::Unreadable {
            setting,
            path: path.clone(),
            source,
        }),
    }
}

fn roots(certificates: Vec<CertificateDer<'static>>) -> Result<RootCertStore, TlsConfigError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots
            .add(certificate)
            .map_err(TlsConfigError::Authorities)?;
    }
    Ok(roots)
}

/// The authorities that the system trusts; where the system has no list, the built-in list of
/// Mozilla. Hosts start providers without the environment in which `SSL_CERT_FILE` could be.
fn system_roots() -> RootCertStore {
    static ROOTS: OnceLock<RootCertStore> = OnceLock::new();
    let roots = ROOTS.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        // One malformed certificate among the system's must not cost all of them.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        roots
    });
    roots.clone()
}
