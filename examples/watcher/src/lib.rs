//! A mirror: whatever a key is set to that the component is told of, it writes to the bucket `mirror`
//! under the same key; what is deleted there is deleted here. The key `changes` of that bucket counts
//! the calls.
//!
//! Which keys it is told of is up to the setting `WATCH` of the link from kvredis to it; where it writes,
//! to its own link to kvredis. What it watches must not take in what it writes.

use std::mem;

use exports::wasi::keyvalue::watcher::Guest;
use wasi::keyvalue::{atomics, store};

wit_bindgen::generate!({ world: "mirror", generate_all });

struct Mirror;

export!(Mirror);

impl Guest for Mirror {
    fn on_set(told: store::Bucket, key: String, value: Vec<u8>) {
        unusable(told);
        note("set", &key, |mirror| mirror.set(&key, &value));
    }

    fn on_delete(told: store::Bucket, key: String) {
        unusable(told);
        note("delete", &key, |mirror| mirror.delete(&key));
    }
}

/// The bucket that wasmCloud 1.9 hands to a watching component is none that its host knows: any use of
/// it, giving it back included, ends the component's instance.
fn unusable(bucket: store::Bucket) {
    mem::forget(bucket);
}

/// Does the same to the mirror, and counts the call.
fn note(what: &str, key: &str, change: impl FnOnce(&store::Bucket) -> Result<(), store::Error>) {
    let done = store::open("mirror").and_then(|mirror| {
        change(&mirror)?;
        atomics::increment(&mirror, "changes", 1)
    });
    if let Err(error) = done {
        eprintln!("cannot {what} {key:?} in the mirror: {error:?}");
    }
}
