//! What the host says on standard input when it starts the provider.
//!
//! One line of base64 with the SDK's [`HostData`] in JSON. The SDK's own reader prints all of it,
//! secrets included, when it cannot parse it; this one says where it stopped and repeats nothing.

use std::collections::HashMap;
use std::io::{self, BufRead};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nkeys::XKey;
use wasmcloud_provider_sdk::HostData;
use wasmcloud_provider_sdk::core::secrets::SecretValue;

/// More than any host sends: its links and their configuration.
const LONGEST: u64 = 256 << 20;

/// Why there is no host data.
#[derive(Debug)]
pub(crate) enum HostDataError {
    /// Nobody sent anything: the provider was started by hand.
    Nothing,
    /// Standard input cannot be read.
    Unreadable(io::Error),
    /// What was sent is no host data.
    Malformed(String),
}

/// Opens the secrets of links, which the host seals for this provider.
#[derive(Debug)]
pub(crate) struct SecretDecryptor {
    keys: Option<(XKey, XKey)>,
}

/// Reads the line that the host sends.
///
/// # Errors
///
/// There is none, or it is not what hosts send.
pub(crate) fn read(input: impl BufRead) -> Result<HostData, HostDataError> {
    let mut line = String::new();
    input
        .take(LONGEST)
        .read_line(&mut line)
        .map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => HostDataError::Malformed("it is no text".to_owned()),
            _ => HostDataError::Unreadable(error),
        })?;
    let line = line.trim();
    if line.is_empty() {
        return Err(HostDataError::Nothing);
    }
    let json = STANDARD
        .decode(line)
        .map_err(|_| HostDataError::Malformed("it is not base64".to_owned()))?;
    serde_json::from_slice(&json).map_err(|error| {
        // The error's own text may repeat what it stumbled over.
        let what = match error.classify() {
            serde_json::error::Category::Data => "has not the fields that are expected",
            _ => "is no JSON",
        };
        HostDataError::Malformed(format!(
            "after base64 it {what} (at byte {})",
            error.column()
        ))
    })
}

impl SecretDecryptor {
    /// The keys of this host data.
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

    /// The public key that names this process to the host: links are put for it alone.
    pub(crate) fn public_key(&self) -> Option<String> {
        self.keys.as_ref().map(|(own, _)| own.public_key())
    }

    /// Opens what the host sealed.
    ///
    /// # Errors
    ///
    /// It was sealed for somebody else, or is malformed.
    pub(crate) fn open(
        &self,
        sealed: Option<&[u8]>,
    ) -> Result<HashMap<String, SecretValue>, String> {
        let Some(sealed) = sealed.filter(|sealed| !sealed.is_empty()) else {
            return Ok(HashMap::new());
        };
        let Some((own, host)) = &self.keys else {
            return Err("the host gave this provider no keys to open secrets with".to_owned());
        };
        let json = own
            .open(sealed, host)
            .map_err(|_| "they are not sealed for this provider by its host".to_owned())?;
        serde_json::from_slice(&json)
            .map_err(|_| "they are not the JSON that hosts seal".to_owned())
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
    fn a_host_is_understood() {
        let json = serde_json::to_string(&HostData {
            host_id: "N".to_owned(),
            ..HostData::default()
        })
        .unwrap();
        let line = format!("{}\r\n", STANDARD.encode(json));
        assert_eq!(read(line.as_bytes()).unwrap().host_id, "N");
    }

    #[test]
    fn nothing_is_nothing() {
        for nothing in ["", "\n", " \r\n"] {
            assert!(matches!(
                read(nothing.as_bytes()),
                Err(HostDataError::Nothing)
            ));
        }
    }

    #[test]
    fn malformed_input_is_not_repeated() {
        assert_eq!(malformed("hunter2!"), "it is not base64");
        let no_json = malformed(&STANDARD.encode("hunter2"));
        assert!(
            no_json.contains("no JSON") && !no_json.contains("hunter2"),
            "{no_json}"
        );
        let other_json = malformed(&STANDARD.encode(r#"{"config": "hunter2"}"#));
        assert!(
            other_json.contains("fields") && !other_json.contains("hunter2"),
            "{other_json}"
        );
    }

    #[test]
    fn secrets_are_opened_by_whom_they_are_for() {
        let (host, provider) = (XKey::new(), XKey::new());
        let opener = SecretDecryptor::new(&HostData {
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
        let sealed = host.seal(&json, &provider).unwrap();
        let opened = opener.open(Some(&sealed)).unwrap();
        assert_eq!(opened["URL"].as_string(), Some("redis://h"));
        assert!(opener.open(None).unwrap().is_empty());
        let for_another = host.seal(&json, &XKey::new()).unwrap();
        assert!(opener.open(Some(&for_another)).is_err());
        let no_keys = SecretDecryptor::new(&HostData::default()).unwrap();
        assert!(no_keys.open(Some(&sealed)).is_err());
    }
}
