//! The words behind `kvredis check`: a URL, and settings as `NAME=VALUE`.
//!
//! They are taken as the named configuration of a link, and read by the same code.

use std::collections::HashMap;

use crate::settings::definitions::LINK_SETTINGS;
use crate::settings::source::{Layer, Origin, Sources};

/// What a link's settings are read from.
///
/// # Errors
///
/// What is wrong with the command line, without values.
pub(crate) fn sources(words: &[String]) -> Result<Sources, String> {
    let mut config: HashMap<String, String> = HashMap::new();
    for word in words {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) if is_name(name) => (name, value),
            // What has no name is the URL; an address may have `=` in it, too.
            _ if is_setting(word) => return Err(format!("{word} has no value: {word}=VALUE")),
            _ => ("URL", word.as_str()),
        };
        let known = config.keys().any(|known| known.eq_ignore_ascii_case(name));
        if known {
            return Err(format!("{name} is given more than once"));
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

fn is_setting(word: &str) -> bool {
    let mut settings = LINK_SETTINGS.iter();
    settings.any(|setting| setting.name.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    fn read(words: &[&str]) -> Result<Settings, String> {
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        sources(&words).and_then(|sources| Settings::read(&sources).settings)
    }

    #[test]
    fn a_url_may_stand_alone_or_have_its_name() {
        let sentinel = "redis-sentinel://h?sentinelServiceName=main";
        for words in [&[sentinel][..], &[&format!("url={sentinel}")]] {
            let address = read(words).unwrap().address.to_string();
            assert_eq!(address, "redis-sentinel://h:26379 (service main)");
        }
        let settings = read(&["redis://h", "PREFIX=a=b", "read_only.orders="]).unwrap();
        assert_eq!(settings.prefix, "a=b");
        assert!(settings.read_only);
    }

    #[test]
    fn wrong_command_lines_are_not_repeated_with_their_values() {
        let error = read(&["redis://u:hunter2@a", "redis://b"]).unwrap_err();
        assert_eq!(error, "URL is given more than once");
        let error = read(&["PASSWORD=hunter2", "password=hunter3"]).unwrap_err();
        assert!(!error.contains("hunter"), "{error}");
        assert!(
            read(&["read_only"])
                .unwrap_err()
                .contains("read_only=VALUE")
        );
        let error = read(&["10.0.0.7:6379"]).unwrap_err();
        assert!(
            error.contains("did you mean redis://10.0.0.7:6379"),
            "{error}"
        );
    }
}
