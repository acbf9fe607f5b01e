//! Decodes arbitrary bytes as the parameters of a call, at once and split in two, because parameters
//! arrive in one message or in several.
//!
//! The target checks properties that need no reference decoder: decoding does not panic, does not
//! allocate what a length field claims (`make fuzz` limits allocations), and both ways of decoding
//! agree. tests/encoding.rs tests that a decoded call equals the encoded one.

#![no_main]

use kvredis::testing::{Call, DecodeError, Function, SplitBytes};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    // The first bytes select the function and the length of the first message.
    let [function, low, high, params @ ..] = input else {
        return;
    };
    let function = Function::ALL[usize::from(*function) % Function::ALL.len()];
    let cut = usize::from(u16::from_le_bytes([*low, *high])) % (params.len() + 1);
    let (first, rest) = params.split_at(cut);

    let whole = function.decode(params);
    if let Ok(call) = &whole {
        assert!(
            payload_size(call) <= params.len(),
            "the call is larger than its encoding"
        );
    }
    match function.decode(first) {
        Err(DecodeError::Incomplete(missing)) => {
            assert!(missing > 0, "incomplete, but no bytes are missing");
            // A lower bound: lengths that are still missing may announce more bytes.
            assert!(
                whole.is_err() || missing <= rest.len(),
                "it waits for more bytes than the call has"
            );
        }
        Err(DecodeError::Invalid(_)) => {
            let invalid = matches!(whole, Err(DecodeError::Invalid(_)));
            assert!(invalid, "more bytes have made an invalid call valid");
        }
        Ok(_) => assert_eq!(
            whole.is_ok(),
            rest.is_empty(),
            "trailing bytes must make a call invalid"
        ),
    }
    match function.decode_split(first, rest) {
        Some(Call::Set {
            bucket,
            key,
            value: SplitBytes(begin, end),
        }) => {
            let value = [begin, end].concat();
            let set = Call::Set {
                bucket,
                key,
                value: SplitBytes(&value, &[]),
            };
            assert_eq!(whole, Ok(set), "split bytes decode to another call");
        }
        Some(_) => panic!("only `set` is decoded from split bytes"),
        None => {
            let is_split_in_value =
                matches!(&whole, Ok(Call::Set { value, .. }) if value.size() >= rest.len());
            assert!(
                !is_split_in_value,
                "a `set` that is split within its value must decode"
            );
        }
    }
});

/// The total size of the strings and values of a call.
fn payload_size(call: &Call<'_>) -> usize {
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
