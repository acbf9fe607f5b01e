//! The cursor of a listing: a position from which any process can continue, in 64 bits.
//!
//! A `SCAN` cursor has a meaning only for the server process that returned it: a restarted server, or
//! the replica that a failover promoted, hashes keys with another seed, and continuing there would
//! skip keys silently. So a cursor carries a fingerprint of that process (its `run_id`); where it does
//! not match, the scan of the server begins again, and keys may be listed twice.
//!
//! In a cluster the servers are scanned one after another, and a cursor also holds the lowest slot
//! that has not been listed. The owners of the slots show which servers have been scanned only as
//! long as no slot has moved since the listing began; therefore the fingerprint also covers the
//! partition of the slots. After a slot has moved, the listing proceeds range by range: it skips only
//! slots that the scanned server owns at the end of its scan. Those among them that did not move were
//! there throughout, so that no key of such a slot is missed. A server with several ranges is scanned
//! once for each.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use redis::Value;

/// Bits of the parts of a cursor. One more bit distinguishes the two forms.
const SERVER_CURSOR_BITS: u32 = 51;
const SERVER_FINGERPRINT_BITS: u32 = 12;
const SLOT_CURSOR_BITS: u32 = 37;
const SLOT_FINGERPRINT_BITS: u32 = 11;
const SHIFT_BITS: u32 = 6;
const CLUSTER_FORM: u64 = 1 << 63;

/// The request of one page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ListRequest<'a> {
    /// The cursor of the previous page, or 0.
    pub(crate) cursor: u64,
    pub(crate) pattern: Option<&'a str>,
    pub(crate) count: u32,
}

/// Keys, and the cursor of the next page or 0.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) cursor: u64,
    pub(crate) keys: Vec<Value>,
}

/// Identifies a server process, see [`Position`]. All processes are equal if the ACL forbids `INFO`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RunId(pub(crate) u64);

impl RunId {
    /// The process whose `INFO server` has this `run_id`.
    pub(crate) fn of(run_id: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        run_id.hash(&mut hasher);
        Self(hasher.finish())
    }
}

/// Identifies the process and the partition under which a cursor was made: a cursor remains valid as
/// long as both are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint(u64);

impl Fingerprint {
    /// The fingerprint of a server process, and of the partition of the slots where it must not have
    /// changed.
    pub(crate) fn new(partition: Option<u64>, run_id: Option<RunId>) -> Self {
        let mut hasher = DefaultHasher::new();
        (partition, run_id.map(|run_id| run_id.0)).hash(&mut hasher);
        Self(hasher.finish())
    }

    /// Returns true if `other`, which has fewer bits, is the same.
    fn matches(self, other: u16, bits: u32) -> bool {
        self.truncated(bits) == u64::from(other)
    }

    fn truncated(self, bits: u32) -> u64 {
        self.0 >> (64 - bits)
    }
}

/// The position at which a listing continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Position {
    Start,
    /// On the one server that has all keys.
    Server {
        fingerprint: u16,
        cursor: u64,
    },
    /// On the owner of `slot`; all lower slots are listed.
    Slot {
        slot: u16,
        /// True if no slot has moved since the listing began.
        unmoved: bool,
        fingerprint: u16,
        cursor: u64,
    },
}

impl Position {
    /// Decodes the cursor of a component. Every number is a position; an invented one starts
    /// anywhere.
    pub(crate) fn decode(listing_cursor: u64) -> Self {
        if listing_cursor == 0 {
            return Self::Start;
        }
        if listing_cursor & CLUSTER_FORM == 0 {
            let fingerprint = (listing_cursor >> SERVER_CURSOR_BITS) as u16;
            let cursor = unpack(listing_cursor, SERVER_CURSOR_BITS);
            return Self::Server {
                fingerprint,
                cursor,
            };
        }
        let upper = listing_cursor >> SLOT_CURSOR_BITS;
        let fingerprint = (upper & ((1 << SLOT_FINGERPRINT_BITS) - 1)) as u16;
        let upper = upper >> SLOT_FINGERPRINT_BITS;
        Self::Slot {
            slot: ((upper >> 1) & 0x3fff) as u16,
            unmoved: upper & 1 == 1,
            fingerprint,
            cursor: unpack(listing_cursor, SLOT_CURSOR_BITS),
        }
    }

    /// Returns true if the scan of a server has begun and not ended.
    pub(crate) fn is_within_a_scan(self) -> bool {
        match self {
            Self::Start => false,
            Self::Server { cursor, .. } | Self::Slot { cursor, .. } => cursor != 0,
        }
    }

    /// Returns true if the position was made under `now`.
    pub(crate) fn was_made_under(self, now: Fingerprint) -> bool {
        match self {
            Self::Start => true,
            Self::Server { fingerprint, .. } => now.matches(fingerprint, SERVER_FINGERPRINT_BITS),
            Self::Slot { fingerprint, .. } => now.matches(fingerprint, SLOT_FINGERPRINT_BITS),
        }
    }
}

/// The cursor that continues on the one server; `None` for a server's cursor that does not fit.
pub(crate) fn server_cursor(fingerprint: Fingerprint, cursor: u64) -> Option<u64> {
    let upper = fingerprint.truncated(SERVER_FINGERPRINT_BITS) << SERVER_CURSOR_BITS;
    Some(upper | pack(cursor, SERVER_CURSOR_BITS)?)
}

/// The cursor that continues on the owner of `slot`; `None` for a server's cursor that does not fit.
pub(crate) fn slot_cursor(
    slot: u16,
    unmoved: bool,
    fingerprint: Fingerprint,
    cursor: u64,
) -> Option<u64> {
    let upper = u64::from(slot) << 1 | u64::from(unmoved);
    let upper = upper << SLOT_FINGERPRINT_BITS | fingerprint.truncated(SLOT_FINGERPRINT_BITS);
    Some(CLUSTER_FORM | upper << SLOT_CURSOR_BITS | pack(cursor, SLOT_CURSOR_BITS)?)
}

/// Fits a server's cursor into so many bits: as it is, or without its trailing zeros. Servers that count
/// in the upper bits return cursors near 2^64 (spring-data-redis#2796).
fn pack(cursor: u64, bits: u32) -> Option<u64> {
    if cursor < 1 << (bits - 1) {
        return Some(cursor);
    }
    let shift = cursor.trailing_zeros();
    let mantissa = cursor >> shift;
    let mantissa_bits = bits - 1 - SHIFT_BITS;
    (mantissa < 1 << mantissa_bits)
        .then(|| 1 << (bits - 1) | u64::from(shift) << mantissa_bits | mantissa)
}

fn unpack(packed: u64, bits: u32) -> u64 {
    let packed = packed & ((1 << bits) - 1);
    if packed < 1 << (bits - 1) {
        return packed;
    }
    let mantissa_bits = bits - 1 - SHIFT_BITS;
    let shift = (packed >> mantissa_bits) & ((1 << SHIFT_BITS) - 1);
    let mantissa = packed & ((1 << mantissa_bits) - 1);
    // An invented cursor may have bits that no server's cursor has.
    mantissa.checked_shl(shift as u32).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fingerprint(run_id: &str) -> Fingerprint {
        Fingerprint::new(Some(7), Some(RunId::of(run_id)))
    }

    proptest! {
        #[test]
        fn positions_survive_encoding_and_decoding(
            slot in 0..16_384_u16,
            unmoved: bool,
            cursor in 0..1_u64 << 36,
        ) {
            let print = fingerprint("a");
            let position = Position::decode(slot_cursor(slot, unmoved, print, cursor).unwrap());
            let Position::Slot { slot: s, unmoved: u, cursor: c, .. } = position else {
                panic!("{position:?}")
            };
            prop_assert_eq!((s, u, c), (slot, unmoved, cursor));
            prop_assert!(position.was_made_under(print));
            prop_assert!(!position.was_made_under(fingerprint("b")));
        }

        #[test]
        fn server_cursors_survive_encoding_and_decoding(cursor in 1..1_u64 << 50) {
            let position = Position::decode(server_cursor(fingerprint("a"), cursor).unwrap());
            let Position::Server { cursor: c, .. } = position else {
                panic!("{position:?}")
            };
            prop_assert_eq!(c, cursor);
            prop_assert!(position.was_made_under(fingerprint("a")));
            prop_assert!(!position.was_made_under(fingerprint("b")));
        }

        #[test]
        fn every_number_decodes_to_a_position(invented: u64) {
            Position::decode(invented);
        }
    }

    #[test]
    fn cursors_that_count_in_the_upper_bits_fit() {
        // Returned by ElastiCache Serverless.
        for cursor in [9_286_422_431_637_962_752, 1 << 63, u64::MAX << 38] {
            let in_cluster = slot_cursor(16_383, true, fingerprint("a"), cursor).unwrap();
            let Position::Slot { cursor: c, .. } = Position::decode(in_cluster) else {
                panic!("{in_cluster}")
            };
            assert_eq!(c, cursor);
        }
        assert_eq!(server_cursor(fingerprint("a"), u64::MAX), None);
    }
}
