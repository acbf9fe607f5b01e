//! The wire encoding of the interface's values, written by hand from the specification: a bug that
//! kvredis shares with a bindings generator would show.
//!
//! `string` and `list` are an unsigned LEB128 length and the content, `u64` is LEB128, `bool` a
//! byte, `option` and `result` a byte 0 or 1 (`none`, `ok`: 0) and the content, `variant` a LEB128
//! case number and the content; `tuple` and `record` are their fields in order.

use crate::client::Error;

/// Appends a LEB128 number.
pub fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Appends a `string` or a `list<u8>`.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends a `list`.
pub fn put_list<T>(out: &mut Vec<u8>, items: &[T], mut put: impl FnMut(&mut Vec<u8>, &T)) {
    put_number(out, items.len() as u64);
    for item in items {
        put(out, item);
    }
}

/// The parameters of a function whose first parameters are a bucket and a key.
pub fn bucket_and_key(bucket: &str, key: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(bucket.len() + key.len() + 10);
    put_bytes(&mut out, bucket.as_bytes());
    put_bytes(&mut out, key.as_bytes());
    out
}

/// The reason why bytes cannot be decoded.
#[derive(Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// The bytes end within the value.
    Incomplete,
    /// The bytes are not a value of the type.
    Invalid(&'static str),
}

/// A cursor over encoded bytes.
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(DecodeError::Incomplete)?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, DecodeError> {
        Ok(self.take(1)?[0])
    }

    fn number(&mut self) -> Result<u64, DecodeError> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(DecodeError::Invalid("a number of more than 64 bits"))
    }

    fn length(&mut self) -> Result<usize, DecodeError> {
        usize::try_from(self.number()?).map_err(|_| DecodeError::Invalid("a length beyond memory"))
    }
}

/// A type that can be decoded.
pub trait Decode: Sized {
    /// Decodes one value.
    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError>;
}

/// Decodes one value that must take up all of `bytes`.
pub fn decode_all<T: Decode>(bytes: &[u8]) -> Result<T, DecodeError> {
    let mut reader = Reader(bytes);
    let value = T::decode(&mut reader)?;
    if reader.0.is_empty() {
        Ok(value)
    } else {
        Err(DecodeError::Invalid("something follows the result"))
    }
}

impl Decode for () {
    fn decode(_: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(())
    }
}

impl Decode for bool {
    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match from.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::Invalid("a bool other than 0 and 1")),
        }
    }
}

impl Decode for u64 {
    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        from.number()
    }
}

impl Decode for Vec<u8> {
    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let length = from.length()?;
        Ok(from.take(length)?.to_vec())
    }
}

impl Decode for String {
    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        String::from_utf8(Vec::decode(from)?)
            .map_err(|_| DecodeError::Invalid("a string not in UTF-8"))
    }
}

impl<T: Decode> Decode for Option<T> {
    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(if bool::decode(from)? {
            Some(T::decode(from)?)
        } else {
            None
        })
    }
}

impl<A: Decode, B: Decode> Decode for (A, B) {
    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok((A::decode(from)?, B::decode(from)?))
    }
}

/// A list of a type other than bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct List<T>(pub Vec<T>);

impl<T: Decode> Decode for List<T> {
    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let length = from.length()?;
        // Grows with the items: the encoded length is not trusted.
        let mut items = Vec::new();
        for _ in 0..length {
            items.push(T::decode(from)?);
        }
        Ok(Self(items))
    }
}

impl<T: Decode> Decode for Result<T, Error> {
    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(if bool::decode(from)? {
            Err(Error::decode(from)?)
        } else {
            Ok(T::decode(from)?)
        })
    }
}

impl Decode for Error {
    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match from.number()? {
            0 => Ok(Self::NoSuchStore),
            1 => Ok(Self::AccessDenied),
            2 => Ok(Self::Other(String::decode(from)?)),
            _ => Err(DecodeError::Invalid(
                "an error that the interface does not have",
            )),
        }
    }
}

#[test]
fn numbers_are_leb128() {
    for (number, bytes) in [
        (0, &[0][..]),
        (127, &[0x7f]),
        (128, &[0x80, 1]),
        (
            u64::MAX,
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
        ),
    ] {
        let mut out = Vec::new();
        put_number(&mut out, number);
        assert_eq!(out, bytes);
        assert_eq!(decode_all(&out), Ok(number));
    }
}
