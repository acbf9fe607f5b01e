//! The encoding of wRPC values, for the types that `wrpc:keyvalue` has.
//!
//! The generated bindings are not used, because their decoder reserves the memory that a length
//! claims: a message of a few bytes aborts the process. This reader allocates nothing before the
//! bytes have arrived. A property test compares both with each other.

use bytes::{BufMut, Bytes, BytesMut};

/// A value of this size or more is sent as it came from Redis, without a copy.
const ZERO_COPY_THRESHOLD: usize = 32 * 1024;
/// The size of most results, in bytes.
const TYPICAL_RESULT_SIZE: usize = 192;
/// The maximum number of arguments of a Redis command. Each item costs more memory than the bytes
/// that are counted for it.
const MAX_ITEMS: usize = 1 << 20;
const TOO_MANY_ITEMS: &str = "a list has more items than 1048576";
/// The longest encoding of 64 bits, in bytes.
const MAX_NUMBER_SIZE: usize = 10;

/// The reason why a value cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// The bytes end too early: at least this many more are needed.
    Incomplete(usize),
    /// No further bytes could make it valid.
    Invalid(&'static str),
}

/// Reads values from the front of a slice.
#[derive(Clone, Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// A reader of these bytes.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The bytes that have not been read.
    pub fn unread(&self) -> &'a [u8] {
        self.0
    }

    /// Checks that all bytes have been read.
    ///
    /// # Errors
    ///
    /// Bytes are left.
    pub fn finish(self) -> Result<(), DecodeError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::Invalid("bytes follow the last parameter"))
        }
    }

    /// A `u64`, or a length: unsigned LEB128.
    ///
    /// # Errors
    ///
    /// The bytes end too early, or are more than 64 bits.
    pub fn number(&mut self) -> Result<u64, DecodeError> {
        let mut number = 0_u64;
        for (index, byte) in self.0.iter().enumerate().take(MAX_NUMBER_SIZE) {
            let bits = u64::from(byte & 0x7f);
            let shift = 7 * u32::try_from(index).unwrap_or(u32::MAX);
            if index == MAX_NUMBER_SIZE - 1 && bits > 1 {
                break;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                self.0 = &self.0[index + 1..];
                return Ok(number);
            }
        }
        if self.0.len() < MAX_NUMBER_SIZE {
            Err(DecodeError::Incomplete(1))
        } else {
            Err(DecodeError::Invalid("a number has more than 64 bits"))
        }
    }

    /// The length of a string or list.
    ///
    /// # Errors
    ///
    /// As [`Self::number`]; lengths have 32 bits.
    pub fn length(&mut self) -> Result<usize, DecodeError> {
        u32::try_from(self.number()?)
            .ok()
            .and_then(|length| usize::try_from(length).ok())
            .ok_or(DecodeError::Invalid("a length has more than 32 bits"))
    }

    /// A `list<u8>`.
    ///
    /// # Errors
    ///
    /// The bytes end too early.
    pub fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.length()?;
        if self.0.len() < length {
            return Err(DecodeError::Incomplete(length - self.0.len()));
        }
        let (bytes, rest) = self.0.split_at(length);
        self.0 = rest;
        Ok(bytes)
    }

    /// A `string`.
    ///
    /// # Errors
    ///
    /// The bytes end too early, or are not UTF-8.
    pub fn text(&mut self) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.bytes()?)
            .map_err(|_| DecodeError::Invalid("a string is not UTF-8"))
    }

    /// An `option` of a value that `some` reads.
    ///
    /// # Errors
    ///
    /// Those of `some`, or a first byte that is neither 0 nor 1.
    pub fn option<T>(
        &mut self,
        some: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError> {
        match self.0 {
            [] => Err(DecodeError::Incomplete(1)),
            [0, rest @ ..] => {
                self.0 = rest;
                Ok(None)
            }
            [1, rest @ ..] => {
                self.0 = rest;
                some(self).map(Some)
            }
            _ => Err(DecodeError::Invalid("an option is neither some nor none")),
        }
    }

    /// A `list` of items that `item` reads. The memory used follows the items that have arrived, not
    /// the claimed length.
    ///
    /// # Errors
    ///
    /// Those of `item`; or more items than a Redis command has arguments.
    pub fn list<T>(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let length = self.length()?;
        if length > MAX_ITEMS {
            return Err(DecodeError::Invalid(TOO_MANY_ITEMS));
        }
        // Every item of the interface has at least one byte.
        if self.0.len() < length {
            return Err(DecodeError::Incomplete(length - self.0.len()));
        }
        let mut items = Vec::with_capacity(length.min(1_024));
        for _ in 0..length {
            items.push(item(self)?);
        }
        Ok(items)
    }
}

/// Writes values one after another, as pieces that together are the encoding.
#[derive(Debug)]
pub struct Writer {
    pieces: Vec<Bytes>,
    last: BytesMut,
}

impl Default for Writer {
    /// With capacity for most results, so that they are not moved.
    fn default() -> Self {
        Self {
            pieces: Vec::new(),
            last: BytesMut::with_capacity(TYPICAL_RESULT_SIZE),
        }
    }
}

impl Writer {
    /// A single byte: a `bool`, or the case of an `option`, a `result` or a small `variant`.
    pub fn byte(&mut self, byte: u8) {
        self.last.put_u8(byte);
    }

    /// A `u64`, or a length.
    pub fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.last.put_u8((number & 0x7f) as u8 | 0x80);
            number >>= 7;
        }
        self.last.put_u8(number as u8);
    }

    /// The length of a string or list.
    pub fn length(&mut self, length: usize) {
        self.number(length as u64);
    }

    /// A `string`.
    pub fn text(&mut self, text: &str) {
        self.last.reserve(text.len() + MAX_NUMBER_SIZE);
        self.length(text.len());
        self.last.put_slice(text.as_bytes());
    }

    /// An `option` of a value that `some` writes.
    pub fn option<T>(&mut self, value: Option<T>, some: impl FnOnce(&mut Self, T)) {
        match value {
            None => self.byte(0),
            Some(value) => {
                self.byte(1);
                some(self, value);
            }
        }
    }

    /// A `list<u8>`.
    pub fn bytes(&mut self, bytes: Bytes) {
        if bytes.len() < ZERO_COPY_THRESHOLD {
            self.last.reserve(bytes.len() + MAX_NUMBER_SIZE);
            self.length(bytes.len());
            self.last.put_slice(&bytes);
        } else {
            self.length(bytes.len());
            self.pieces.push(self.last.split().freeze());
            self.pieces.push(bytes);
        }
    }

    /// The pieces, none of them empty.
    pub fn finish(self) -> impl Iterator<Item = Bytes> {
        let last = (!self.last.is_empty()).then(|| self.last.freeze());
        self.pieces.into_iter().chain(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let mut writer = Writer::default();
        write(&mut writer);
        writer.finish().flatten().collect()
    }

    #[test]
    fn numbers_of_all_sizes_survive_encoding_and_decoding() {
        for number in [0, 1, 127, 128, 300, u64::from(u32::MAX), 1 << 63, u64::MAX] {
            let bytes = written(|w| w.number(number));
            let mut reader = Reader::new(&bytes);
            assert_eq!(reader.number(), Ok(number));
            assert_eq!(reader.finish(), Ok(()));
            let cut = &bytes[..bytes.len() - 1];
            assert_eq!(Reader::new(cut).number(), Err(DecodeError::Incomplete(1)));
        }
    }

    #[test]
    fn lists_of_more_items_than_a_command_has_arguments_are_invalid() {
        let mut bytes = written(|w| w.number(MAX_ITEMS as u64));
        bytes.resize(bytes.len() + MAX_ITEMS, 0);
        let items = Reader::new(&bytes).list(Reader::text).unwrap();
        assert_eq!(items.len(), MAX_ITEMS);
        let bytes = written(|w| w.number(MAX_ITEMS as u64 + 1));
        let list = Reader::new(&bytes).list(Reader::text);
        assert_eq!(list, Err(DecodeError::Invalid(TOO_MANY_ITEMS)));
    }

    #[test]
    fn numbers_of_more_than_64_bits_are_invalid() {
        let too_long = [0xff; 11];
        assert!(matches!(
            Reader::new(&too_long).number(),
            Err(DecodeError::Invalid(_))
        ));
        let mut too_large = [0xff; 10];
        too_large[9] = 2;
        assert!(matches!(
            Reader::new(&too_large).number(),
            Err(DecodeError::Invalid(_))
        ));
    }

    #[test]
    fn a_claimed_length_allocates_nothing() {
        let claims_everything = [0xff, 0xff, 0xff, 0xff, 0x0f];
        let list = Reader::new(&claims_everything).list(Reader::text);
        assert_eq!(list, Err(DecodeError::Invalid(TOO_MANY_ITEMS)));
        let bytes = Reader::new(&claims_everything).bytes();
        assert_eq!(bytes, Err(DecodeError::Incomplete(u32::MAX as usize)));
        let beyond_32_bits = [0xff, 0xff, 0xff, 0xff, 0x1f];
        assert!(matches!(
            Reader::new(&beyond_32_bits).bytes(),
            Err(DecodeError::Invalid(_))
        ));
    }

    #[test]
    fn large_values_are_not_copied() {
        let value = Bytes::from(vec![7; ZERO_COPY_THRESHOLD]);
        let mut writer = Writer::default();
        writer.byte(0);
        writer.bytes(value.clone());
        writer.byte(1);
        let pieces: Vec<Bytes> = writer.finish().collect();
        assert_eq!(pieces.len(), 3);
        assert_eq!(pieces[1].as_ptr(), value.as_ptr());
        assert_eq!(pieces[2], Bytes::from_static(&[1]));
    }
}
