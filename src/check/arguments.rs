//! The arguments of `kvredis check`: a URL, and settings as `NAME=VALUE`.
//!
//! They become the named configuration of a link, which is parsed like that of any link.

use std::collections::HashMap;

use crate::settings::catalog::link_setting_names;
use crate::settings::origin::Origin;
use crate::settings::source::{Layer, Sources};

/// An error on the command line. It shows names only: values can be passwords.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ArgumentError {
    #[error("{name} has no value: use {name}=VALUE")]
    NoValue { name: String },
    #[error("{name} is given more than once")]
    Duplicate { name: String },
}

/// The sources of the settings on this command line.
pub(crate) fn sources(arguments: &[String]) -> Result<Sources, ArgumentError> {
    let mut config: HashMap<String, String> = HashMap::new();
    for argument in arguments {
        let (name, value) = match argument.split_once('=') {
            Some((name, value)) if is_name(name) => (name, value),
            // An argument without a name is the URL, which can contain `=`, too.
            _ if is_setting(argument) => {
                let name = argument.clone();
                return Err(ArgumentError::NoValue { name });
            }
            _ => ("URL", argument.as_str()),
        };
        let is_duplicate = config.keys().any(|known| known.eq_ignore_ascii_case(name));
        if is_duplicate {
            let name = name.to_owned();
            return Err(ArgumentError::Duplicate { name });
        }
        config.insert(name.to_owned(), value.to_owned());
    }
    Ok(Sources::new(
        Layer::empty(Origin::LinkSecrets),
        Layer::config(Origin::LinkConfig, &config),
        Layer::empty(Origin::ProviderSecrets),
        Layer::empty(Origin::ProviderConfig),
    ))
}

fn is_name(text: &str) -> bool {
    let mut characters = text.chars();
    characters
        .next()
        .is_some_and(|first| first.is_ascii_alphabetic())
        && characters
            .all(|character| character.is_ascii_alphanumeric() || "_.-".contains(character))
}

fn is_setting(text: &str) -> bool {
    link_setting_names().any(|name| name.eq_ignore_ascii_case(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::link_settings::Settings;

    fn parse(arguments: &[&str]) -> anyhow::Result<Settings> {
        let arguments: Vec<String> = arguments.iter().map(|&text| text.to_owned()).collect();
        Ok(Settings::parse(&sources(&arguments)?).settings?)
    }

    #[test]
    fn the_url_is_accepted_with_and_without_its_name() {
        let sentinel = "redis-sentinel://h?sentinelServiceName=main";
        for arguments in [&[sentinel][..], &[&format!("url={sentinel}")]] {
            let address = parse(arguments).unwrap().address.to_string();
            assert_eq!(address, "redis-sentinel://h:26379 (service main)");
        }
        let settings = parse(&["redis://h", "PREFIX=a=b", "read_only.orders="]).unwrap();
        assert_eq!(settings.prefix, "a=b");
        assert!(settings.read_only);
    }

    #[test]
    fn errors_do_not_repeat_values() {
        let error = parse(&["redis://u:hunter2@a", "redis://b"]).unwrap_err();
        assert_eq!(error.to_string(), "URL is given more than once");
        let error = parse(&["PASSWORD=hunter2", "password=hunter3"]).unwrap_err();
        assert!(!error.to_string().contains("hunter"), "{error}");
        let error = parse(&["read_only"]).unwrap_err();
        assert!(error.to_string().contains("read_only=VALUE"), "{error}");
        let error = parse(&["10.0.0.7:6379"]).unwrap_err();
        let hint = "did you mean redis://10.0.0.7:6379";
        assert!(error.to_string().contains(hint), "{error}");
    }
}
