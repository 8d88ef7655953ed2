//! A block of ids: what is known of the ids of [`BLOCK_ENTRIES`] consecutive entries of a store.
//!
//! Its summary is small and held in memory while the store is open; its fingerprints are in a slot and read when an
//! id falls into one of the summary's ranges.
//!
//! ```text
//! summary       version 1 (1) | count, uvarint | slot of the fingerprints, uvarint |
//!               ranges: uvarint count; each: start (8), end (8), big-endian, ascending, both included
//! fingerprints  version 1 (1) | crc32 over the rest (4, little-endian) |
//!               hashes: count times 4 bytes, little-endian, ascending |
//!               places: count times 2 bytes, little-endian: how far behind the block's first entry
//! ```
//!
//! A range is one of the first eight bytes of ids: a block has several, so that one writer whose clock is far off does
//! not make every block look as if it might hold every id.

use bytes::{Buf, BufMut, Bytes};

use super::Malformed;
use crate::model::EntryId;
use crate::model::varint::{read_uvarint, write_uvarint};

/// Entries of a block. Six bytes each have to fit into a slot, two bytes have to hold a place.
pub(in crate::storage::sled) const BLOCK_ENTRIES: usize = 8_192;
/// Most ranges of a block: as many groups of writers with clocks of their own are told apart.
pub(in crate::storage::sled) const RANGES_MAX: usize = 16;

const VERSION: u8 = 1;
const HEAD_BYTES: usize = 5;
const HASH_BYTES: usize = 4;
const PLACE_BYTES: usize = 2;

/// The first eight bytes of an id: its time, and a few bits more.
pub(in crate::storage::sled) fn prefix(id: EntryId) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *id.as_bytes();
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// The hash that fingerprints are made of. Persisted: it never changes.
pub(in crate::storage::sled) fn hash(id: EntryId) -> u32 {
    let id = u128::from_be_bytes(*id.as_bytes());
    let (high, low) = ((id >> 64) as u64, id as u64);
    let mixed = (high.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ low.rotate_left(32))
        .wrapping_mul(0xD6E8_FEB8_6659_FD93);
    (mixed >> 32) as u32
}

/// What is held in memory of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::storage::sled) struct Summary {
    /// Number of entries, at least one.
    pub(in crate::storage::sled) count: u32,
    /// The slot of its fingerprints.
    pub(in crate::storage::sled) slot: u64,
    /// Where the prefixes of its ids are, first and last included, ascending.
    pub(in crate::storage::sled) ranges: Vec<(u64, u64)>,
}

impl Summary {
    /// Of a block with these ids, none of them missing, whose fingerprints are in `slot`.
    pub(in crate::storage::sled) fn of(ids: &[EntryId], slot: u64) -> Self {
        let mut prefixes: Vec<u64> = ids.iter().copied().map(prefix).collect();
        prefixes.sort_unstable();
        Self { count: ids.len() as u32, slot, ranges: ranges(&prefixes) }
    }

    pub(in crate::storage::sled) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        write_uvarint(&mut out, u64::from(self.count));
        write_uvarint(&mut out, self.slot);
        write_uvarint(&mut out, self.ranges.len() as u64);
        for (start, end) in &self.ranges {
            out.put_u64(*start);
            out.put_u64(*end);
        }
        out
    }

    pub(in crate::storage::sled) fn decode(value: &[u8]) -> Result<Self, Malformed> {
        Self::parse(value).ok_or(Malformed("block summary"))
    }

    fn parse(value: &[u8]) -> Option<Self> {
        let (version, mut rest) = value.split_first()?;
        let count = u32::try_from(read_uvarint(&mut rest)?).ok().filter(|count| *count > 0)?;
        let slot = read_uvarint(&mut rest)?;
        let len = usize::try_from(read_uvarint(&mut rest)?).ok()?;
        if *version != VERSION || len > RANGES_MAX || rest.len() != len * 16 {
            return None;
        }
        let ranges = (0..len).map(|_| (rest.get_u64(), rest.get_u64())).collect();
        Some(Self { count, slot, ranges })
    }
}

/// Covers `prefixes`, which are sorted, with at most [`RANGES_MAX`] ranges, leaving out the widest gaps.
fn ranges(prefixes: &[u64]) -> Vec<(u64, u64)> {
    let gap = |at: &usize| prefixes[*at] - prefixes[*at - 1];
    let mut cuts: Vec<usize> = (1..prefixes.len()).collect();
    if cuts.len() >= RANGES_MAX {
        cuts.select_nth_unstable_by_key(RANGES_MAX - 2, |at| std::cmp::Reverse(gap(at)));
        cuts.truncate(RANGES_MAX - 1);
    }
    cuts.sort_unstable();
    let starts = std::iter::once(0).chain(cuts.iter().copied());
    let ends = cuts.iter().copied().chain([prefixes.len()]);
    starts.zip(ends).map(|(start, end)| (prefixes[start], prefixes[end - 1])).collect()
}

/// The fingerprints of a block, as they lie on disk.
#[derive(Clone, Debug)]
pub(in crate::storage::sled) struct Fingerprints {
    bytes: Bytes,
    count: usize,
}

impl Fingerprints {
    /// Those of a block with these ids.
    pub(in crate::storage::sled) fn encode(ids: &[EntryId]) -> Vec<u8> {
        let places = 0..ids.len() as u16;
        let mut sorted: Vec<(u32, u16)> = ids.iter().copied().map(hash).zip(places).collect();
        sorted.sort_unstable();
        let mut out = Vec::with_capacity(HEAD_BYTES + ids.len() * (HASH_BYTES + PLACE_BYTES));
        out.put_bytes(VERSION, HEAD_BYTES);
        sorted.iter().for_each(|(hash, _)| out.put_u32_le(*hash));
        sorted.iter().for_each(|(_, place)| out.put_u16_le(*place));
        let crc = crc32fast::hash(&out[HEAD_BYTES..]);
        out[1..HEAD_BYTES].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Checks the length for `count` entries, and the checksum.
    pub(in crate::storage::sled) fn decode(bytes: Bytes, count: u32) -> Result<Self, Malformed> {
        let count = count as usize;
        let len = HEAD_BYTES + count * (HASH_BYTES + PLACE_BYTES);
        if bytes.len() != len || bytes[0] != VERSION {
            return Err(Malformed("fingerprints"));
        }
        let crc = (&bytes[1..HEAD_BYTES]).get_u32_le();
        if crc != crc32fast::hash(&bytes[HEAD_BYTES..]) {
            return Err(Malformed("fingerprints: their checksum differs"));
        }
        Ok(Self { bytes, count })
    }

    /// How far behind the block's first entry those are whose id may be `id`: mostly none, or one.
    pub(in crate::storage::sled) fn places(&self, id: EntryId) -> impl Iterator<Item = u16> + '_ {
        let wanted = hash(id);
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low.midpoint(high);
            if self.hash_at(middle) < wanted { low = middle + 1 } else { high = middle }
        }
        (low..self.count)
            .take_while(move |at| self.hash_at(*at) == wanted)
            .map(|at| self.place_at(at))
    }

    /// Length in bytes.
    pub(in crate::storage::sled) const fn len(&self) -> usize {
        self.bytes.len()
    }

    fn hash_at(&self, at: usize) -> u32 {
        (&self.bytes[HEAD_BYTES + at * HASH_BYTES..]).get_u32_le()
    }

    fn place_at(&self, at: usize) -> u16 {
        let places = HEAD_BYTES + self.count * HASH_BYTES;
        (&self.bytes[places + at * PLACE_BYTES..]).get_u16_le()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::storage::sled::VALUE_BYTES_MAX;

    fn ids() -> impl Strategy<Value = Vec<EntryId>> {
        let id = (0_u8..4, any::<[u8; 16]>()).prop_map(|(first, mut bytes)| {
            bytes[0] = first;
            EntryId::from_bytes(bytes)
        });
        proptest::collection::vec(id, 1..200)
    }

    proptest! {
        #[test]
        fn every_id_is_in_a_range_and_has_its_place(ids in ids(), slot: u64) {
            let summary = Summary::of(&ids, slot);
            prop_assert_eq!(Summary::decode(&summary.encode()), Ok(summary.clone()));
            prop_assert!(summary.ranges.len() <= RANGES_MAX);
            prop_assert!(summary.ranges.iter().all(|(start, end)| start <= end));
            prop_assert!(summary.ranges.windows(2).all(|pair| pair[0].1 <= pair[1].0));
            let count = ids.len() as u32;
            let prints = Fingerprints::decode(Fingerprints::encode(&ids).into(), count).expect("some");
            for (place, id) in ids.iter().enumerate() {
                let at = prefix(*id);
                prop_assert!(summary.ranges.iter().any(|(start, end)| (*start..=*end).contains(&at)));
                prop_assert!(prints.places(*id).any(|found| found as usize == place));
            }
        }

        #[test]
        fn malformed_values_are_refused(value: Vec<u8>, count in 0_u32..100, id: [u8; 16]) {
            if let Ok(summary) = Summary::decode(&value) {
                prop_assert!(summary.ranges.len() <= RANGES_MAX);
            }
            if let Ok(prints) = Fingerprints::decode(value.into(), count) {
                prop_assert!(prints.places(EntryId::from_bytes(id)).count() <= count as usize);
            }
        }
    }

    #[test]
    fn damaged_fingerprints_are_refused() {
        let mut bytes = Fingerprints::encode(&[EntryId::from_bytes([1; 16])]);
        bytes[7] ^= 1;
        assert!(Fingerprints::decode(bytes.into(), 1).is_err());
    }

    #[test]
    fn one_clock_that_is_off_does_not_widen_the_ranges() {
        let at = |millis: u64| {
            let mut bytes = [0; 16];
            bytes[..6].copy_from_slice(&millis.to_be_bytes()[2..]);
            EntryId::from_bytes(bytes)
        };
        let day = 86_400_000;
        let ids: Vec<EntryId> = (0..1_000).flat_map(|n| [at(day + n), at(9 * day + n)]).collect();
        let summary = Summary::of(&ids, 0);
        let between = prefix(at(5 * day));
        assert!(summary.ranges.iter().all(|(start, end)| !(*start..=*end).contains(&between)));
    }

    #[test]
    fn a_full_block_fits_into_a_slot() {
        let ids = vec![EntryId::from_bytes([0xff; 16]); BLOCK_ENTRIES];
        assert!(Fingerprints::encode(&ids).len() <= VALUE_BYTES_MAX);
        assert!(u16::try_from(BLOCK_ENTRIES - 1).is_ok());
    }

    #[test]
    fn bytes_do_not_change() {
        let ids = [[1; 16], [2; 16]].map(EntryId::from_bytes);
        let mut summary = vec![1, 2, 9, 2];
        summary.extend([1, 1, 2, 2].iter().flat_map(|byte| [*byte; 8]));
        assert_eq!(Summary::of(&ids, 9).encode(), summary);
        assert_eq!(ids.map(hash), GOLDEN_HASHES);
        let prints = Fingerprints::encode(&ids);
        let sorted: Vec<u8> = GOLDEN_HASHES.iter().flat_map(|hash| hash.to_le_bytes()).collect();
        assert_eq!(prints[0], 1);
        assert_eq!(prints[5..], [&sorted[..], &[0, 0, 1, 0]].concat());
    }

    const GOLDEN_HASHES: [u32; 2] = [1_668_788_174, 3_337_576_349];
}
