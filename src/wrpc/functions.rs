//! The functions of the interfaces as they are called: names, parameters, results.
//!
//! From the bytes of a call to a [`Call`], and from what a room answers to the bytes of a result.
//! How bytes are laid out is for `wire`, how they travel for `serve`.

use bytes::Bytes;

use crate::error::{Error, ErrorKind};
use crate::keyvalue::store::KeyResponse;
use crate::redis::command::SplitBytes;
use crate::wrpc::codec::{DecodeError, Reader, Writer};

/// A function of the interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// `store.get`
    Get,
    /// `store.set`
    Set,
    /// `store.delete`
    Delete,
    /// `store.exists`
    Exists,
    /// `store.list-keys`
    ListKeys,
    /// `atomics.increment`
    Increment,
    /// `batch.get-many`
    GetMany,
    /// `batch.set-many`
    SetMany,
    /// `batch.delete-many`
    DeleteMany,
}

/// A call with its parameters, borrowed from the bytes they came in.
#[derive(Debug, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "the fields are the parameters' names in the interface"
)]
pub enum Call<'a> {
    /// `store.get`
    Get { bucket: &'a str, key: &'a str },
    /// `store.set`
    Set {
        bucket: &'a str,
        key: &'a str,
        value: SplitBytes<'a>,
    },
    /// `store.delete`
    Delete { bucket: &'a str, key: &'a str },
    /// `store.exists`
    Exists { bucket: &'a str, key: &'a str },
    /// `store.list-keys`
    ListKeys {
        bucket: &'a str,
        cursor: Option<u64>,
    },
    /// `atomics.increment`
    Increment {
        bucket: &'a str,
        key: &'a str,
        delta: u64,
    },
    /// `batch.get-many`
    GetMany { bucket: &'a str, keys: Vec<&'a str> },
    /// `batch.set-many`
    SetMany {
        bucket: &'a str,
        pairs: Vec<(&'a str, &'a [u8])>,
    },
    /// `batch.delete-many`
    DeleteMany { bucket: &'a str, keys: Vec<&'a str> },
}

impl Function {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Get,
        Self::Set,
        Self::Delete,
        Self::Exists,
        Self::ListKeys,
        Self::Increment,
        Self::GetMany,
        Self::SetMany,
        Self::DeleteMany,
    ];

    /// The function of this name, as the last part of a subject has it.
    pub fn named(name: &str) -> Option<Self> {
        let name = name.strip_prefix("wrpc:keyvalue/")?;
        Some(match name {
            "store@0.2.0-draft.get" => Self::Get,
            "store@0.2.0-draft.set" => Self::Set,
            "store@0.2.0-draft.delete" => Self::Delete,
            "store@0.2.0-draft.exists" => Self::Exists,
            "store@0.2.0-draft.list-keys" => Self::ListKeys,
            "atomics@0.2.0-draft.increment" => Self::Increment,
            "batch@0.2.0-draft.get-many" => Self::GetMany,
            "batch@0.2.0-draft.set-many" => Self::SetMany,
            "batch@0.2.0-draft.delete-many" => Self::DeleteMany,
            _ => return None,
        })
    }

    /// The interface that it is of.
    pub fn interface(self) -> &'static str {
        match self {
            Self::Get | Self::Set | Self::Delete | Self::Exists | Self::ListKeys => {
                "wrpc:keyvalue/store"
            }
            Self::Increment => "wrpc:keyvalue/atomics",
            Self::GetMany | Self::SetMany | Self::DeleteMany => "wrpc:keyvalue/batch",
        }
    }

    /// Its name in the interface.
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Set => "set",
            Self::Delete => "delete",
            Self::Exists => "exists",
            Self::ListKeys => "list-keys",
            Self::Increment => "increment",
            Self::GetMany => "get-many",
            Self::SetMany => "set-many",
            Self::DeleteMany => "delete-many",
        }
    }

    /// Reads the parameters.
    ///
    /// # Errors
    ///
    /// More bytes are needed, or these are not the function's parameters.
    pub fn read(self, params: &[u8]) -> Result<Call<'_>, DecodeError> {
        let mut reader = Reader::new(params);
        let bucket = reader.text()?;
        let call = match self {
            Self::Get => Call::Get {
                bucket,
                key: reader.text()?,
            },
            Self::Set => Call::Set {
                bucket,
                key: reader.text()?,
                value: SplitBytes(reader.bytes()?, &[]),
            },
            Self::Delete => Call::Delete {
                bucket,
                key: reader.text()?,
            },
            Self::Exists => Call::Exists {
                bucket,
                key: reader.text()?,
            },
            Self::ListKeys => Call::ListKeys {
                bucket,
                cursor: reader.option(Reader::number)?,
            },
            Self::Increment => Call::Increment {
                bucket,
                key: reader.text()?,
                delta: reader.number()?,
            },
            Self::GetMany => Call::GetMany {
                bucket,
                keys: reader.list(Reader::text)?,
            },
            Self::SetMany => Call::SetMany {
                bucket,
                pairs: reader.list(|pair| Ok((pair.text()?, pair.bytes()?)))?,
            },
            Self::DeleteMany => Call::DeleteMany {
                bucket,
                keys: reader.list(Reader::text)?,
            },
        };
        reader.finish()?;
        Ok(call)
    }

    /// Reads parameters that came in two parts without putting them together, which a large value
    /// is worth; `None` where that does not go.
    pub fn read_parts<'a>(self, first: &'a [u8], rest: &'a [u8]) -> Option<Call<'a>> {
        if self != Self::Set {
            return None;
        }
        let mut reader = Reader::new(first);
        let bucket = reader.text().ok()?;
        let key = reader.text().ok()?;
        let length = reader.length().ok()?;
        let value = SplitBytes(reader.unread(), rest);
        (value.size() == length).then_some(Call::Set { bucket, key, value })
    }
}

/// The encoding of a `result`, with `ok` writing what it holds.
pub fn result<T>(outcome: Result<T, Error>, ok: impl FnOnce(&mut Writer, T)) -> Writer {
    let mut writer = Writer::default();
    match outcome {
        Ok(value) => {
            writer.byte(0);
            ok(&mut writer, value);
        }
        Err(error) => {
            writer.byte(1);
            match error.kind() {
                ErrorKind::NoSuchStore => writer.byte(0),
                ErrorKind::AccessDenied => writer.byte(1),
                _ => {
                    writer.byte(2);
                    writer.text(error.message());
                }
            }
        }
    }
    writer
}

/// Nothing.
pub fn unit(_: &mut Writer, (): ()) {}

/// A `bool`.
pub fn bool(writer: &mut Writer, value: bool) {
    writer.byte(u8::from(value));
}

/// An `option<list<u8>>`.
pub fn value(writer: &mut Writer, value: Option<Bytes>) {
    match value {
        None => writer.byte(0),
        Some(bytes) => {
            writer.byte(1);
            writer.bytes(bytes);
        }
    }
}

/// A `key-response`.
pub fn key_response(writer: &mut Writer, page: KeyResponse) {
    writer.length(page.keys.len());
    for key in &page.keys {
        writer.text(key);
    }
    match page.cursor {
        None => writer.byte(0),
        Some(cursor) => {
            writer.byte(1);
            writer.number(cursor);
        }
    }
}

/// A `list<option<tuple<string, list<u8>>>>`: the keys asked with their values.
pub fn entries(writer: &mut Writer, keys: &[&str], values: Vec<Option<Bytes>>) {
    writer.length(values.len());
    for (key, value) in keys.iter().zip(values) {
        match value {
            None => writer.byte(0),
            Some(bytes) => {
                writer.byte(1);
                writer.text(key);
                writer.bytes(bytes);
            }
        }
    }
}
