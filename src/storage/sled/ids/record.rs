//! The records of a store's index: one of each section, and the root, which says that none of them is missing.
//!
//! ```text
//! key       3 (1) | ordinal (4) | 0 for the root, else the section's number (8), big-endian
//!
//! both      version (1; section 2, root 3) | crc32 over key and the rest (4, little-endian) | the rest:
//! section   run, uvarint | first slot, uvarint | ids, uvarint | pages, uvarint | least id (16) | greatest id (16)
//! root      seed of the hashes (16) | last sealed sequence, uvarint | next section's number, uvarint |
//!           sections, uvarint | sum of their crc32, uvarint |
//!           sections to empty: uvarint count; each: its number, uvarint; first slot, uvarint; pages, uvarint
//! ```
//!
//! A section's head is in its first slot, and its pages are in the following ones.

use bytes::BufMut;

use super::Slots;
use super::hash::Seed;
use super::part::Part;
use crate::model::varint::{read_uvarint, write_uvarint};
use crate::model::{EntryId, Sequence};
use crate::storage::sled::key::{IdsKey, Ordinal};
use crate::storage::sled::value::Malformed;

const SECTION_VERSION: u8 = 2;
const ROOT_VERSION: u8 = 3;
const PREFIX_BYTES: usize = 5;

/// A section, as represented in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Section {
    /// Never reused within the store.
    pub(super) number: u64,
    /// Its least id.
    pub(super) first: EntryId,
    /// Its greatest id.
    pub(super) last: EntryId,
    /// Number of its ids, at least one.
    pub(super) count: u32,
    /// Number of its pages, at least one.
    pub(super) pages: u32,
    /// The slot of its head.
    pub(super) slot: u64,
}

/// Where a section is, or was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slotted {
    /// Its number.
    pub(super) section: u64,
    /// The slot of its head, which is in front of its pages.
    pub(super) first: u64,
    pub(super) pages: u32,
}

impl Slotted {
    /// Number of its slots.
    pub(super) const fn count(&self) -> u64 {
        1 + self.pages as u64
    }

    /// Whether its slots have what it wrote there.
    pub(super) fn is_whole(&self, ordinal: Ordinal, slots: &dyn Slots) -> bool {
        (0..=self.pages).all(|number| {
            let bytes = slots.slot(self.first.saturating_add(number.into()));
            let part = Part { ordinal, section: self.section, number };
            matches!(bytes, Ok(Some(bytes)) if part.content(&bytes).is_some())
        })
    }
}

/// What holds for a store's index as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Root {
    pub(super) seed: Seed,
    /// The ids of all entries up to here are in sections.
    pub(super) sealed: Sequence,
    /// The number of the next section.
    pub(super) next: u64,
    /// Number of sections.
    pub(super) sections: u64,
    /// The sum of the checksums in their records.
    pub(super) sum: u64,
    /// The slots of former sections; emptied with the next change.
    pub(super) freed: Vec<Slotted>,
}

impl Section {
    /// The slots of its head and its pages.
    pub(super) const fn slots(&self) -> Slotted {
        Slotted { section: self.number, first: self.slot, pages: self.pages }
    }

    /// The record of this section, which belongs to `run`, and its checksum.
    pub(super) fn encode(&self, key: IdsKey, run: u64) -> (Vec<u8>, u32) {
        let mut out = begin(SECTION_VERSION);
        for number in [run, self.slot, u64::from(self.count), u64::from(self.pages)] {
            write_uvarint(&mut out, number);
        }
        out.put_slice(self.first.as_bytes());
        out.put_slice(self.last.as_bytes());
        finish(key, out)
    }

    /// A section with the run it belongs to and the checksum of its record.
    pub(super) fn decode(key: IdsKey, value: &[u8]) -> Result<(Self, u64, u32), Malformed> {
        let (crc, rest) = open(SECTION_VERSION, key, value)
            .ok_or(Malformed("section record: its checksum differs"))?;
        let (section, run) = Self::parse(key.number, rest).ok_or(Malformed("section record"))?;
        Ok((section, run, crc))
    }

    fn parse(number: u64, mut rest: &[u8]) -> Option<(Self, u64)> {
        let run = read_uvarint(&mut rest)?;
        let slot = read_uvarint(&mut rest)?;
        let [count, pages] = [read_uvarint(&mut rest)?, read_uvarint(&mut rest)?]
            .map(|number| u32::try_from(number).ok().filter(|number| *number > 0));
        let (first, last) = rest.split_at_checked(EntryId::LEN)?;
        let (first, last) = (EntryId::from_slice(first)?, EntryId::from_slice(last)?);
        let section = Self { number, first, last, count: count?, pages: pages?, slot };
        (first <= last).then_some((section, run))
    }
}

impl Root {
    pub(super) fn encode(&self, key: IdsKey) -> Vec<u8> {
        let mut out = begin(ROOT_VERSION);
        out.put_slice(&self.seed.to_bytes());
        for number in [self.sealed.get(), self.next, self.sections, self.sum] {
            write_uvarint(&mut out, number);
        }
        write_uvarint(&mut out, self.freed.len() as u64);
        for Slotted { section, first, pages } in &self.freed {
            for number in [*section, *first, u64::from(*pages)] {
                write_uvarint(&mut out, number);
            }
        }
        finish(key, out).0
    }

    pub(super) fn decode(key: IdsKey, value: &[u8]) -> Result<Self, Malformed> {
        let (_, rest) =
            open(ROOT_VERSION, key, value).ok_or(Malformed("root of ids: its checksum differs"))?;
        Self::parse(rest).ok_or(Malformed("root of ids"))
    }

    fn parse(rest: &[u8]) -> Option<Self> {
        let (seed, mut rest) = rest.split_first_chunk()?;
        let mut number = || read_uvarint(&mut rest);
        let (sealed, next) = (Sequence::new(number()?).ok()?, number()?);
        let (sections, sum) = (number()?, number()?);
        // Nothing is reserved because of a claimed count.
        let freed = (0..number()?)
            .map(|_| {
                let (section, first) = (number()?, number()?);
                Some(Slotted { section, first, pages: u32::try_from(number()?).ok()? })
            })
            .collect::<Option<_>>()?;
        let seed = Seed::from_bytes(*seed);
        rest.is_empty().then_some(Self { seed, sealed, next, sections, sum, freed })
    }
}

fn begin(version: u8) -> Vec<u8> {
    vec![version; PREFIX_BYTES]
}

fn checksum(key: IdsKey, rest: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&key.to_bytes());
    crc.update(rest);
    crc.finalize()
}

fn finish(key: IdsKey, mut out: Vec<u8>) -> (Vec<u8>, u32) {
    let crc = checksum(key, &out[PREFIX_BYTES..]);
    out[1..PREFIX_BYTES].copy_from_slice(&crc.to_le_bytes());
    (out, crc)
}

fn open(version: u8, key: IdsKey, value: &[u8]) -> Option<(u32, &[u8])> {
    let (prefix, rest) = value.split_first_chunk::<PREFIX_BYTES>()?;
    let [found, crc @ ..] = *prefix;
    let crc = u32::from_le_bytes(crc);
    (found == version && crc == checksum(key, rest)).then_some((crc, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: IdsKey = IdsKey { ordinal: 1, number: 2 };

    fn section() -> impl Strategy<Value = Section> {
        let numbers = (1..=u32::MAX, 1..=u32::MAX, any::<u64>());
        (numbers, any::<[u8; 16]>(), any::<[u8; 16]>()).prop_map(|((count, pages, slot), a, b)| {
            let [first, last] = [a.min(b), a.max(b)].map(EntryId::from_bytes);
            Section { number: KEY.number, first, last, count, pages, slot }
        })
    }

    fn root() -> impl Strategy<Value = Root> {
        let numbers = (0..=Sequence::MAX.get(), any::<u64>(), any::<u64>(), any::<u64>());
        let slots = (any::<u64>(), any::<u64>(), any::<u32>());
        let slots = slots.prop_map(|(section, first, pages)| Slotted { section, first, pages });
        let freed = proptest::collection::vec(slots, 0..5);
        (numbers, any::<[u8; 16]>(), freed).prop_map(
            |((sealed, next, sections, sum), seed, freed)| {
                let (seed, sealed) = (Seed::from_bytes(seed), Sequence::new(sealed).expect("one"));
                Root { seed, sealed, next, sections, sum, freed }
            },
        )
    }

    proptest! {
        #[test]
        fn records_round_trip_and_any_damage_is_found(
            section in section(), root in root(), run: u64, at: usize, bit in 0..8_u8,
        ) {
            let (value, crc) = section.encode(KEY, run);
            prop_assert_eq!(Section::decode(KEY, &value), Ok((section, run, crc)));
            let others = [IdsKey { ordinal: 2, ..KEY }, IdsKey { number: 3, ..KEY }];
            prop_assert!(others.iter().all(|other| Section::decode(*other, &value).is_err()));
            prop_assert!(Section::decode(KEY, &damaged(&value, at, bit)).is_err());
            let value = root.encode(KEY);
            prop_assert_eq!(Root::decode(KEY, &value), Ok(root));
            prop_assert!(others.iter().all(|other| Root::decode(*other, &value).is_err()));
            prop_assert!(Root::decode(KEY, &damaged(&value, at, bit)).is_err());
        }

        #[test]
        fn malformed_records_are_refused(rest: Vec<u8>, value: Vec<u8>) {
            let begun = |version| {
                let mut out = begin(version);
                out.extend_from_slice(&rest);
                finish(KEY, out).0
            };
            for value in [value, begun(SECTION_VERSION), begun(ROOT_VERSION)] {
                if let Ok((section, ..)) = Section::decode(KEY, &value) {
                    prop_assert!(section.first <= section.last && section.count > 0);
                }
                if let Ok(root) = Root::decode(KEY, &value) {
                    prop_assert!(root.encode(KEY).len() <= value.len());
                }
            }
        }
    }

    fn damaged(value: &[u8], at: usize, bit: u8) -> Vec<u8> {
        let mut value = value.to_vec();
        let at = at % value.len();
        value[at] ^= 1 << bit;
        value
    }

    #[test]
    fn bytes_do_not_change() {
        let [first, last] = [[1; 16], [2; 16]].map(EntryId::from_bytes);
        let section = Section { number: 2, first, last, count: 300, pages: 4, slot: 9 };
        let (value, crc) = section.encode(KEY, 6);
        let rest = [&[6, 9, 0xac, 2, 4][..], &[1; 16], &[2; 16]].concat();
        let keyed = [&[3, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2][..], &rest].concat();
        assert_eq!(crc, crc32fast::hash(&keyed));
        assert_eq!(value, [&[2][..], &crc.to_le_bytes(), &rest].concat());

        let freed = vec![Slotted { section: 6, first: 300, pages: 4 }];
        let sealed = Sequence::new(7).expect("a sequence");
        let seed = Seed::from_bytes([8; 16]);
        let root = Root { seed, sealed, next: 3, sections: 2, sum: 300, freed };
        let value = root.encode(IdsKey { ordinal: 1, number: 0 });
        let rest = [&[8; 16][..], &[7, 3, 2, 0xac, 2, 1, 6, 0xac, 2, 4]].concat();
        assert_eq!((value[0], &value[5..]), (3, &rest[..]));
    }
}
