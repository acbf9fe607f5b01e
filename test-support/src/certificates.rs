//! Certificates made for a test: certificate authorities, signed certificates, and their files.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
};
use tempfile::TempDir;

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A certificate authority (CA).
pub struct CertificateAuthority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

/// A certificate and its key, in files.
pub struct Certificate {
    /// The path of the certificate file.
    pub cert: String,
    /// The path of the key file.
    pub key: String,
}

impl CertificateAuthority {
    /// A new self-signed CA that is in no trust store yet.
    pub fn generate() -> Self {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            // Clients find an issuer by its name; with equal names the mismatch would show only in the
            // signature.
            .push(
                DnType::CommonName,
                format!("authority {}", COUNT.fetch_add(1, Ordering::Relaxed)),
            );
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self {
            issuer: CertifiedIssuer::self_signed(params, key).expect("a certificate"),
            folder: TempDir::new().expect("a temporary folder"),
        }
    }

    /// The CA's own certificate in PEM.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// Writes the CA's own certificate to a file and returns the path.
    pub fn file(&self) -> String {
        self.write("ca.pem", &self.pem())
    }

    /// Signs a certificate for these names.
    pub fn sign(&self, names: &[&str]) -> Certificate {
        self.sign_until(names, (2099, 1, 1))
    }

    /// Signs a certificate that is valid until this day.
    pub fn sign_until(&self, names: &[&str], (year, month, day): (i32, u8, u8)) -> Certificate {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let label = format!("{}-{year}", names.join("-").replace(['.', ':'], "_"));
        let mut params = CertificateParams::new(names).expect("names");
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(year, month, day);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a signature");
        Certificate {
            cert: self.write(&format!("{label}.crt"), &certificate.pem()),
            key: self.write(&format!("{label}.key"), &key.serialize_pem()),
        }
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path: PathBuf = self.folder.path().join(name);
        fs::write(&path, text).expect("a file");
        path.to_str().expect("a path in UTF-8").to_owned()
    }
}
