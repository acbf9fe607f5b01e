//! The functions of the interfaces as typed methods of [`Client`].

use crate::client::{Client, Error};
use crate::codec::{
    Decode, DecodeError, List, Reader, bucket_and_key, put_bytes, put_list, put_number,
};

/// A page of `list-keys`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The keys, without the bucket's prefix.
    pub keys: Vec<String>,
    /// The cursor of the next page; `None` at the end.
    pub cursor: Option<u64>,
}

/// The entry that `get-many` returns for one key.
pub type Entry = Option<(String, Vec<u8>)>;

impl Decode for Page {
    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let List(keys) = List::decode(from)?;
        Ok(Self {
            keys,
            cursor: Option::decode(from)?,
        })
    }
}

impl Client {
    /// `store.get`
    pub async fn get(&self, bucket: &str, key: &str) -> Result<Option<Vec<u8>>, Error> {
        self.invoke("store", "get", bucket_and_key(bucket, key))
            .await
    }

    /// `store.set`
    pub async fn set(&self, bucket: &str, key: &str, value: impl AsRef<[u8]>) -> Result<(), Error> {
        let mut params = bucket_and_key(bucket, key);
        put_bytes(&mut params, value.as_ref());
        self.invoke("store", "set", params).await
    }

    /// `store.delete`
    pub async fn delete(&self, bucket: &str, key: &str) -> Result<(), Error> {
        self.invoke("store", "delete", bucket_and_key(bucket, key))
            .await
    }

    /// `store.exists`
    pub async fn exists(&self, bucket: &str, key: &str) -> Result<bool, Error> {
        self.invoke("store", "exists", bucket_and_key(bucket, key))
            .await
    }

    /// `store.list-keys`
    pub async fn list_keys(&self, bucket: &str, cursor: Option<u64>) -> Result<Page, Error> {
        let mut params = Vec::new();
        put_bytes(&mut params, bucket.as_bytes());
        params.push(u8::from(cursor.is_some()));
        if let Some(cursor) = cursor {
            put_number(&mut params, cursor);
        }
        self.invoke("store", "list-keys", params).await
    }

    /// All pages of `store.list-keys`.
    pub async fn pages(&self, bucket: &str) -> Result<Vec<Page>, Error> {
        let mut pages = vec![self.list_keys(bucket, None).await?];
        while let Some(cursor) = pages.last().and_then(|page| page.cursor) {
            pages.push(self.list_keys(bucket, Some(cursor)).await?);
        }
        Ok(pages)
    }

    /// All keys of a bucket, sorted and without duplicates.
    pub async fn keys(&self, bucket: &str) -> Result<Vec<String>, Error> {
        let mut keys: Vec<_> = self
            .pages(bucket)
            .await?
            .into_iter()
            .flat_map(|page| page.keys)
            .collect();
        keys.sort();
        keys.dedup();
        Ok(keys)
    }

    /// `atomics.increment`
    pub async fn increment(&self, bucket: &str, key: &str, delta: u64) -> Result<u64, Error> {
        let mut params = bucket_and_key(bucket, key);
        put_number(&mut params, delta);
        self.invoke("atomics", "increment", params).await
    }

    /// `batch.get-many`
    pub async fn get_many(&self, bucket: &str, keys: &[&str]) -> Result<Vec<Entry>, Error> {
        let List(entries) = self
            .invoke("batch", "get-many", bucket_and_keys(bucket, keys))
            .await?;
        Ok(entries)
    }

    /// `batch.set-many`
    pub async fn set_many(
        &self,
        bucket: &str,
        pairs: &[(&str, impl AsRef<[u8]>)],
    ) -> Result<(), Error> {
        let mut params = Vec::new();
        put_bytes(&mut params, bucket.as_bytes());
        put_list(&mut params, pairs, |out, (key, value)| {
            put_bytes(out, key.as_bytes());
            put_bytes(out, value.as_ref());
        });
        self.invoke("batch", "set-many", params).await
    }

    /// `batch.delete-many`
    pub async fn delete_many(&self, bucket: &str, keys: &[&str]) -> Result<(), Error> {
        self.invoke("batch", "delete-many", bucket_and_keys(bucket, keys))
            .await
    }

    /// The database of the link, after [`crate::redis::Redis::number_databases`].
    pub async fn database(&self) -> String {
        let number = self.get("", "database").await.expect("the link works");
        String::from_utf8(number.expect("the databases are numbered")).expect("a number")
    }

    /// The cheapest call that needs the link: without keys it succeeds whatever the state of Redis.
    pub async fn probe(&self) -> Result<(), Error> {
        self.get_many("", &[]).await.map(drop)
    }
}

fn bucket_and_keys(bucket: &str, keys: &[&str]) -> Vec<u8> {
    let mut params = Vec::new();
    put_bytes(&mut params, bucket.as_bytes());
    put_list(&mut params, keys, |out, key| put_bytes(out, key.as_bytes()));
    params
}
