//! The record of a store: `version 2 (1) | ordinal (4) | its last entry (8) | hash over its entries (16)`, big-endian.
//! Version 1, of earlier formats, has the ordinal alone: its hash begins with what comes next.

use super::Malformed;
use crate::model::Sequence;
use crate::storage::sled::key::Ordinal;
use crate::storage::witness::StoreHash;

const VERSION_BEFORE: u8 = 1;
const VERSION: u8 = 2;

/// What the tree says of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StoreRecord {
    pub(crate) ordinal: Ordinal,
    /// Its last entry, if that is said.
    pub(crate) head: Option<Sequence>,
    /// Over its entries.
    pub(crate) hash: StoreHash,
}

pub(crate) fn encode(ordinal: Ordinal, head: Sequence, hash: StoreHash) -> [u8; 29] {
    let mut value = [VERSION; 29];
    value[1..5].copy_from_slice(&ordinal.to_be_bytes());
    value[5..13].copy_from_slice(&head.get().to_be_bytes());
    value[13..].copy_from_slice(&hash.0);
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
            Some(StoreRecord { ordinal, head: None, hash: StoreHash::default() })
        }
        (VERSION, rest) => {
            let (head, hash) = rest.split_first_chunk()?;
            let head = Some(Sequence::new(u64::from_be_bytes(*head)).ok()?);
            Some(StoreRecord { ordinal, head, hash: StoreHash(hash.try_into().ok()?) })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_do_not_change() {
        let head = Sequence::new(0x0506).expect("a sequence");
        let encoded = encode(0x0102_0304, head, StoreHash([7; 16]));
        let expected = [&[2, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 5, 6][..], &[7; 16]].concat();
        assert_eq!(encoded[..], expected);
        let record =
            StoreRecord { ordinal: 0x0102_0304, head: Some(head), hash: StoreHash([7; 16]) };
        assert_eq!(decode(&encoded), Ok(record));
        let before = StoreRecord { head: None, hash: StoreHash::default(), ..record };
        assert_eq!(decode(&[1, 1, 2, 3, 4]), Ok(before));
        for malformed in
            [&[][..], &[1, 1, 2, 3], &[2, 1, 2, 3, 4], &[1, 1, 2, 3, 4, 5], &encoded[..28]]
        {
            assert!(decode(malformed).is_err());
        }
    }
}
