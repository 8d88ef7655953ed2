//! The record of a store: `version 2 (1) | ordinal (4) | its last sequence (8) | hash over its entries (16)`,
//! big-endian. Version 3 is for a store with gaps, which follow: `uvarint count; each: uvarint first sequence, uvarint
//! how many`. Version 4 is that of a store that was trimmed: behind the hash the last sequence that was, the last one
//! of which the tree has no more than the id, and the bytes of the records up to there, each a uvarint; then the gaps,
//! if there are any. Version 1, of earlier formats, has the ordinal alone: its hash begins with what comes next.

use super::Malformed;
use crate::model::Sequence;
use crate::storage::sled::gaps::Gaps;
use crate::storage::sled::key::Ordinal;
use crate::storage::sled::trimmed::Trimmed;
use crate::storage::witness::StoreHash;

const VERSION_BEFORE: u8 = 1;
const VERSION: u8 = 2;
const VERSION_WITH_GAPS: u8 = 3;
const VERSION_TRIMMED: u8 = 4;

/// What the tree says about a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoreRecord {
    pub(crate) ordinal: Ordinal,
    /// Its last sequence, if recorded.
    pub(crate) head: Option<Sequence>,
    /// The hash over its entries.
    pub(crate) hash: StoreHash,
    pub(crate) gaps: Gaps,
    pub(crate) trimmed: Trimmed,
}

impl StoreRecord {
    /// How many entries are kept of a store that ends with `last` in the tree.
    pub(crate) fn kept(&self, last: Sequence) -> u64 {
        self.gaps.place(last).since(self.gaps.place(self.trimmed.last.min(last)))
    }
}

/// The record of a store that ends with the entry `head`.
pub(crate) fn encode(
    (ordinal, head): (Ordinal, Sequence),
    hash: StoreHash,
    gaps: &Gaps,
    trimmed: Trimmed,
) -> Vec<u8> {
    let is_trimmed = trimmed.last > Sequence::ZERO;
    let version = match gaps.total() {
        _ if is_trimmed => VERSION_TRIMMED,
        0 => VERSION,
        _ => VERSION_WITH_GAPS,
    };
    let mut value = Vec::with_capacity(29);
    value.push(version);
    value.extend_from_slice(&ordinal.to_be_bytes());
    value.extend_from_slice(&head.get().to_be_bytes());
    value.extend_from_slice(&hash.0);
    if is_trimmed {
        trimmed.write(&mut value);
    }
    gaps.write(&mut value);
    value
}

pub(crate) fn decode(value: &[u8]) -> Result<StoreRecord, Malformed> {
    read(value).ok_or(Malformed("store record"))
}

fn read(value: &[u8]) -> Option<StoreRecord> {
    let (version, rest) = value.split_first()?;
    let (ordinal, rest) = rest.split_first_chunk()?;
    let ordinal = Ordinal::from_be_bytes(*ordinal);
    match (*version, rest) {
        (VERSION_BEFORE, []) => {
            let (hash, gaps) = (StoreHash::default(), Gaps::default());
            Some(StoreRecord { ordinal, head: None, hash, gaps, trimmed: Trimmed::default() })
        }
        (VERSION | VERSION_WITH_GAPS | VERSION_TRIMMED, rest) => {
            let (head, rest) = rest.split_first_chunk()?;
            let head = Sequence::new(u64::from_be_bytes(*head)).ok()?;
            let (hash, mut rest) = rest.split_first_chunk()?;
            let trimmed = match *version {
                VERSION_TRIMMED => Trimmed::read(&mut rest).filter(|it| it.last <= head)?,
                _ => Trimmed::default(),
            };
            let gaps = Gaps::read(rest)?;
            let is_right = *version == VERSION_TRIMMED
                || (gaps.total() > 0) == (*version == VERSION_WITH_GAPS);
            let (head, hash) = (Some(head), StoreHash(*hash));
            is_right.then_some(StoreRecord { ordinal, head, hash, gaps, trimmed })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Segment;

    #[test]
    fn bytes_do_not_change() {
        let head = Sequence::new(0x0506).expect("a sequence");
        let none = Trimmed::default();
        let encoded = encode((0x0102_0304, head), StoreHash([7; 16]), &Gaps::default(), none);
        let expected = [&[2, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 5, 6][..], &[7; 16]].concat();
        assert_eq!(encoded[..], expected);
        let (hash, gaps) = (StoreHash([7; 16]), Gaps::default());
        let record =
            StoreRecord { ordinal: 0x0102_0304, head: Some(head), hash, gaps, trimmed: none };
        assert_eq!(decode(&encoded), Ok(record.clone()));
        let mut gaps = Gaps::default();
        gaps.add(&Segment::gap(Sequence::FIRST.plus(1), 300).expect("a gap"));
        let with_gaps = encode((0x0102_0304, head), hash, &gaps, none);
        assert_eq!(with_gaps, [&[3][..], &expected[1..], &[1, 2, 0xac, 2]].concat());
        let read = StoreRecord { gaps: gaps.clone(), ..record.clone() };
        assert_eq!(decode(&with_gaps), Ok(read));
        let (last, swept) = (Sequence::FIRST.plus(299), Sequence::FIRST);
        let trimmed = Trimmed { last, swept, bytes: 128 };
        let both = encode((0x0102_0304, head), hash, &gaps, trimmed);
        let numbers = [0xac, 2, 1, 0x80, 1];
        assert_eq!(both, [&[4][..], &expected[1..], &numbers, &[1, 2, 0xac, 2]].concat());
        assert_eq!(decode(&both), Ok(StoreRecord { gaps, trimmed, ..record.clone() }));
        let alone = encode((0x0102_0304, head), hash, &Gaps::default(), trimmed);
        assert_eq!(decode(&alone), Ok(StoreRecord { trimmed, ..record.clone() }));
        let before = StoreRecord { head: None, hash: StoreHash::default(), ..record };
        assert_eq!(decode(&[1, 1, 2, 3, 4]), Ok(before));
        for malformed in [
            &[][..],
            &[1, 1, 2, 3],
            &[2, 1, 2, 3, 4],
            &[1, 1, 2, 3, 4, 5],
            &encoded[..28],
            &with_gaps[..29],
            &[&[4][..], &expected[1..]].concat(),
            &[&[4][..], &expected[1..], &[0, 0, 0]].concat(),
            &[&[4][..], &expected[1..], &[1, 2, 0]].concat(),
        ] {
            assert!(decode(malformed).is_err());
        }
    }
}
