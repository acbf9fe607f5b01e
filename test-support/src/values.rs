//! Test data: keys with a special meaning somewhere, and bytes of any length.

/// Keys that are special in Redis's patterns, in kvredis's bucket prefixes, or to careless parsers.
pub const ODD_KEYS: &[&str] = &[
    "",
    " ",
    "*",
    "?",
    "[a-z]",
    "[",
    "]",
    "\\",
    "\\*",
    "a:b",
    ":",
    "::",
    "a\nb",
    "\r\n",
    "\0",
    "a\0b",
    "{tag}",
    "ключ",
    "键",
    "🗝️",
    "e\u{301}",
    "\u{feff}",
    "tab\t",
    "'\"`$(ls)",
    "../..",
    "a b c",
];

/// Pseudo-random bytes, so that a lost or misplaced fragment shows.
pub fn bytes(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ length as u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// A key that exceeds fixed-size buffers.
pub fn long_key() -> String {
    "k".repeat(100_000)
}
