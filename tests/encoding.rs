//! The handwritten encoding against the generated bindings: each decodes, byte for byte, what the
//! other encodes.

// Guarantees: G10

#![allow(clippy::unwrap_used, clippy::expect_used)]

use bytes::{Bytes, BytesMut};
use kvredis::testing::{
    Call, DecodeError, Error, ErrorKind, Function, KeyResponse, Response, SplitBytes, WatchEvent,
    Writer, encode_result,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use tokio_util::codec::{Decoder, Encoder};
use wrpc_transport::{Decode, Encode};

mod bindings {
    wit_bindgen_wrpc::generate!({ world: "provider", path: "wit", generate_all });
}

use bindings::exports::wrpc::keyvalue::store;

/// The stream type of deferred values, which these types do not have.
type NoStream = wrpc_transport::frame::Incoming;
type NoSink = wrpc_transport::frame::Outgoing;

fn generated<T: Encode<NoSink>>(value: T) -> Vec<u8>
where
    <T::Encoder as Encoder<T>>::Error: std::fmt::Debug,
{
    let mut bytes = BytesMut::new();
    T::Encoder::default().encode(value, &mut bytes).unwrap();
    bytes.to_vec()
}

fn read_by_generated<T: Decode<NoStream>>(bytes: &[u8]) -> T
where
    <T::Decoder as Decoder>::Error: std::fmt::Debug,
{
    let mut bytes = BytesMut::from(bytes);
    let value = T::Decoder::default().decode(&mut bytes).unwrap();
    assert!(bytes.is_empty(), "undecoded bytes remain");
    value.expect("the generated decoder needs more bytes")
}

fn by_hand(writer: Writer) -> Vec<u8> {
    writer.finish().flatten().collect()
}

fn error() -> impl Strategy<Value = Error> {
    prop_oneof![
        Just(Error::no_such_store()),
        Just(Error::access_denied()),
        ".{0,40}".prop_map(Error::other),
    ]
}

fn as_generated(error: Error) -> store::Error {
    match error.kind() {
        ErrorKind::NoSuchStore => store::Error::NoSuchStore,
        ErrorKind::AccessDenied => store::Error::AccessDenied,
        _ => store::Error::Other(error.to_string()),
    }
}

fn same_error(by_hand: &Error, generated: &store::Error) -> bool {
    match (by_hand.kind(), generated) {
        (ErrorKind::NoSuchStore, store::Error::NoSuchStore)
        | (ErrorKind::AccessDenied, store::Error::AccessDenied) => true,
        (ErrorKind::Other, store::Error::Other(message)) => by_hand.message() == message,
        _ => false,
    }
}

/// Texts and values whose encoded length takes one or two bytes.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![".{0,12}", "[a-z]{120,140}"]
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![vec(any::<u8>(), 0..16), vec(any::<u8>(), 120..300)]
}

/// Every proper prefix of the parameters is incomplete and reports the missing bytes.
fn assert_prefixes_incomplete(function: Function, params: &[u8]) {
    for cut in 0..params.len() {
        match function.decode(&params[..cut]) {
            Err(DecodeError::Incomplete(missing)) => {
                assert!(
                    (1..=params.len() - cut).contains(&missing),
                    "{missing} at {cut}"
                );
            }
            // A string is validated only when it is complete, so a split character is not an error.
            other => panic!("{function:?} cut at {cut}: {other:?}"),
        }
    }
    let mut longer = params.to_vec();
    longer.push(0);
    assert!(matches!(
        function.decode(&longer),
        Err(DecodeError::Invalid(_))
    ));
}

proptest! {
    #[test]
    fn watcher_calls_are_decoded_by_the_bindings(key in ".{0,40}", value in vec(any::<u8>(), 0..300)) {
        let told = WatchEvent::Set(&key, value.clone().into()).parameters();
        let params: (String, String, Vec<u8>) = read_by_generated(&by_hand(told));
        prop_assert_eq!(params, ("0".to_owned(), key.clone(), value));
        let told = WatchEvent::Deleted(&key).parameters();
        let params: (String, String) = read_by_generated(&by_hand(told));
        prop_assert_eq!(params, ("0".to_owned(), key));
    }

    #[test]
    fn single_key_parameters_match_the_bindings(bucket in text(), key in text(), value in value(), delta: u64) {
        let (b, k) = (bucket.as_str(), key.as_str());
        let params = generated((b, k));
        for (function, expected) in [
            (Function::Get, Call::Get { bucket: b, key: k }),
            (Function::Delete, Call::Delete { bucket: b, key: k }),
            (Function::Exists, Call::Exists { bucket: b, key: k }),
        ] {
            prop_assert_eq!(function.decode(&params), Ok(expected));
            assert_prefixes_incomplete(function, &params);
        }
        let params = generated((b, k, Bytes::from(value.clone())));
        let set = Call::Set { bucket: b, key: k, value: SplitBytes(&value, &[]) };
        prop_assert_eq!(Function::Set.decode(&params), Ok(set));
        assert_prefixes_incomplete(Function::Set, &params);
        for cut in 0..=params.len() {
            let (first, rest) = params.split_at(cut);
            let in_value = cut >= params.len() - value.len();
            let Some(Call::Set { bucket, key, value: SplitBytes(begin, end) }) =
                Function::Set.decode_split(first, rest)
            else {
                prop_assert!(!in_value, "not read at {}", cut);
                continue;
            };
            prop_assert_eq!((bucket, key), (b, k));
            prop_assert_eq!([begin, end].concat(), value.clone());
        }
        prop_assert_eq!(Function::Set.decode_split(&params, b"more"), None);
        let params = generated((b, k, delta));
        let increment = Call::Increment { bucket: b, key: k, delta };
        prop_assert_eq!(Function::Increment.decode(&params), Ok(increment));
        assert_prefixes_incomplete(Function::Increment, &params);
    }

    #[test]
    fn list_keys_parameters_match_the_bindings(bucket in text(), cursor in option::of(any::<u64>())) {
        let params = generated((bucket.as_str(), cursor));
        let list = Call::ListKeys { bucket: &bucket, cursor };
        prop_assert_eq!(Function::ListKeys.decode(&params), Ok(list));
        assert_prefixes_incomplete(Function::ListKeys, &params);
    }

    #[test]
    fn batch_parameters_match_the_bindings(bucket in text(), pairs in vec((text(), value()), 0..5)) {
        let keys: Vec<&str> = pairs.iter().map(|(key, _)| key.as_str()).collect();
        let b = bucket.as_str();
        let params = generated((b, keys.clone()));
        let get = Call::GetMany { bucket: b, keys: keys.clone() };
        prop_assert_eq!(Function::GetMany.decode(&params), Ok(get));
        let delete = Call::DeleteMany { bucket: b, keys };
        prop_assert_eq!(Function::DeleteMany.decode(&params), Ok(delete));
        assert_prefixes_incomplete(Function::GetMany, &params);
        let owned: Vec<(String, Bytes)> =
            pairs.iter().map(|(key, value)| (key.clone(), Bytes::from(value.clone()))).collect();
        let params = generated((b, owned));
        let pairs = pairs.iter().map(|(key, value)| (key.as_str(), value.as_slice())).collect();
        let set = Call::SetMany { bucket: b, pairs };
        prop_assert_eq!(Function::SetMany.decode(&params), Ok(set));
        assert_prefixes_incomplete(Function::SetMany, &params);
    }

    #[test]
    fn empty_and_numeric_results_match_the_bindings(
        sum in prop_oneof![any::<u64>().prop_map(Ok), error().prop_map(Err)],
    ) {
        let bytes = by_hand(encode_result(sum.clone().map(Response::Number)));
        prop_assert_eq!(&bytes, &generated(sum.clone().map_err(as_generated)));
        let read: Result<u64, store::Error> = read_by_generated(&bytes);
        match (&sum, &read) {
            (Ok(a), Ok(b)) => prop_assert_eq!(a, b),
            (Err(a), Err(b)) => prop_assert!(same_error(a, b)),
            _ => prop_assert!(false, "{:?} became {:?}", sum, read),
        }
        let nothing = sum.map(|_| ());
        let bytes = by_hand(encode_result(nothing.clone().map(|()| Response::Unit)));
        prop_assert_eq!(bytes, generated(nothing.clone().map_err(as_generated)));
        let answer = nothing.map(|()| true);
        let bytes = by_hand(encode_result(answer.clone().map(Response::Exists)));
        prop_assert_eq!(bytes, generated(answer.map_err(as_generated)));
    }

    #[test]
    fn value_results_match_the_bindings(value in option::of(value()), large in 0_usize..3) {
        let value = value.map(|value| Bytes::from(value.repeat(1 << (large * 5))));
        let bytes = by_hand(encode_result(Ok(Response::Value(value.clone()))));
        prop_assert_eq!(&bytes, &generated(Ok::<_, store::Error>(value.clone())));
        let read: Result<Option<Bytes>, store::Error> = read_by_generated(&bytes);
        prop_assert!(matches!(read, Ok(read) if read == value));
    }

    #[test]
    fn list_keys_results_match_the_bindings(keys in vec(text(), 0..5), cursor in option::of(any::<u64>())) {
        let page = KeyResponse { keys: keys.clone(), cursor };
        let bytes = by_hand(encode_result(Ok(Response::Keys(page))));
        let expected = store::KeyResponse { keys: keys.clone(), cursor };
        prop_assert_eq!(&bytes, &generated(Ok::<_, store::Error>(expected)));
        let read: Result<store::KeyResponse, store::Error> = read_by_generated(&bytes);
        let read = read.unwrap();
        prop_assert_eq!((read.keys, read.cursor), (keys, cursor));
    }

    #[test]
    fn batch_results_match_the_bindings(pairs in vec((text(), option::of(value())), 0..5)) {
        let keys: Vec<&str> = pairs.iter().map(|(key, _)| key.as_str()).collect();
        let values = pairs.iter().map(|(_, value)| value.clone().map(Bytes::from)).collect();
        let bytes = by_hand(encode_result(Ok(Response::Entries { keys, values })));
        let expected: Vec<Option<(String, Bytes)>> = pairs
            .iter()
            .map(|(key, value)| Some((key.clone(), Bytes::from(value.clone()?))))
            .collect();
        prop_assert_eq!(&bytes, &generated(Ok::<_, store::Error>(expected.clone())));
        let read: Result<Vec<Option<(String, Bytes)>>, store::Error> = read_by_generated(&bytes);
        prop_assert_eq!(read.unwrap(), expected);
    }

    // Guarantees: G48
    #[test]
    fn arbitrary_bytes_are_decoded_without_panic(
        junk in vec(prop_oneof![any::<u8>(), 0_u8..4], 0..64),
        cut in any::<prop::sample::Index>(),
    ) {
        let (first, rest) = junk.split_at(cut.index(junk.len() + 1));
        for function in Function::ALL {
            // Decoding must not trust a claimed length.
            match (function.decode(first), function.decode(&junk)) {
                (Err(DecodeError::Incomplete(missing)), Ok(_)) => {
                    prop_assert!((1..=rest.len()).contains(&missing));
                }
                (Err(DecodeError::Incomplete(missing)), _) => prop_assert!(missing > 0),
                (Err(DecodeError::Invalid(_)), whole) => {
                    prop_assert!(matches!(whole, Err(DecodeError::Invalid(_))));
                }
                (Ok(_), whole) => prop_assert!(whole.is_ok() == rest.is_empty()),
            }
            if let Some(Call::Set { bucket, key, value: SplitBytes(begin, end) }) =
                function.decode_split(first, rest)
            {
                let value = [begin, end].concat();
                let set = Call::Set { bucket, key, value: SplitBytes(&value, &[]) };
                prop_assert_eq!(function.decode(&junk), Ok(set));
            }
        }
    }
}
