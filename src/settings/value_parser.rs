//! The parsers of the settings' texts, each with the pattern of the texts that it accepts.
//!
//! Parser and pattern stand side by side so that `kvredis check` and the JSON schema agree.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::settings::error::InvalidValue;
use crate::settings::patterns::{any_case, numbers};
use crate::settings::secret::Secret;
use crate::settings::tls::Pem;

/// A parser of one setting's text, which it stores in the settings `T`.
pub(crate) enum ValueParser<T> {
    /// `true`, `false`, `1` or `0`; present but empty is true.
    Boolean(fn(&mut T, bool)),
    /// A whole number within limits.
    Number {
        min: u64,
        max: u64,
        set: fn(&mut T, u64),
    },
    /// A duration of at least 1 ms.
    Milliseconds { max: u64, set: fn(&mut T, Duration) },
    /// One of these words, in any case.
    Choice {
        words: &'static [&'static str],
        set: fn(&mut T, &str),
    },
    /// The absolute path of a file.
    File(fn(&mut T, PathBuf)),
    /// Certificates or a key in PEM, or the absolute path of a file with them.
    Pem(fn(&mut T, Pem)),
    /// Any text.
    AnyText(fn(&mut T, &str)),
    /// A text with a parser of its own, which may return a warning.
    Text {
        /// A regular expression (ECMA-262) for the accepted texts.
        pattern: &'static str,
        parse: fn(&mut T, &str) -> Result<Option<String>, InvalidValue>,
    },
}

impl<T> ValueParser<T> {
    /// Parses a text into the settings; returns a warning, if there is one.
    pub(crate) fn parse(
        &self,
        settings: &mut T,
        text: &str,
    ) -> Result<Option<String>, InvalidValue> {
        match self {
            Self::Boolean(set) => set(settings, boolean(text)?),
            Self::Number { min, max, set } => set(settings, number(text, *min, *max)?),
            Self::Milliseconds { max, set } => set(settings, milliseconds(text, *max)?),
            Self::Choice { words, set } => set(settings, choice(text, words)?),
            Self::File(set) => set(settings, absolute_path(text)?),
            Self::Pem(set) => set(settings, pem(text)?),
            Self::AnyText(set) => set(settings, text),
            Self::Text { parse, .. } => return parse(settings, text),
        }
        Ok(None)
    }

    /// A regular expression (ECMA-262) for the accepted texts; `None` if all are.
    pub(crate) fn pattern(&self) -> Option<String> {
        Some(match self {
            Self::Boolean(_) => format!(r"^\s*({})?\s*$", any_case(&["true", "false", "1", "0"])),
            Self::Number { min, max, .. } => numbers(*min, *max),
            Self::Milliseconds { max, .. } => numbers(1, *max),
            Self::Choice { words, .. } => format!(r"^\s*({})\s*$", any_case(words)),
            Self::File(_) => r"^\s*/".to_owned(),
            Self::Pem(_) => r"-----BEGIN|^\s*/".to_owned(),
            Self::AnyText(_) => return None,
            Self::Text { pattern, .. } => (*pattern).to_owned(),
        })
    }

    /// The words of a choice; empty for other parsers.
    pub(crate) fn words(&self) -> &'static [&'static str] {
        match self {
            Self::Boolean(_) => &["true", "false"],
            Self::Choice { words, .. } => words,
            _ => &[],
        }
    }
}

fn boolean(text: &str) -> Result<bool, InvalidValue> {
    match text.trim().to_ascii_lowercase().as_str() {
        // A name without a value enables the option, as flags of command lines do.
        "" | "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(InvalidValue::expected("true, false, 1 or 0")),
    }
}

fn number(text: &str, min: u64, max: u64) -> Result<u64, InvalidValue> {
    text.trim()
        .parse()
        .ok()
        .filter(|number| (min..=max).contains(number))
        .ok_or_else(|| InvalidValue::expected(format!("a whole number from {min} to {max}")))
}

fn milliseconds(text: &str, max: u64) -> Result<Duration, InvalidValue> {
    number(text, 1, max)
        .map(Duration::from_millis)
        .map_err(|_| {
            InvalidValue::expected(format!("a whole number of milliseconds from 1 to {max}"))
        })
}

fn choice(text: &str, words: &[&'static str]) -> Result<&'static str, InvalidValue> {
    let given = text.trim();
    let known = words.iter().find(|word| word.eq_ignore_ascii_case(given));
    known.copied().ok_or_else(|| {
        let (last, others) = words.split_last().unwrap_or((&"", &[]));
        InvalidValue::expected(format!("{} or {last}", others.join(", ")))
    })
}

fn absolute_path(text: &str) -> Result<PathBuf, InvalidValue> {
    let path = Path::new(text.trim());
    if path.is_absolute() {
        Ok(path.to_owned())
    } else {
        Err(InvalidValue::expected("an absolute path"))
    }
}

fn pem(text: &str) -> Result<Pem, InvalidValue> {
    if text.contains("-----BEGIN") {
        return Ok(Pem::Text(Secret::from(text.to_owned())));
    }
    absolute_path(text).map(Pem::File).map_err(|_| {
        InvalidValue::expected("PEM text (-----BEGIN …) or the absolute path of a PEM file")
    })
}
