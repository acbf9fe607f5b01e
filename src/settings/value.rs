//! The kinds of values that settings have: how a text is read, and the pattern that describes the
//! texts which can be.
//!
//! Both stand side by side here, so that the parser and the JSON schema agree. Which setting is of
//! which kind is for `table`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::settings::{InvalidValue, Pem, Secret};

/// How the text of a setting becomes a part of the settings `T`.
pub(crate) enum Value<T> {
    /// `true`, `false`, `1` or `0`; present but empty is true.
    Boolean(fn(&mut T, bool)),
    /// A whole number within limits.
    Number {
        least: u64,
        most: u64,
        set: fn(&mut T, u64),
    },
    /// A duration, from 1 ms up.
    Milliseconds {
        most: u64,
        set: fn(&mut T, Duration),
    },
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
    /// Text that has a reader of its own; it answers what is worth a warning.
    Text {
        /// A regular expression (ECMA-262) for what is accepted.
        pattern: &'static str,
        read: fn(&mut T, &str) -> Result<Option<String>, InvalidValue>,
    },
}

impl<T> Value<T> {
    /// Reads a text into the settings; answers what is worth a warning.
    pub(crate) fn read(
        &self,
        settings: &mut T,
        text: &str,
    ) -> Result<Option<String>, InvalidValue> {
        match self {
            Self::Boolean(set) => set(settings, boolean(text)?),
            Self::Number { least, most, set } => set(settings, number(text, *least, *most)?),
            Self::Milliseconds { most, set } => set(settings, milliseconds(text, *most)?),
            Self::Choice { words, set } => set(settings, choice(text, words)?),
            Self::File(set) => set(settings, absolute(text)?),
            Self::Pem(set) => set(settings, pem(text)?),
            Self::AnyText(set) => set(settings, text),
            Self::Text { read, .. } => return read(settings, text),
        }
        Ok(None)
    }

    /// A regular expression (ECMA-262) for the texts that are accepted; `None` where all are.
    pub(crate) fn pattern(&self) -> Option<String> {
        Some(match self {
            Self::Boolean(_) => format!(r"^\s*({})?\s*$", any_case(&["true", "false", "1", "0"])),
            Self::Number { least, most, .. } => numbers(*least, *most),
            Self::Milliseconds { most, .. } => numbers(1, *most),
            Self::Choice { words, .. } => format!(r"^\s*({})\s*$", any_case(words)),
            Self::File(_) => r"^\s*/".to_owned(),
            Self::Pem(_) => r"-----BEGIN|^\s*/".to_owned(),
            Self::AnyText(_) => return None,
            Self::Text { pattern, .. } => (*pattern).to_owned(),
        })
    }

    /// The words to choose from, where there are such.
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
        // As users of flags expect.
        "" | "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(InvalidValue::expected("true, false, 1 or 0")),
    }
}

fn number(text: &str, least: u64, most: u64) -> Result<u64, InvalidValue> {
    text.trim()
        .parse()
        .ok()
        .filter(|number| (least..=most).contains(number))
        .ok_or_else(|| InvalidValue::expected(format!("a whole number from {least} to {most}")))
}

fn milliseconds(text: &str, most: u64) -> Result<Duration, InvalidValue> {
    number(text, 1, most)
        .map(Duration::from_millis)
        .map_err(|_| {
            InvalidValue::expected(format!("a whole number of milliseconds from 1 to {most}"))
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

fn absolute(text: &str) -> Result<PathBuf, InvalidValue> {
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
    absolute(text).map(Pem::File).map_err(|_| {
        InvalidValue::expected("PEM text (-----BEGIN …) or the absolute path of a PEM file")
    })
}

/// An alternative of these words, whichever case they are in: ECMA-262 has no flag for that.
pub(crate) fn any_case(words: &[&str]) -> String {
    let one = |word: &&str| -> String {
        word.chars()
            .map(|character| match character.to_ascii_uppercase() {
                upper if upper.is_ascii_uppercase() => {
                    format!("[{upper}{}]", character.to_ascii_lowercase())
                }
                other => other.to_string(),
            })
            .collect()
    };
    words.iter().map(one).collect::<Vec<_>>().join("|")
}

/// The texts that [`number`] reads: for each count of digits, those between the limits.
fn numbers(least: u64, most: u64) -> String {
    let runs: Vec<String> = (1..=most.to_string().len())
        .filter_map(|digits| {
            let shortest = digits.saturating_sub(1);
            let lowest = if shortest == 0 {
                0
            } else {
                power_of_ten(shortest)
            };
            let low = lowest.max(least);
            let high = (power_of_ten(digits) - 1).min(most);
            let (from, to) = (low.to_string(), high.to_string());
            (low <= high).then(|| digits_between(from.as_bytes(), to.as_bytes()))
        })
        .collect();
    format!(r"^\s*\+?0*({})\s*$", runs.join("|"))
}

fn power_of_ten(exponent: usize) -> u64 {
    u32::try_from(exponent)
        .ok()
        .and_then(|exponent| 10_u64.checked_pow(exponent))
        .unwrap_or(u64::MAX)
}

/// The numbers from one to another of as many digits.
fn digits_between(least: &[u8], most: &[u8]) -> String {
    let ([low, lows @ ..], [high, highs @ ..]) = (least, most) else {
        return String::new();
    };
    let rest = lows.len();
    if lows.iter().all(|digit| *digit == b'0') && highs.iter().all(|digit| *digit == b'9') {
        return format!("{}{}", one_of(*low, *high), any_digits(rest));
    }
    if low == high {
        return format!("{}{}", *low as char, digits_between(lows, highs));
    }
    let (zeros, nines) = (vec![b'0'; rest], vec![b'9'; rest]);
    let mut runs = vec![format!("{}{}", *low as char, digits_between(lows, &nines))];
    if low + 1 < *high {
        runs.push(format!("{}{}", one_of(low + 1, high - 1), any_digits(rest)));
    }
    runs.push(format!(
        "{}{}",
        *high as char,
        digits_between(&zeros, highs)
    ));
    format!("({})", runs.join("|"))
}

fn one_of(low: u8, high: u8) -> String {
    match (low as char, high as char) {
        (low, high) if low == high => low.to_string(),
        (low, high) => format!("[{low}-{high}]"),
    }
}

fn any_digits(count: usize) -> String {
    match count {
        0 => String::new(),
        1 => "[0-9]".to_owned(),
        count => format!("[0-9]{{{count}}}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_numbers() {
        assert_eq!(numbers(0, 9), r"^\s*\+?0*([0-9])\s*$");
        assert_eq!(
            numbers(1, 1_000),
            r"^\s*\+?0*([1-9]|[1-9][0-9]|[1-9][0-9]{2}|1000)\s*$"
        );
        assert_eq!(
            numbers(15, 320),
            r"^\s*\+?0*((1[5-9]|[2-8][0-9]|9[0-9])|(1[0-9][0-9]|2[0-9]{2}|3(0[0-9]|1[0-9]|20)))\s*$"
        );
    }

    #[test]
    fn words_in_any_case() {
        assert_eq!(any_case(&["a-1", "B"]), "[Aa]-1|[Bb]");
    }
}
