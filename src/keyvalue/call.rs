//! Calls of the interfaces with their parameters, and the responses to them.
//!
//! A call borrows its parameters from the bytes in which they arrived. How calls are decoded and
//! responses are encoded is up to the front end, today `wrpc::functions`.

use bytes::Bytes;

use crate::keyvalue::store::KeyResponse;
use crate::redis::command::SplitBytes;

/// A call with its parameters, named as in the interface.
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

/// The result of a call that succeeded.
#[derive(Debug, PartialEq, Eq)]
pub enum Response<'a> {
    /// `set`, `delete`, `set-many` and `delete-many` return no value.
    Unit,
    /// `get`
    Value(Option<Bytes>),
    /// `exists`
    Exists(bool),
    /// `list-keys`
    Keys(KeyResponse),
    /// `increment`
    Number(u64),
    /// `get-many`: the requested keys, and in the same order their values.
    Entries {
        /// The requested keys.
        keys: Vec<&'a str>,
        /// One value for each key; `None` where the key is missing.
        values: Vec<Option<Bytes>>,
    },
}
