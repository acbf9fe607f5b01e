//! The host data, which the host passes on standard input, and the secrets that it encrypts.
//!
//! The host data is one line of base64 with the SDK's [`HostData`] in JSON. The SDK's own reader
//! (`load_host_data` in `provider.rs` of wasmcloud-provider-sdk 0.17) prints all of it, secrets
//! included, when it cannot parse it; this one reports the position only.

use std::collections::HashMap;
use std::io::{self, BufRead};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nkeys::XKey;
use wasmcloud_provider_sdk::HostData;
use wasmcloud_provider_sdk::core::secrets::SecretValue;

/// A limit that the links and configuration of no host exceed.
const MAX_LENGTH: u64 = 256 << 20;

#[derive(Debug, thiserror::Error)]
pub(crate) enum HostDataError {
    /// Standard input is empty: the provider was not started by a host.
    #[error("no host data on standard input")]
    Missing,
    #[error("cannot read the host data from standard input: {0}")]
    Io(#[from] io::Error),
    #[error("standard input is not host data: {0}")]
    Malformed(String),
}

/// The reason why secrets cannot be decrypted. No error repeats them.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DecryptError {
    #[error("the host data has no keys for the decryption of secrets")]
    NoKeys,
    #[error("they are not encrypted for this provider by its host")]
    WrongKeys,
    #[error("they are not the JSON that hosts encrypt")]
    Malformed,
}

/// Decrypts the secrets of links, which the host encrypts for this provider.
#[derive(Debug)]
pub(crate) struct SecretDecryptor {
    keys: Option<(XKey, XKey)>,
}

/// Reads the host data.
///
/// # Errors
///
/// See [`HostDataError`].
pub(crate) fn read(input: impl BufRead) -> Result<HostData, HostDataError> {
    let mut line = String::new();
    input
        .take(MAX_LENGTH)
        .read_line(&mut line)
        .map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => HostDataError::Malformed("it is not text".to_owned()),
            _ => HostDataError::Io(error),
        })?;
    let line = line.trim();
    if line.is_empty() {
        return Err(HostDataError::Missing);
    }
    let json = STANDARD
        .decode(line)
        .map_err(|_| HostDataError::Malformed("it is not base64".to_owned()))?;
    serde_json::from_slice(&json).map_err(|error| {
        // The error's own text may repeat a secret.
        let defect = match error.classify() {
            serde_json::error::Category::Data => "lacks the expected fields",
            _ => "is not JSON",
        };
        HostDataError::Malformed(format!(
            "decoded from base64, it {defect} (at byte {})",
            error.column()
        ))
    })
}

impl SecretDecryptor {
    /// A decryptor with the keys of this host data.
    ///
    /// # Errors
    ///
    /// A key is malformed.
    pub(crate) fn new(host_data: &HostData) -> Result<Self, nkeys::error::Error> {
        let host = &host_data.host_xkey_public_key;
        let provider = &host_data.provider_xkey_private_key;
        if host.is_empty() || provider.is_empty() {
            return Ok(Self { keys: None });
        }
        let keys = (XKey::from_seed(provider)?, XKey::from_public_key(host)?);
        Ok(Self { keys: Some(keys) })
    }

    /// The public key that identifies this process to the host, which sends links to it alone.
    pub(crate) fn public_key(&self) -> Option<String> {
        self.keys.as_ref().map(|(own, _)| own.public_key())
    }

    /// Decrypts the secrets of a link; there are none if `encrypted` is empty.
    ///
    /// # Errors
    ///
    /// See [`DecryptError`].
    pub(crate) fn decrypt(
        &self,
        encrypted: Option<&[u8]>,
    ) -> Result<HashMap<String, SecretValue>, DecryptError> {
        let Some(encrypted) = encrypted.filter(|bytes| !bytes.is_empty()) else {
            return Ok(HashMap::new());
        };
        let (own, host) = self.keys.as_ref().ok_or(DecryptError::NoKeys)?;
        let json = own
            .open(encrypted, host)
            .map_err(|_| DecryptError::WrongKeys)?;
        serde_json::from_slice(&json).map_err(|_| DecryptError::Malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn malformed(input: &str) -> String {
        match read(input.as_bytes()) {
            Err(HostDataError::Malformed(what)) => what,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn host_data_is_decoded() {
        let json = serde_json::to_string(&HostData {
            host_id: "N".to_owned(),
            ..HostData::default()
        })
        .unwrap();
        let line = format!("{}\r\n", STANDARD.encode(json));
        assert_eq!(read(line.as_bytes()).unwrap().host_id, "N");
    }

    #[test]
    fn empty_stdin_is_missing_host_data() {
        for empty in ["", "\n", " \r\n"] {
            assert!(matches!(
                read(empty.as_bytes()),
                Err(HostDataError::Missing)
            ));
        }
    }

    #[test]
    fn malformed_input_is_not_repeated() {
        assert_eq!(malformed("hunter2!"), "it is not base64");
        let no_json = malformed(&STANDARD.encode("hunter2"));
        assert!(
            no_json.contains("not JSON") && !no_json.contains("hunter2"),
            "{no_json}"
        );
        let other_json = malformed(&STANDARD.encode(r#"{"config": "hunter2"}"#));
        assert!(
            other_json.contains("fields") && !other_json.contains("hunter2"),
            "{other_json}"
        );
    }

    #[test]
    fn secrets_are_decrypted_only_with_the_keys_that_they_are_encrypted_for() {
        let (host, provider) = (XKey::new(), XKey::new());
        let decryptor = SecretDecryptor::new(&HostData {
            host_xkey_public_key: host.public_key(),
            provider_xkey_private_key: provider.seed().unwrap(),
            ..HostData::default()
        })
        .unwrap();
        let secrets = HashMap::from([(
            "URL".to_owned(),
            SecretValue::String("redis://h".to_owned()),
        )]);
        let json = serde_json::to_vec(&secrets).unwrap();
        let encrypted = host.seal(&json, &provider).unwrap();
        let decrypted = decryptor.decrypt(Some(&encrypted)).unwrap();
        assert_eq!(decrypted["URL"].as_string(), Some("redis://h"));
        assert!(decryptor.decrypt(None).unwrap().is_empty());
        let for_another = host.seal(&json, &XKey::new()).unwrap();
        assert_eq!(
            decryptor.decrypt(Some(&for_another)).unwrap_err(),
            DecryptError::WrongKeys
        );
        let no_keys = SecretDecryptor::new(&HostData::default()).unwrap();
        assert_eq!(
            no_keys.decrypt(Some(&encrypted)).unwrap_err(),
            DecryptError::NoKeys
        );
    }
}
