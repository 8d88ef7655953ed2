//! A pack: small appends of several stores in one value, written together and found again when the database is opened.
//!
//! ```text
//! version    1 (1)
//! crc32      4 bytes, little-endian, over the rest
//! pieces     each: ordinal of the store (4, big-endian), first sequence (uvarint), entries (uvarint), length (uvarint),
//!            and as many bytes: a segment's body without its checksum
//! ```

use bytes::{Buf, BufMut, Bytes};

use super::{Malformed, body};
use crate::model::varint::{read_uvarint, write_uvarint};
use crate::model::{Segment, Sequence};
use crate::storage::sled::key::Ordinal;

const VERSION: u8 = 1;
const HEAD_BYTES: usize = 5;
/// Most bytes of a piece besides its body.
const PIECE_HEAD_BYTES_MAX: usize = 4 + 10 + 5 + 10;

/// Collects the pieces of one pack.
#[derive(Debug)]
pub(in crate::storage::sled) struct PackWriter {
    out: Vec<u8>,
    /// Kept for its memory alone.
    content: Vec<u8>,
}

impl PackWriter {
    pub(in crate::storage::sled) fn new() -> Self {
        Self { out: vec![VERSION, 0, 0, 0, 0], content: Vec::new() }
    }

    /// Adds `piece` of the store with this ordinal; `false`, and nothing is added, if the pack then had more than
    /// `bytes_max` bytes.
    pub(in crate::storage::sled) fn push(
        &mut self,
        ordinal: Ordinal,
        piece: &Segment,
        bytes_max: usize,
    ) -> bool {
        self.content.clear();
        body::write_content(&mut self.content, std::slice::from_ref(piece));
        if self.out.len() + PIECE_HEAD_BYTES_MAX + self.content.len() > bytes_max {
            return false;
        }
        self.out.put_u32(ordinal);
        write_uvarint(&mut self.out, piece.first().get());
        write_uvarint(&mut self.out, piece.len() as u64);
        write_uvarint(&mut self.out, self.content.len() as u64);
        self.out.extend_from_slice(&self.content);
        true
    }

    /// The value.
    pub(in crate::storage::sled) fn finish(self) -> Vec<u8> {
        let mut out = self.out;
        let crc = crc32fast::hash(&out[HEAD_BYTES..]);
        out[1..HEAD_BYTES].copy_from_slice(&crc.to_le_bytes());
        out
    }
}

/// The pieces of a pack, in the order in which they were added. They share its memory.
pub(in crate::storage::sled) fn decode(pack: &Bytes) -> Result<Vec<(Ordinal, Segment)>, Malformed> {
    let mut rest = pack.clone();
    if rest.len() < HEAD_BYTES || rest.get_u8() != VERSION {
        return Err(Malformed("pack"));
    }
    if rest.get_u32_le() != crc32fast::hash(&rest) {
        return Err(Malformed("pack: its checksum differs"));
    }
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        pieces.push(read_piece(&mut rest)?);
    }
    Ok(pieces)
}

fn read_piece(rest: &mut Bytes) -> Result<(Ordinal, Segment), Malformed> {
    let (ordinal, first, count, len) = read_head(rest).ok_or(Malformed("piece of a pack"))?;
    Ok((ordinal, body::read_content(first, count, &rest.split_to(len))?))
}

/// What stands before a piece's body, and the length of that, which is there.
fn read_head(rest: &mut Bytes) -> Option<(Ordinal, Sequence, u32, usize)> {
    let mut left = &rest[..];
    let ordinal = left.try_get_u32().ok()?;
    let first =
        Sequence::new(read_uvarint(&mut left)?).ok().filter(|first| *first > Sequence::ZERO)?;
    let count = u32::try_from(read_uvarint(&mut left)?).ok()?;
    let len = usize::try_from(read_uvarint(&mut left)?).ok().filter(|len| *len <= left.len())?;
    let last = first.get().checked_add(u64::from(count))?;
    Sequence::new(last).ok()?;
    rest.advance(rest.len() - left.len());
    Some((ordinal, first, count, len))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{Batch, EntryId, EntryRef, Origin, SegmentBuilder};

    fn piece(first: u64, payloads: &[Vec<u8>]) -> Segment {
        let mut builder = SegmentBuilder::new(Sequence::new(first).expect("a sequence"));
        for payload in payloads {
            let entry = EntryRef { id: EntryId::now(), event: "E", primary_key: "k", payload };
            let origin = Origin::Server { run_handlers: payload.len() % 2 == 0 };
            builder.push(Batch::from_entries([entry]).record(0).expect("a slot"), &origin);
        }
        builder.finish().remove(0)
    }

    fn pieces() -> impl Strategy<Value = Vec<(Ordinal, Segment)>> {
        let payload = proptest::collection::vec(any::<u8>(), 0..50);
        let payloads = proptest::collection::vec(payload, 1..5);
        let piece = (any::<Ordinal>(), 1..1_u64 << 40, payloads);
        proptest::collection::vec(
            piece.prop_map(|(ordinal, first, payloads)| (ordinal, piece_of(first, &payloads))),
            0..20,
        )
    }

    fn piece_of(first: u64, payloads: &[Vec<u8>]) -> Segment {
        piece(first, payloads)
    }

    fn pack(pieces: &[(Ordinal, Segment)]) -> Vec<u8> {
        let mut writer = PackWriter::new();
        for (ordinal, piece) in pieces {
            assert!(writer.push(*ordinal, piece, usize::MAX));
        }
        writer.finish()
    }

    proptest! {
        #[test]
        fn packs_round_trip(pieces in pieces()) {
            prop_assert_eq!(decode(&pack(&pieces).into()), Ok(pieces));
        }

        #[test]
        fn any_damage_is_found(pieces in pieces(), at: usize, bit in 0_u8..8) {
            let mut value = pack(&pieces);
            let at = at % value.len();
            value[at] ^= 1 << bit;
            prop_assert!(decode(&value.into()).is_err());
        }

        #[test]
        fn malformed_packs_are_refused(rest: Vec<u8>) {
            let value = [&[VERSION][..], &crc32fast::hash(&rest).to_le_bytes(), &rest].concat();
            if let Ok(pieces) = decode(&value.into()) {
                prop_assert!(pieces.iter().all(|(_, piece)| !piece.is_empty()));
            }
        }

        #[test]
        fn a_pack_is_never_longer_than_it_may_be(pieces in pieces(), bytes_max in 5_usize..2_000) {
            let mut writer = PackWriter::new();
            let kept = pieces.iter().filter(|(ordinal, piece)| writer.push(*ordinal, piece, bytes_max));
            let kept: Vec<_> = kept.cloned().collect();
            let value = writer.finish();
            prop_assert!(value.len() <= bytes_max);
            prop_assert_eq!(decode(&value.into()), Ok(kept));
        }
    }

    #[test]
    fn bytes_do_not_change() {
        let id = EntryId::from_bytes([7; 16]);
        let batch =
            Batch::from_entries([EntryRef { id, event: "E", primary_key: "", payload: b"p" }]);
        let mut builder = SegmentBuilder::new(Sequence::new(300).expect("a sequence"));
        builder.push(batch.record(0).expect("a slot"), &Origin::Server { run_handlers: true });
        let value = pack(&[(0x0102_0304, builder.finish().remove(0))]);
        let record = [&[7; 16][..], b"\x01E\x00\x01p"].concat();
        let rest = [&b"\x01\x02\x03\x04\xac\x02\x01\x1a\x01\x01\x01\x01\x00"[..], &record].concat();
        assert_eq!(value[0], 1);
        assert_eq!(value[1..5], crc32fast::hash(&rest).to_le_bytes());
        assert_eq!(value[5..], rest);
    }
}
