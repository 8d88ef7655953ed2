//! The beginning of heads and pages: `version 1 (1) | crc32 (4, little-endian)`.
//!
//! The checksum also covers what the reader expects: which store, which section and which part of it this is, so that a
//! slot with another one's content is noticed.

use bytes::Bytes;

use crate::storage::sled::key::Ordinal;

const VERSION: u8 = 1;
/// The length of the beginning of a part.
pub(super) const PREFIX_BYTES: usize = 5;

/// Which part of which section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) ordinal: Ordinal,
    /// The section's number.
    pub(super) section: u64,
    /// 0 for the head, then the pages.
    pub(super) number: u32,
}

impl Part {
    fn checksum(self, content: &[u8]) -> u32 {
        let mut crc = crc32fast::Hasher::new();
        crc.update(&self.ordinal.to_be_bytes());
        crc.update(&self.section.to_be_bytes());
        crc.update(&self.number.to_be_bytes());
        crc.update(content);
        crc.finalize()
    }

    /// A buffer for a part with this many bytes after its beginning.
    pub(super) fn begin(content_bytes: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(PREFIX_BYTES + content_bytes);
        out.resize(PREFIX_BYTES, VERSION);
        out
    }

    /// Fills in the beginning of `out`, which [`Part::begin`] made.
    pub(super) fn finish(self, mut out: Vec<u8>) -> Vec<u8> {
        let crc = self.checksum(&out[PREFIX_BYTES..]);
        out[1..PREFIX_BYTES].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// What follows the beginning; `None` if it is not this part, or was changed.
    pub(super) fn content(self, bytes: &Bytes) -> Option<Bytes> {
        let (prefix, content) = bytes.split_first_chunk::<PREFIX_BYTES>()?;
        let [version, crc @ ..] = *prefix;
        let right = version == VERSION && u32::from_le_bytes(crc) == self.checksum(content);
        right.then(|| bytes.slice_ref(content))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PART: Part = Part { ordinal: 1, section: 2, number: 3 };

    fn written(content: &[u8]) -> Bytes {
        let mut out = Part::begin(content.len());
        out.extend_from_slice(content);
        PART.finish(out).into()
    }

    proptest! {
        #[test]
        fn any_damage_is_found(content: Vec<u8>, at: usize, bit in 0_u8..8) {
            let mut bytes = written(&content).to_vec();
            prop_assert_eq!(PART.content(&bytes.clone().into()), Some(content.into()));
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(PART.content(&bytes.into()), None);
        }
    }

    #[test]
    fn the_content_of_another_slot_is_refused() {
        let bytes = written(b"content");
        for other in
            [Part { ordinal: 2, ..PART }, Part { section: 3, ..PART }, Part { number: 4, ..PART }]
        {
            assert_eq!(other.content(&bytes), None);
        }
        assert_eq!(PART.content(&Bytes::new()), None);
    }
}
