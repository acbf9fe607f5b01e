//! A mirror: it writes the value of every changed key to the same key in the bucket `mirror`, and deletes
//! the keys there that are deleted in Redis. The key `changes` of that bucket counts
//! the calls.
//!
//! The setting `WATCH` of the link from kvredis selects the keys; the link to kvredis determines where the
//! component writes. `WATCH` must not match the keys that it writes.

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

/// wasmCloud 1.9 passes a bucket that its own host does not know to the component: any use of it,
/// including dropping it, traps. See `docs/watching.md` of kvredis.
fn unusable(bucket: store::Bucket) {
    mem::forget(bucket);
}

/// Applies the same change to the mirror, and counts the call.
fn note(what: &str, key: &str, change: impl FnOnce(&store::Bucket) -> Result<(), store::Error>) {
    let done = store::open("mirror").and_then(|mirror| {
        change(&mirror)?;
        atomics::increment(&mirror, "changes", 1)
    });
    if let Err(error) = done {
        eprintln!("cannot {what} {key:?} in the mirror: {error:?}");
    }
}
