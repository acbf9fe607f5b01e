//! Percent-coding: the query and the path of a URL, and the lists in bodies.

use percent_encoding::{AsciiSet, CONTROLS, percent_decode, percent_encode};

use crate::failure::Failure;

/// Characters that delimit lines, keys and values; text beyond ASCII is encoded as well.
const RESERVED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'#')
    .add(b'%')
    .add(b'&')
    .add(b'+')
    .add(b'=');

/// The parameters of a query, decoded.
pub struct Query(Vec<(String, String)>);

impl Query {
    pub fn parse(query: &str) -> Result<Self, Failure> {
        pairs(query.as_bytes())
            .map(|(name, value)| Ok((utf8(name)?, utf8(value)?)))
            .collect::<Result<_, Failure>>()
            .map(Self)
    }

    pub fn first(&self, name: &str) -> Option<&str> {
        self.values(name).next()
    }

    pub fn all(&self, name: &str) -> Vec<String> {
        self.values(name).map(str::to_owned).collect()
    }

    pub fn required(&self, name: &str) -> Result<&str, Failure> {
        self.first(name)
            .ok_or_else(|| Failure::bad_request(format!("the query has no `{name}`")))
    }

    pub fn number(&self, name: &str) -> Result<Option<u64>, Failure> {
        let Some(value) = self.first(name) else {
            return Ok(None);
        };
        value
            .parse()
            .map(Some)
            .map_err(|_| Failure::bad_request(format!("`{name}` is no number from 0 to 2^64-1")))
    }

    fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0
            .iter()
            .filter(move |(found, _)| found == name)
            .map(|(_, value)| value.as_str())
    }
}

/// The `name=value` pairs of a query or of a form; values are any bytes.
pub fn pairs(form: &[u8]) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
    form.split(|byte| *byte == b'&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let mut halves = pair.splitn(2, |byte| *byte == b'=');
            let mut half = || decode(halves.next().unwrap_or_default());
            (half(), half())
        })
}

/// The text of a path, without the leading slash. A plus is a plus here.
pub fn path(path: &str) -> Result<String, Failure> {
    let path = path.strip_prefix('/').unwrap_or(path);
    utf8(percent_decode(path.as_bytes()).collect())
}

pub fn utf8(bytes: Vec<u8>) -> Result<String, Failure> {
    String::from_utf8(bytes).map_err(|_| Failure::bad_request("keys and names are UTF-8 text"))
}

pub fn encode(bytes: &[u8]) -> String {
    percent_encode(bytes, RESERVED).to_string()
}

fn decode(bytes: &[u8]) -> Vec<u8> {
    let spaced: Vec<u8> = bytes
        .iter()
        .map(|byte| if *byte == b'+' { b' ' } else { *byte })
        .collect();
    percent_decode(&spaced).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_decoded() {
        let query =
            Query::parse("key=a%26b+c&&delta=2&key=%C3%A9&flag").unwrap_or_else(|_| panic!());
        assert_eq!(query.all("key"), ["a&b c", "é"]);
        assert_eq!(query.first("flag"), Some(""));
        assert_eq!(query.first("none"), None);
    }

    #[test]
    fn keys_are_text_and_values_are_bytes() {
        assert!(Query::parse("key=%FF").is_err());
        let form: Vec<_> = pairs(b"a=%FF%00=&b").collect();
        assert_eq!(
            form,
            [
                (b"a".to_vec(), b"\xff\0=".to_vec()),
                (b"b".to_vec(), vec![])
            ]
        );
    }

    #[test]
    fn a_number_is_a_u64() {
        let query = |text| Query::parse(text).unwrap_or_else(|_| panic!());
        assert!(matches!(
            query("delta=18446744073709551615").number("delta"),
            Ok(Some(u64::MAX))
        ));
        assert!(matches!(query("").number("delta"), Ok(None)));
        assert!(query("delta=-1").number("delta").is_err());
        assert!(query("delta=").number("delta").is_err());
    }

    #[test]
    fn a_path_keeps_its_plus() {
        assert!(matches!(path("/a+b%2Fc").as_deref(), Ok("a+b/c")));
    }

    #[test]
    fn decoding_reverses_encoding() {
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(decode(encode(&bytes).as_bytes()), bytes);
        assert_eq!(encode(b"user:1/[*]?"), "user:1/[*]?");
    }
}
