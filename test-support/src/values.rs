//! Data that finds faults: keys that mean something to somebody, and bytes of any length.

/// Keys that Redis's patterns, kvredis's bucket prefixes, or a careless parser would trip over.
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

/// Bytes without a pattern that a wrong order or a lost piece would leave intact.
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

/// A key that is too long for anybody's fixed buffer.
pub fn long_key() -> String {
    "k".repeat(100_000)
}
