//! Reads arbitrary bytes as the parameters of calls, whole and cut in two, as they come in one
//! message or several.
//!
//! Nothing to compare with is needed: it must not panic, must not allocate what a length claims
//! (`make fuzz` limits allocations), and must not contradict itself. That what it reads is what was
//! sent is tested in tests/encoding.rs.

#![no_main]

use kvredis::serve::call::{Call, Function};
use kvredis::serve::wire::Unreadable;
use kvredis::store::Parts;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    // Which function, and where the first message ends.
    let [function, low, high, params @ ..] = input else {
        return;
    };
    let function = Function::ALL[usize::from(*function) % Function::ALL.len()];
    let cut = usize::from(u16::from_le_bytes([*low, *high])) % (params.len() + 1);
    let (first, rest) = params.split_at(cut);

    let whole = function.read(params);
    if let Ok(call) = &whole {
        assert!(held(call) <= params.len(), "more than was sent");
    }
    match function.read(first) {
        Err(Unreadable::Incomplete(missing)) => {
            assert!(missing > 0, "it waits for nothing");
            // It may be too little, for there are more parameters; never too much.
            assert!(
                whole.is_err() || missing <= rest.len(),
                "it would wait for ever"
            );
        }
        Err(Unreadable::Invalid(_)) => {
            let invalid = matches!(whole, Err(Unreadable::Invalid(_)));
            assert!(invalid, "what follows has made it right");
        }
        Ok(_) => assert_eq!(whole.is_ok(), rest.is_empty(), "bytes are left over"),
    }
    match function.read_parts(first, rest) {
        Some(Call::Set {
            bucket,
            key,
            value: Parts(begin, end),
        }) => {
            let value = [begin, end].concat();
            let set = Call::Set {
                bucket,
                key,
                value: Parts(&value, &[]),
            };
            assert_eq!(whole, Ok(set), "in parts it is something else");
        }
        Some(_) => panic!("only `set` is read in parts"),
        None => {
            let in_value =
                matches!(&whole, Ok(Call::Set { value, .. }) if value.size() >= rest.len());
            assert!(!in_value, "cut within its value, it can be read in parts");
        }
    }
});

/// The bytes of all texts and values of a call.
fn held(call: &Call<'_>) -> usize {
    match call {
        Call::Get { bucket, key }
        | Call::Delete { bucket, key }
        | Call::Exists { bucket, key }
        | Call::Increment { bucket, key, .. } => bucket.len() + key.len(),
        Call::Set { bucket, key, value } => bucket.len() + key.len() + value.size(),
        Call::ListKeys { bucket, .. } => bucket.len(),
        Call::GetMany { bucket, keys } | Call::DeleteMany { bucket, keys } => {
            bucket.len() + keys.iter().map(|key| key.len()).sum::<usize>()
        }
        Call::SetMany { bucket, pairs } => {
            let pairs = pairs.iter().map(|(key, value)| key.len() + value.len());
            bucket.len() + pairs.sum::<usize>()
        }
    }
}
