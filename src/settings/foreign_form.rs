//! Recognition of addresses in the forms of other products and files, for a hint that says how kvredis
//! writes them. Each hint is a fixed text: it repeats nothing of the value.

/// The form of an invalid `URL`, with a remedy; `None` if it has none of the known ones.
pub(crate) fn describe(text: &str) -> Option<&'static str> {
    let text = text.trim();
    let lower = text.to_ascii_lowercase();
    let first_word = lower.split_whitespace().next().unwrap_or_default();
    if text.starts_with(['{', '[']) && text.contains('"') {
        return Some("this is JSON: set URL to the address alone, and PASSWORD to the password");
    }
    if ["redis-cli", "valkey-cli"].contains(&first_word) {
        return Some(
            "this is a command line: its options -h, -p, -a and -n are \
             redis://:password@host:port/db, and --tls is rediss://",
        );
    }
    if ["password=", "ssl=", "abortconnect=", "user="]
        .iter()
        .any(|option| lower.contains(&format!(",{option}")))
    {
        return Some(
            "this is a connection string of StackExchange.Redis: write \
             rediss://:password@host:port for ssl=true and redis://:password@host:port without it, \
             or set PASSWORD",
        );
    }
    if is_assignment(text) {
        return Some("this begins with NAME=: set URL to the address alone");
    }
    let scheme = lower.split_once("://").map(|(scheme, _)| scheme);
    if matches!(scheme, Some("http" | "https")) && lower.contains("upstash") {
        return Some(
            "this is a REST address: use the one for Redis clients, which begins with rediss://",
        );
    }
    None
}

/// A line of an environment file, as `REDIS_URL=redis://…` or `export REDIS_URL=…`.
fn is_assignment(text: &str) -> bool {
    let text = text.strip_prefix("export ").unwrap_or(text);
    text.split_once('=').is_some_and(|(name, _)| {
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    })
}
