//! The record of a store: `version 2 (1) | ordinal (4) | its last sequence (8) | hash over its entries (16)`, big-endian. Version 3
//! is that of a store with gaps, which follow: `uvarint count; each: uvarint first sequence, uvarint how many`. Version 1, of earlier
//! formats, has the ordinal alone: its hash begins with what comes next.

use super::Malformed;
use crate::model::Sequence;
use crate::storage::sled::gaps::Gaps;
use crate::storage::sled::key::Ordinal;
use crate::storage::witness::StoreHash;

const VERSION_BEFORE: u8 = 1;
const VERSION: u8 = 2;
const VERSION_WITH_GAPS: u8 = 3;

/// What the tree says of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoreRecord {
    pub(crate) ordinal: Ordinal,
    /// Its last sequence, if that is said.
    pub(crate) head: Option<Sequence>,
    /// Over its entries.
    pub(crate) hash: StoreHash,
    pub(crate) gaps: Gaps,
}

pub(crate) fn encode(ordinal: Ordinal, head: Sequence, hash: StoreHash, gaps: &Gaps) -> Vec<u8> {
    let version = if gaps.total() > 0 { VERSION_WITH_GAPS } else { VERSION };
    let mut value = Vec::with_capacity(29);
    value.push(version);
    value.extend_from_slice(&ordinal.to_be_bytes());
    value.extend_from_slice(&head.get().to_be_bytes());
    value.extend_from_slice(&hash.0);
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
            Some(StoreRecord { ordinal, head: None, hash, gaps })
        }
        (VERSION | VERSION_WITH_GAPS, rest) => {
            let (head, rest) = rest.split_first_chunk()?;
            let head = Some(Sequence::new(u64::from_be_bytes(*head)).ok()?);
            let (hash, rest) = rest.split_first_chunk()?;
            let gaps = Gaps::read(rest)
                .filter(|gaps| (gaps.total() > 0) == (*version == VERSION_WITH_GAPS))?;
            Some(StoreRecord { ordinal, head, hash: StoreHash(*hash), gaps })
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
        let encoded = encode(0x0102_0304, head, StoreHash([7; 16]), &Gaps::default());
        let expected = [&[2, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 5, 6][..], &[7; 16]].concat();
        assert_eq!(encoded[..], expected);
        let (hash, gaps) = (StoreHash([7; 16]), Gaps::default());
        let record = StoreRecord { ordinal: 0x0102_0304, head: Some(head), hash, gaps };
        assert_eq!(decode(&encoded), Ok(record.clone()));
        let mut gaps = Gaps::default();
        gaps.add(&Segment::gap(Sequence::FIRST.plus(1), 300).expect("a gap"));
        let with_gaps = encode(0x0102_0304, head, hash, &gaps);
        assert_eq!(with_gaps, [&[3][..], &expected[1..], &[1, 2, 0xac, 2]].concat());
        assert_eq!(decode(&with_gaps), Ok(StoreRecord { gaps, ..record.clone() }));
        let before = StoreRecord { head: None, hash: StoreHash::default(), ..record };
        assert_eq!(decode(&[1, 1, 2, 3, 4]), Ok(before));
        for malformed in [
            &[][..],
            &[1, 1, 2, 3],
            &[2, 1, 2, 3, 4],
            &[1, 1, 2, 3, 4, 5],
            &encoded[..28],
            &with_gaps[..29],
        ] {
            assert!(decode(malformed).is_err());
        }
    }
}
