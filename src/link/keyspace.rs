//! Maps buckets and keys to keys in Redis, and back, as `PREFIX` and `BUCKET_LAYOUT` of a link define it;
//! decides which buckets the link has.

use std::borrow::Cow;
use std::collections::BTreeSet;

use crate::error::Error;
use crate::settings::link_settings::{BucketLayout, Settings};

/// The name of the default bucket, whose keys have no bucket prefix under `prefix-named`. `""` is the
/// same bucket.
const DEFAULT_BUCKET: &str = "default";

/// The buckets of a link, and their mapping to keys in Redis.
#[derive(Debug)]
pub(crate) struct Keyspace {
    prefix: String,
    layout: BucketLayout,
    buckets: Option<BTreeSet<String>>,
}

/// A bucket of a link.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Bucket<'a> {
    /// The part of its Redis keys before the component's key.
    prefix: Cow<'a, str>,
}

impl Keyspace {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            prefix: settings.prefix.clone(),
            layout: settings.layout,
            buckets: settings.buckets.clone(),
        }
    }

    /// Finds a bucket by the name that a component uses.
    ///
    /// # Errors
    ///
    /// [`NoSuchStore`](crate::error::ErrorKind::NoSuchStore) for a bucket that the link does not have.
    pub(crate) fn bucket<'a>(&'a self, name: &str) -> Result<Bucket<'a>, Error> {
        if !self.allows(name) {
            return Err(Error::no_such_store());
        }
        let prefix = if self.is_default(name) {
            Cow::Borrowed(self.prefix.as_str())
        } else {
            Cow::Owned(format!("{}{name}:", self.prefix))
        };
        Ok(Bucket { prefix })
    }

    /// Returns true if the keys of this bucket have a prefix that wasmCloud's own provider (provider-keyvalue-redis)
    /// does not use.
    pub(crate) fn is_prefixed(&self, name: &str) -> bool {
        self.layout == BucketLayout::PrefixNamed && !self.is_default(name)
    }

    fn allows(&self, name: &str) -> bool {
        if self.layout != BucketLayout::Flat && name.contains(':') {
            // Key `c` of bucket `a:b` would be key `b:c` of bucket `a`.
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

    /// Returns true if the bucket adds nothing to the link's prefix.
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

    /// The component's key for a key in Redis, or `None` if that belongs to another bucket.
    pub(crate) fn key_of<'k>(&self, redis_key: &'k str) -> Option<&'k str> {
        redis_key.strip_prefix(self.prefix.as_ref())
    }

    /// The glob pattern of the bucket's keys, or `None` for all keys.
    pub(crate) fn pattern(&self) -> Option<String> {
        (!self.prefix.is_empty()).then(|| self.pattern_of("*"))
    }

    /// The glob pattern in Redis for a glob pattern of the bucket's keys.
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
    fn each_layout_maps_buckets_as_documented() {
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
    fn bucket_names_with_a_colon_are_rejected() {
        for layout in [BucketLayout::PrefixNamed, BucketLayout::PrefixAll] {
            let keyspace = keyspace(layout, "", None);
            assert_eq!(keyspace.bucket("a:b"), Err(Error::no_such_store()));
        }
    }

    #[test]
    fn only_listed_buckets_exist() {
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
    fn patterns_escape_glob_characters_of_prefixes() {
        let keyspace = keyspace(BucketLayout::PrefixAll, "[x]\\", None);
        let bucket = keyspace.bucket("a*b?").unwrap();
        assert_eq!(bucket.pattern().unwrap(), r"\[x\]\\a\*b\?:*");
        let all = self::keyspace(BucketLayout::Flat, "", None);
        assert_eq!(all.bucket("b").unwrap().pattern(), None);
    }

    proptest! {
        #[test]
        fn redis_keys_map_back_to_keys(prefix in ".{0,8}", bucket in "[^:]{0,8}", key in ".{0,16}") {
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
