//! The calls that the workloads consist of, in wRPC's encoding. Encoded here by hand, so that the
//! load generator shares no code with what it measures.

/// The size of a value, unless a workload says otherwise.
pub const VALUE_BYTES: usize = 100;

/// One call.
#[derive(Clone)]
pub struct Operation {
    /// Interface and function, as in the NATS subject.
    pub function: &'static str,
    /// The encoded parameters.
    pub params: Vec<u8>,
    /// The size of the complete, encoded result.
    pub result_bytes: usize,
}

pub fn get(key: &str, size: usize) -> Operation {
    Operation {
        function: "store@0.2.0-draft.get",
        params: [string(""), string(key)].concat(),
        result_bytes: 2 + list_bytes(size),
    }
}

pub fn set(key: &str, size: usize) -> Operation {
    Operation {
        function: "store@0.2.0-draft.set",
        params: [string(""), string(key), leb128(size), value(size)].concat(),
        result_bytes: 1,
    }
}

pub fn increment(key: &str) -> Operation {
    Operation {
        function: "atomics@0.2.0-draft.increment",
        params: [string(""), string(key), leb128(1)].concat(),
        result_bytes: 2,
    }
}

/// Reads `keys`, all of which must hold values of [`VALUE_BYTES`].
pub fn get_many(keys: &[String]) -> Operation {
    let mut params = [string(""), leb128(keys.len())].concat();
    let mut result_bytes = 1 + leb128(keys.len()).len();
    for key in keys {
        params.extend(string(key));
        result_bytes += 1 + string(key).len() + list_bytes(VALUE_BYTES);
    }
    Operation {
        function: "batch@0.2.0-draft.get-many",
        params,
        result_bytes,
    }
}

/// A value of `size` bytes.
pub fn value(size: usize) -> Vec<u8> {
    (0..size).map(|index| (index % 251) as u8).collect()
}

fn list_bytes(size: usize) -> usize {
    leb128(size).len() + size
}

fn string(text: &str) -> Vec<u8> {
    [leb128(text.len()), text.into()].concat()
}

fn leb128(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}
