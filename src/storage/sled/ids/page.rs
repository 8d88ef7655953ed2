//! A page: some ids of a section, and their sequences.
//!
//! ```text
//! version, crc32   see `part`
//! count            2 bytes, at least 1
//! width            1 byte: 0 to 8, bytes of a place
//! least            8 bytes, the least sequence
//! ids              count times 16 bytes, ascending
//! places           count times width bytes: how far behind the least sequence
//! ```
//!
//! Numbers are little-endian. Two bytes each are enough for the places of entries that were written together.

use bytes::{Buf, BufMut, Bytes};

use super::part::Part;
use crate::model::{EntryId, Sequence};
use crate::storage::sled::value::Malformed;

/// Most ids of a page: a lookup of one old id reads a page, and finds the id by halving.
pub(super) const PAGE_IDS_MAX: usize = 1_024;

const HEAD_BYTES: usize = 11;
const WIDTH_MAX: usize = 8;

/// A page that was read and checked.
#[derive(Clone, Debug)]
pub(super) struct Page {
    ids: Bytes,
    places: Bytes,
    width: usize,
    least: u64,
}

impl Page {
    /// The page of `entries`, which ascend; at least one, at most [`PAGE_IDS_MAX`].
    pub(super) fn encode(part: Part, entries: &[(EntryId, Sequence)]) -> Vec<u8> {
        let sequences = || entries.iter().map(|(_, sequence)| sequence.get());
        let least = sequences().min().unwrap_or(0);
        let most = sequences().max().unwrap_or(0) - least;
        let width = WIDTH_MAX - most.leading_zeros() as usize / 8;
        let mut out = Part::begin(HEAD_BYTES + entries.len() * (EntryId::LEN + width));
        out.put_u16_le(entries.len() as u16);
        out.put_u8(width as u8);
        out.put_u64_le(least);
        entries.iter().for_each(|(id, _)| out.put_slice(id.as_bytes()));
        sequences().for_each(|sequence| out.put_uint_le(sequence - least, width));
        part.finish(out)
    }

    /// The page in `bytes`, if it is this part and undamaged.
    pub(super) fn decode(part: Part, bytes: &Bytes) -> Result<Self, Malformed> {
        let content = part.content(bytes).ok_or(Malformed("page of ids: its checksum differs"))?;
        Self::parse(content).ok_or(Malformed("page of ids"))
    }

    fn parse(mut content: Bytes) -> Option<Self> {
        if content.len() < HEAD_BYTES {
            return None;
        }
        let count = usize::from(content.get_u16_le());
        let width = usize::from(content.get_u8());
        let least = content.get_u64_le();
        let right = count > 0 && width <= WIDTH_MAX;
        if !right || content.len() != count * (EntryId::LEN + width) {
            return None;
        }
        let ids = content.split_to(count * EntryId::LEN);
        Some(Self { ids, places: content, width, least })
    }

    fn ids(&self) -> &[[u8; EntryId::LEN]] {
        self.ids.as_chunks().0
    }

    /// Number of its ids.
    pub(super) fn len(&self) -> usize {
        self.ids().len()
    }

    /// Bytes that it takes.
    pub(super) fn bytes(&self) -> usize {
        self.ids.len() + self.places.len()
    }

    /// The entry at this position, which is below [`Page::len`].
    pub(super) fn entry(&self, at: usize) -> (EntryId, Sequence) {
        let mut place = &self.places[at * self.width..(at + 1) * self.width];
        let place = place.get_uint_le(self.width);
        (EntryId::from_bytes(self.ids()[at]), Sequence::ZERO.plus(self.least).plus(place))
    }

    /// The sequences of the ids above `id`.
    pub(super) fn above(&self, id: EntryId) -> impl Iterator<Item = Sequence> {
        let first = self.ids().partition_point(|other| other <= id.as_bytes());
        (first..self.len()).map(|at| self.entry(at).1)
    }

    /// The sequence of `id`, if it is here.
    pub(super) fn find(&self, id: EntryId) -> Option<Sequence> {
        let at = self.ids().binary_search(id.as_bytes()).ok()?;
        Some(self.entry(at).1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const PART: Part = Part { ordinal: 1, section: 2, number: 3 };

    fn entries() -> impl Strategy<Value = Vec<(EntryId, Sequence)>> {
        let sequence = prop_oneof![1..300_u64, 1..=Sequence::MAX.get()];
        proptest::collection::btree_map(any::<[u8; 16]>(), sequence, 1..100)
            .prop_map(|entries: BTreeMap<_, _>| entries.into_iter().map(entry).collect())
    }

    fn entry((id, sequence): ([u8; 16], u64)) -> (EntryId, Sequence) {
        (EntryId::from_bytes(id), Sequence::new(sequence).expect("a sequence"))
    }

    proptest! {
        #[test]
        fn pages_round_trip(entries in entries(), absent: [u8; 16]) {
            let page = Page::decode(PART, &Page::encode(PART, &entries).into()).expect("a page");
            let read: Vec<_> = (0..page.len()).map(|at| page.entry(at)).collect();
            prop_assert_eq!(&read, &entries);
            for (id, sequence) in &entries {
                prop_assert_eq!(page.find(*id), Some(*sequence));
            }
            prop_assert_eq!(page.find(EntryId::from_bytes(absent)), None);
        }

        #[test]
        fn malformed_pages_are_refused(content: Vec<u8>, count in 0..4_u8, width in 0..10_u8) {
            for content in [content.clone(), [&[count, 0, width], &content[..]].concat()] {
                let mut out = Part::begin(0);
                out.extend_from_slice(&content);
                if let Ok(page) = Page::decode(PART, &PART.finish(out).into()) {
                    prop_assert!(page.len() > 0);
                    (0..page.len()).for_each(|at| _ = page.entry(at));
                }
            }
        }
    }

    #[test]
    fn bytes_do_not_change() {
        let entries = [([1; 16], 7), ([2; 16], 7 + 0x0102)].map(entry);
        let bytes = Page::encode(PART, &entries);
        let head = [2, 0, 2, 7, 0, 0, 0, 0, 0, 0, 0];
        let content = [&head[..], &[1; 16], &[2; 16], &[0, 0, 2, 1]].concat();
        assert_eq!(bytes[5..], content);
        assert_eq!(bytes[..5], [1, 108, 26, 219, 128]);
        let one = Page::encode(PART, &entries[..1]);
        assert_eq!(one.len(), 5 + 11 + 16, "nothing for a place that is known");
    }
}
