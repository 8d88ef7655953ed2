//! A pack of an earlier format: small appends of several stores in one value.
//!
//! ```text
//! key        0 (1), number (8)
//! version    1 (1)
//! crc32      4 bytes, little-endian, over the rest
//! pieces     each: ordinal of the store (4, big-endian), first sequence (uvarint), entries (uvarint), length (uvarint),
//!            and as many bytes: a segment's body without its checksum
//! ```

use std::ops::Range;

use bytes::{Buf, Bytes};

use crate::model::varint::read_uvarint;
use crate::model::{Segment, Sequence};
use crate::storage::sled::key::Ordinal;
use crate::storage::sled::value::{Malformed, body};

const VERSION: u8 = 1;
const HEAD_BYTES: usize = 5;

/// Where packs are.
pub(super) fn keys() -> Range<[u8; 1]> {
    [0]..[1]
}

/// The pieces of a pack, in order.
pub(super) fn decode(pack: &Bytes) -> Result<Vec<(Ordinal, Segment)>, Malformed> {
    let mut rest = pack.clone();
    if rest.len() < HEAD_BYTES || rest.get_u8() != VERSION {
        return Err(Malformed("pack"));
    }
    if rest.get_u32_le() != crc32fast::hash(&rest) {
        return Err(Malformed("pack: its checksum differs"));
    }
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        let (ordinal, first, count, len) =
            read_head(&mut rest).ok_or(Malformed("piece of a pack"))?;
        pieces.push((ordinal, body::read_content(first, count, &rest.split_to(len))?));
    }
    Ok(pieces)
}

/// What precedes a piece's body, and the length of the body, which is there.
fn read_head(rest: &mut Bytes) -> Option<(Ordinal, Sequence, u32, usize)> {
    let mut left = &rest[..];
    let ordinal = left.try_get_u32().ok()?;
    let first = Sequence::new(read_uvarint(&mut left)?).ok();
    let first = first.filter(|first| *first > Sequence::ZERO)?;
    let count = u32::try_from(read_uvarint(&mut left)?).ok()?;
    let len = usize::try_from(read_uvarint(&mut left)?).ok().filter(|len| *len <= left.len())?;
    Sequence::new(first.get().checked_add(u64::from(count))?).ok()?;
    rest.advance(rest.len() - left.len());
    Some((ordinal, first, count, len))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn malformed_packs_are_refused(rest: Vec<u8>) {
            let value = [&[VERSION][..], &crc32fast::hash(&rest).to_le_bytes(), &rest].concat();
            if let Ok(pieces) = decode(&value.into()) {
                prop_assert!(pieces.iter().all(|(_, piece)| !piece.is_empty()));
            }
        }
    }

    #[test]
    fn a_pack_is_read_as_it_was_written() {
        let record = [&[7; 16][..], b"\x01E\x00\x01p"].concat();
        let rest = [&b"\x01\x02\x03\x04\xac\x02\x01\x1a\x01\x01\x01\x01\x00"[..], &record].concat();
        let mut pack = [&[VERSION][..], &crc32fast::hash(&rest).to_le_bytes(), &rest].concat();
        let pieces = decode(&pack.clone().into()).expect("a pack");
        let [(0x0102_0304, piece)] = &pieces[..] else { panic!("{pieces:?}") };
        assert_eq!((piece.first().get(), piece.len()), (300, 1));
        assert_eq!(piece.records(), &record);
        *pack.last_mut().expect("a byte") ^= 1;
        assert!(decode(&pack.into()).is_err());
    }
}
