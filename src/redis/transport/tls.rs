//! TLS to Redis: whom to trust, what to show, and in words why it did not come about.
//!
//! The peer is always verified; nothing here can be told not to. Files are read for every
//! connection, so that renewed certificates are used from the next one on.

use std::fs;
use std::io;
use std::sync::{Arc, OnceLock};

use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, Error as TlsError, InconsistentKeys,
    RootCertStore,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::error::os_message;
use crate::redis::connect_error::{ConnectError, ConnectErrorKind};
use crate::redis::transport;
use crate::settings::tls::{Pem, Tls};

/// Speaks TLS with the server at the other end, which must be `host`.
///
/// # Errors
///
/// The files cannot be used, the server is not whom it should be, or it wants somebody else.
pub(crate) async fn secure(
    stream: TcpStream,
    host: &str,
    settings: &Tls,
) -> Result<TlsStream<TcpStream>, ConnectError> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| unusable(format!("{host:?} is no name that a certificate can have")))?;
    let settings = settings.clone();
    // Files are read, and the first time all authorities of the system.
    let config = tokio::task::spawn_blocking(move || config(&settings))
        .await
        .map_err(|_| unusable("the TLS settings cannot be read".to_owned()))?
        .map_err(unusable)?;
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .map_err(|error| in_words(error, host))
}

/// Why a secure connection was not established, or was ended by the server.
pub(crate) fn in_words(error: io::Error, host: &str) -> ConnectError {
    let tls = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<TlsError>());
    match tls {
        Some(error) => explain(error, host),
        None if error.kind() == io::ErrorKind::UnexpectedEof => ConnectError::new(
            ConnectErrorKind::ClosedByPeer,
            "the connection was closed while TLS began",
        ),
        None => transport::unreachable(error),
    }
}

fn unusable(words: String) -> ConnectError {
    ConnectError::new(ConnectErrorKind::InvalidConfig, words)
}

fn explain(error: &TlsError, host: &str) -> ConnectError {
    match error {
        TlsError::InvalidCertificate(certificate) => {
            let (cause, what) = match certificate {
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
            ConnectError::new(cause, format!("the server's certificate {what}"))
        }
        TlsError::AlertReceived(AlertDescription::CertificateRequired) => {
            unusable("the server wants a client's certificate: set TLS_CERT and TLS_KEY".to_owned())
        }
        TlsError::AlertReceived(alert) => unusable(format!(
            "the server does not take the certificate in TLS_CERT, or the way of speaking TLS: \
             {alert:?}"
        )),
        TlsError::InvalidMessage(_) => ConnectError::new(
            ConnectErrorKind::NotTls,
            "the server does not speak TLS there",
        ),
        other => unusable(other.to_string()),
    }
}

fn config(settings: &Tls) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let roots = match &settings.ca {
        Some(ca) => roots(certificates("TLS_CA", ca)?)?,
        None => system_roots(),
    };
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|error| format!("TLS_CA: {error}"))?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_webpki_verifier(verifier);
    let (Some(cert), Some(key)) = (&settings.cert, &settings.key) else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = certificates("TLS_CERT", cert)?;
    let key = PrivateKeyDer::from_pem_slice(&read("TLS_KEY", key)?)
        .map_err(|_| "TLS_KEY: expected a private key in PEM".to_owned())?;
    builder
        .with_client_auth_cert(chain, key)
        .map_err(|error| match error {
            TlsError::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                "TLS_KEY is not the key of the certificate in TLS_CERT".to_owned()
            }
            other => format!("TLS_CERT, TLS_KEY: {other}"),
        })
}

fn certificates(name: &str, pem: &Pem) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&read(name, pem)?)
        .collect::<Result<_, _>>()
        .map_err(|_| format!("{name}: expected certificates in PEM"))?;
    if certificates.is_empty() {
        return Err(format!("{name}: there is no certificate in it"));
    }
    Ok(certificates)
}

fn read(name: &str, pem: &Pem) -> Result<Vec<u8>, String> {
    match pem {
        Pem::Text(text) => Ok(text.reveal().as_bytes().to_vec()),
        Pem::File(path) => fs::read(path).map_err(|error| {
            format!(
                "{name}: cannot read {}: {}",
                path.display(),
                os_message(&error)
            )
        }),
    }
}

fn roots(certificates: Vec<CertificateDer<'static>>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots
            .add(certificate)
            .map_err(|error| format!("TLS_CA: {error}"))?;
    }
    Ok(roots)
}

/// Whom the system trusts; where it has no list, that of Mozilla which is built in. Hosts start
/// providers without the environment in which `SSL_CERT_FILE` could be.
fn system_roots() -> RootCertStore {
    static ROOTS: OnceLock<RootCertStore> = OnceLock::new();
    let roots = ROOTS.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        // One bad certificate among the system's must not cost all of them.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        roots
    });
    roots.clone()
}
