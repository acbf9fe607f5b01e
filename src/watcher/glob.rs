//! Redis's glob patterns: decides whether a replaced link's queued change is still watched.

/// Returns true if the pattern matches the whole key, as Redis's `stringmatchlen` does.
pub(crate) fn matches(pattern: &[u8], key: &[u8]) -> bool {
    // The latest `*`, and the part of the key that it has not consumed yet.
    let mut retry: Option<(&[u8], &[u8])> = None;
    let (mut pattern, mut key) = (pattern, key);
    loop {
        if let Some(rest) = pattern.strip_prefix(b"*") {
            retry = Some((rest, key));
            pattern = rest;
            continue;
        }
        let matched = match key.split_first() {
            None if pattern.is_empty() => return true,
            None => return false,
            Some((&byte, rest)) => match_one(pattern, byte).map(|after| (after, rest)),
        };
        match (matched, retry) {
            (Some(next), _) => (pattern, key) = next,
            (None, Some((after_star, from))) if !from.is_empty() => {
                retry = Some((after_star, &from[1..]));
                (pattern, key) = (after_star, &from[1..]);
            }
            (None, _) => return false,
        }
    }
}

/// Matches one byte. Returns the rest of the pattern.
fn match_one(pattern: &[u8], byte: u8) -> Option<&[u8]> {
    match pattern {
        [b'?', rest @ ..] => Some(rest),
        [b'[', rest @ ..] => match_class(rest, byte),
        [b'\\', escaped, rest @ ..] => (*escaped == byte).then_some(rest),
        [literal, rest @ ..] => (*literal == byte).then_some(rest),
        [] => None,
    }
}

/// Matches one byte with a class after its `[`; the end of the pattern ends the class, too.
fn match_class(class: &[u8], byte: u8) -> Option<&[u8]> {
    let (negated, mut class) = match class.strip_prefix(b"^") {
        Some(rest) => (true, rest),
        None => (false, class),
    };
    let mut found = false;
    loop {
        class = match class {
            [b'\\', escaped, rest @ ..] => {
                found |= *escaped == byte;
                rest
            }
            [b']', rest @ ..] => return (found != negated).then_some(rest),
            [from, b'-', to, rest @ ..] => {
                found |= (*from.min(to)..=*from.max(to)).contains(&byte);
                rest
            }
            [literal, rest @ ..] => {
                found |= *literal == byte;
                rest
            }
            [] => return (found != negated).then_some(class),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_match_as_in_redis() {
        for (pattern, key) in [
            ("", ""),
            ("*", ""),
            ("k", "k"),
            ("k*", "key"),
            ("*y", "key-y"),
            ("a*b*c", "a-b-b-c"),
            ("h?llo", "hello"),
            ("h[ae]llo", "hallo"),
            ("h[^e]llo", "hallo"),
            ("h[a-c]llo", "hbllo"),
            ("h[c-a]llo", "hbllo"),
            (r"h\*llo", "h*llo"),
            (r"[\]]", "]"),
            ("[ab", "a"),
            ("**", "any"),
        ] {
            assert!(
                matches(pattern.as_bytes(), key.as_bytes()),
                "{pattern} {key}"
            );
        }
        for (pattern, key) in [
            ("", "k"),
            ("k", ""),
            ("k", "kk"),
            ("k*", "ak"),
            ("a*b", "a-b-c"),
            ("h?llo", "hllo"),
            ("h[^e]llo", "hello"),
            ("h[a-c]llo", "hdllo"),
            (r"h\*llo", "hello"),
        ] {
            assert!(
                !matches(pattern.as_bytes(), key.as_bytes()),
                "{pattern} {key}"
            );
        }
    }
}
