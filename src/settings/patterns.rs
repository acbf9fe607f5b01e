//! Regular expressions (ECMA-262) for the JSON schema: words in any case, and numbers within limits.

/// An alternative of these words in any case: ECMA-262 has no flag for that.
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

/// Decimal numbers from `min` to `max`: for each count of digits, those between the limits.
pub(crate) fn numbers(min: u64, max: u64) -> String {
    let runs: Vec<String> = (1..=max.to_string().len())
        .filter_map(|digits| {
            let shortest = digits.saturating_sub(1);
            let lowest = if shortest == 0 {
                0
            } else {
                power_of_ten(shortest)
            };
            let low = lowest.max(min);
            let high = (power_of_ten(digits) - 1).min(max);
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

/// The numbers between two of equally many digits.
fn digits_between(min: &[u8], max: &[u8]) -> String {
    let ([low, lows @ ..], [high, highs @ ..]) = (min, max) else {
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
