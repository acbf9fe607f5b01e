//! From a bucket and a key to the key in Redis, and back.
//!
//! Redis has one space of keys for each database; a link's `PREFIX` and `BUCKET_LAYOUT` cut its
//! buckets out of it. Which buckets a link may open is decided here too.

use std::borrow::Cow;
use std::collections::BTreeSet;

use crate::error::Error;
use crate::settings::link_settings::{BucketLayout, Settings};

/// The name of the bucket that holds plain keys under `prefix-named`, where `""` means it as well.
const DEFAULT_BUCKET: &str = "default";

/// How a link's buckets and keys map to keys of Redis.
#[derive(Debug)]
pub(crate) struct Keyspace {
    prefix: String,
    layout: BucketLayout,
    buckets: Option<BTreeSet<String>>,
}

/// A bucket that a link may use.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Bucket<'a> {
    /// What stands before each of its keys.
    prefix: Cow<'a, str>,
}

impl Keyspace {
    /// The keyspace of a link with these settings.
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            prefix: settings.prefix.clone(),
            layout: settings.layout,
            buckets: settings.buckets.clone(),
        }
    }

    /// Finds a bucket by the name that a component gave.
    ///
    /// # Errors
    ///
    /// [`NoSuchStore`](crate::error::ErrorKind::NoSuchStore) for a bucket that the link does not have.
    pub(crate) fn bucket<'a>(&'a self, name: &str) -> Result<Bucket<'a>, Error> {
        if !self.admits(name) {
            return Err(Error::no_such_store());
        }
        let prefix = if self.is_default(name) {
            Cow::Borrowed(self.prefix.as_str())
        } else {
            Cow::Owned(format!("{}{name}:", self.prefix))
        };
        Ok(Bucket { prefix })
    }

    /// Whether a bucket of this name is kept apart only since kvredis: wasmCloud's own provider
    /// stored its keys without the name.
    pub(crate) fn is_prefixed(&self, name: &str) -> bool {
        self.layout == BucketLayout::PrefixNamed && !self.is_default(name)
    }

    fn admits(&self, name: &str) -> bool {
        if self.layout != BucketLayout::Flat && name.contains(':') {
            // `a:b` and its key `c` would be bucket `a` and its key `b:c`.
            return false;
        }
        let Some(buckets) = &self.buckets else {
            return true;
        };
        let same_as_default = name.is_empty() && self.layout != BucketLayout::PrefixAll;
        buckets.contains(if same_as_default {
            DEFAULT_BUCKET
        } else {
            name
        })
    }

    /// Whether the bucket adds nothing to the link's prefix.
    fn is_default(&self, name: &str) -> bool {
        match self.layout {
            BucketLayout::PrefixNamed => name.is_empty() || name == DEFAULT_BUCKET,
            BucketLayout::PrefixAll => false,
            BucketLayout::Flat => true,
        }
    }
}

impl Bucket<'_> {
    /// The key in Redis.
    pub(crate) fn redis_key<'k>(&self, key: &'k str) -> Cow<'k, str> {
        if self.prefix.is_empty() {
            Cow::Borrowed(key)
        } else {
            Cow::Owned(format!("{}{key}", self.prefix))
        }
    }

    /// The component's name for a key in Redis, or `None` if it is of another bucket.
    pub(crate) fn key_of<'k>(&self, redis_key: &'k str) -> Option<&'k str> {
        redis_key.strip_prefix(self.prefix.as_ref())
    }

    /// The glob pattern of the bucket's keys, or `None` where it is every key.
    pub(crate) fn pattern(&self) -> Option<String> {
        (!self.prefix.is_empty()).then(|| self.pattern_of("*"))
    }

    /// The glob pattern in Redis for keys of the bucket that are given by a glob pattern.
    pub(crate) fn pattern_of(&self, keys: &str) -> String {
        let mut pattern = String::with_capacity(self.prefix.len() + keys.len() + 8);
        for character in self.prefix.chars() {
            if matches!(character, '*' | '?' | '[' | ']' | '\\') {
                pattern.push('\\');
            }
            pattern.push(character);
        }
        pattern.push_str(keys);
        pattern
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LAYOUTS: [BucketLayout; 3] = [
        BucketLayout::PrefixNamed,
        BucketLayout::PrefixAll,
        BucketLayout::Flat,
    ];

    fn keyspace(layout: BucketLayout, prefix: &str, buckets: Option<&[&str]>) -> Keyspace {
        Keyspace {
            prefix: prefix.to_owned(),
            layout,
            buckets: buckets.map(|names| names.iter().map(|name| (*name).to_owned()).collect()),
        }
    }

    fn redis_key(layout: BucketLayout, bucket: &str) -> String {
        let keyspace = keyspace(layout, "p/", None);
        keyspace.bucket(bucket).unwrap().redis_key("k").into_owned()
    }

    #[test]
    fn each_layout_keeps_its_promise() {
        use BucketLayout::{Flat, PrefixAll, PrefixNamed};
        assert_eq!(redis_key(PrefixNamed, ""), "p/k");
        assert_eq!(redis_key(PrefixNamed, "default"), "p/k");
        assert_eq!(redis_key(PrefixNamed, "b"), "p/b:k");
        assert_eq!(redis_key(PrefixAll, ""), "p/:k");
        assert_eq!(redis_key(PrefixAll, "default"), "p/default:k");
        assert_eq!(redis_key(PrefixAll, "b"), "p/b:k");
        assert_eq!(redis_key(Flat, ""), "p/k");
        assert_eq!(redis_key(Flat, "b"), "p/k");
        assert_eq!(redis_key(Flat, "a:b"), "p/k");
    }

    #[test]
    fn a_bucket_with_a_colon_is_none() {
        for layout in [BucketLayout::PrefixNamed, BucketLayout::PrefixAll] {
            let keyspace = keyspace(layout, "", None);
            assert_eq!(keyspace.bucket("a:b"), Err(Error::no_such_store()));
        }
    }

    #[test]
    fn only_listed_buckets_are_open() {
        for layout in LAYOUTS {
            let keyspace = keyspace(layout, "", Some(&["a", "default"]));
            assert!(keyspace.bucket("a").is_ok());
            assert_eq!(keyspace.bucket("b"), Err(Error::no_such_store()));
            assert_eq!(
                keyspace.bucket("").is_ok(),
                layout != BucketLayout::PrefixAll,
                "{layout:?}: the empty name is the default bucket's, or a bucket's of its own"
            );
        }
        let keyspace = keyspace(BucketLayout::PrefixNamed, "", Some(&["a"]));
        assert_eq!(keyspace.bucket(""), Err(Error::no_such_store()));
    }

    #[test]
    fn patterns_take_prefixes_literally() {
        let keyspace = keyspace(BucketLayout::PrefixAll, "[x]\\", None);
        let bucket = keyspace.bucket("a*b?").unwrap();
        assert_eq!(bucket.pattern().unwrap(), r"\[x\]\\a\*b\?:*");
        let all = self::keyspace(BucketLayout::Flat, "", None);
        assert_eq!(all.bucket("b").unwrap().pattern(), None);
    }

    proptest! {
        #[test]
        fn keys_come_back(prefix in ".{0,8}", bucket in "[^:]{0,8}", key in ".{0,16}") {
            for layout in LAYOUTS {
                let keyspace = keyspace(layout, &prefix, None);
                let bucket = keyspace.bucket(&bucket).unwrap();
                let redis_key = bucket.redis_key(&key);
                prop_assert_eq!(bucket.key_of(&redis_key), Some(key.as_str()));
            }
        }

        #[test]
        fn no_two_buckets_share_a_key(
            a in "[^:]{0,4}", b in "[^:]{0,4}", key_a in "[a:]{0,4}", key_b in "[a:]{0,4}",
        ) {
            prop_assume!(a != b);
            let keyspace = keyspace(BucketLayout::PrefixAll, "p", None);
            let (a, b) = (keyspace.bucket(&a).unwrap(), keyspace.bucket(&b).unwrap());
            prop_assert_ne!(a.redis_key(&key_a), b.redis_key(&key_b));
        }
    }
}
