//! The functions of `wrpc:keyvalue`: their names in subjects, decoding of parameters to a [`Call`],
//! and encoding of results.

use crate::error::{Error, ErrorKind};
use crate::keyvalue::call::{Call, Response};
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

    /// The interface of the function.
    pub fn interface(self) -> &'static str {
        match self {
            Self::Get | Self::Set | Self::Delete | Self::Exists | Self::ListKeys => {
                "wrpc:keyvalue/store"
            }
            Self::Increment => "wrpc:keyvalue/atomics",
            Self::GetMany | Self::SetMany | Self::DeleteMany => "wrpc:keyvalue/batch",
        }
    }

    /// The name in the interface.
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

    /// Returns true if the function may change stored data.
    pub(crate) fn is_write(self) -> bool {
        match self {
            Self::Set | Self::Delete | Self::Increment | Self::SetMany | Self::DeleteMany => true,
            Self::Get | Self::Exists | Self::ListKeys | Self::GetMany => false,
        }
    }

    /// Decodes the parameters.
    ///
    /// # Errors
    ///
    /// More bytes are needed, or these are not the function's parameters.
    pub fn decode(self, params: &[u8]) -> Result<Call<'_>, DecodeError> {
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

    /// Decodes parameters that arrived in two parts without concatenating them, which would copy a
    /// large value. Only a `set` that is split within its value can be decoded so; for other calls
    /// this returns `None`.
    pub fn decode_split<'a>(self, first: &'a [u8], rest: &'a [u8]) -> Option<Call<'a>> {
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

/// Encodes the result of a call.
pub fn encode_result(result: Result<Response<'_>, Error>) -> Writer {
    let mut writer = Writer::default();
    match result {
        Ok(response) => {
            writer.byte(0);
            encode_response(&mut writer, response);
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

fn encode_response(writer: &mut Writer, response: Response<'_>) {
    match response {
        Response::Unit => {}
        Response::Exists(exists) => writer.byte(u8::from(exists)),
        Response::Number(number) => writer.number(number),
        Response::Value(value) => writer.option(value, Writer::bytes),
        Response::Keys(page) => encode_keys(writer, page),
        Response::Entries { keys, values } => {
            writer.length(values.len());
            for (key, value) in keys.into_iter().zip(values) {
                writer.option(value, |writer, value| {
                    writer.text(key);
                    writer.bytes(value);
                });
            }
        }
    }
}

fn encode_keys(writer: &mut Writer, page: KeyResponse) {
    writer.length(page.keys.len());
    for key in &page.keys {
        writer.text(key);
    }
    writer.option(page.cursor, Writer::number);
}
