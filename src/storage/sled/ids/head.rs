//! The head of a section: a filter that nearly always recognizes that an id is not there, and the first id of each
//! page.
//!
//! ```text
//! version, crc32   see `part`
//! count            2 bytes, ids of the section, at least 1
//! pages            2 bytes, at least 1
//! firsts           pages times 16 bytes, ascending
//! starts           a bucket of the filter for each 4 ids begun; 2 bytes each: how many prints stand before it
//! prints           count times 2 bytes
//! ```
//!
//! Numbers are little-endian. The upper half of an id's hash determines its bucket, in proportion; the lowest 16 bits
//! are its print. An absent id is considered possibly present once in 16,000 times, at 20 bits an id. Each time, a page must be
//! read, and the next writes of the store wait for that. A head that was not read from disk, but made by this process, has
//! a [`Sieve`] with 16 more bits an id in memory: then it is once in a million times, and mostly with one look at memory
//! instead of two.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};

use super::part::Part;
use super::record::Section;
use super::sieve::Sieve;
use crate::model::EntryId;
use crate::storage::sled::value::Malformed;

/// Ids of a bucket, on average.
const BUCKET_IDS: usize = 4;
const HEAD_BYTES: usize = 4;

/// A head that was read and checked.
#[derive(Clone, Debug)]
pub(super) struct Head {
    firsts: Bytes,
    starts: Bytes,
    prints: Bytes,
    sieve: Option<Arc<Sieve>>,
}

fn bucket(hash: u64, buckets: usize) -> usize {
    (((hash >> 32) * buckets as u64) >> 32) as usize
}

impl Head {
    /// The head of a section whose ids have these hashes, at least one, below 2^16, with pages that begin with `firsts`.
    pub(super) fn encode(
        part: Part,
        hashes: &[u64],
        firsts: impl ExactSizeIterator<Item = EntryId>,
    ) -> Vec<u8> {
        let buckets = hashes.len().div_ceil(BUCKET_IDS);
        let bytes = HEAD_BYTES + firsts.len() * EntryId::LEN + (buckets + hashes.len()) * 2;
        let mut out = Part::begin(bytes);
        out.put_u16_le(hashes.len() as u16);
        out.put_u16_le(firsts.len() as u16);
        firsts.for_each(|first| out.put_slice(first.as_bytes()));
        let mut starts = vec![0_u16; buckets + 1];
        hashes.iter().for_each(|hash| starts[bucket(*hash, buckets) + 1] += 1);
        (0..buckets).for_each(|at| starts[at + 1] += starts[at]);
        starts[..buckets].iter().for_each(|start| out.put_u16_le(*start));
        let mut prints = vec![0_u16; hashes.len()];
        for hash in hashes {
            let next = &mut starts[bucket(*hash, buckets)];
            prints[usize::from(*next)] = *hash as u16;
            *next += 1;
        }
        prints.iter().for_each(|print| out.put_u16_le(*print));
        part.finish(out)
    }

    /// The head in `bytes`, if it is this part and undamaged.
    pub(super) fn decode(part: Part, bytes: &Bytes) -> Result<Self, Malformed> {
        let content = part.content(bytes).ok_or(Malformed("head of ids: its checksum differs"))?;
        Self::parse(content).ok_or(Malformed("head of ids"))
    }

    fn parse(mut content: Bytes) -> Option<Self> {
        if content.len() < HEAD_BYTES {
            return None;
        }
        let count = usize::from(content.get_u16_le());
        let pages = usize::from(content.get_u16_le());
        let starts_bytes = count.div_ceil(BUCKET_IDS) * 2;
        let bytes = pages * EntryId::LEN + starts_bytes + count * 2;
        if count == 0 || pages == 0 || content.len() != bytes {
            return None;
        }
        let firsts = content.split_to(pages * EntryId::LEN);
        let starts = content.split_to(starts_bytes);
        Some(Self { firsts, starts, prints: content, sieve: None })
    }

    /// The same head with a sieve that has the hashes of its ids.
    pub(super) fn with(self, sieve: Sieve) -> Self {
        Self { sieve: Some(Arc::new(sieve)), ..self }
    }

    /// Whether it is the head of `section`, according to its contents.
    pub(super) fn is_of(&self, section: &Section) -> bool {
        let says = (section.count as usize, section.pages as usize, Some(section.first.as_bytes()));
        says == (self.count(), self.firsts().len(), self.firsts().first())
    }

    /// Number of the section's ids.
    pub(super) const fn count(&self) -> usize {
        self.prints.len() / 2
    }

    /// Bytes that it takes.
    pub(super) fn bytes(&self) -> usize {
        let sieve = self.sieve.as_ref().map_or(0, |sieve| sieve.bytes());
        self.firsts.len() + self.starts.len() + self.prints.len() + sieve
    }

    /// The first ids of the pages.
    pub(super) fn firsts(&self) -> &[[u8; EntryId::LEN]] {
        self.firsts.as_chunks().0
    }

    /// The page of `id`, if it is in the section.
    pub(super) fn page_of(&self, id: EntryId) -> usize {
        let behind = self.firsts().partition_point(|first| first <= id.as_bytes());
        behind.saturating_sub(1)
    }

    /// False if the id with this hash is not in the section.
    pub(super) fn sieve(&self, hash: u64) -> bool {
        self.sieve.as_ref().is_none_or(|sieve| sieve.may_have(hash))
    }

    /// Where the prints of the ids are that share a bucket with this hash.
    pub(super) fn bucket(&self, hash: u64) -> Range<usize> {
        let starts = self.starts.as_chunks::<2>().0;
        let bucket = bucket(hash, starts.len());
        let start = |at: usize| starts.get(at).map_or(self.count(), |start| number(*start));
        start(bucket)..start(bucket + 1)
    }

    /// False if the id with this hash, whose bucket this is, is not in the section.
    pub(super) fn may_have(&self, hash: u64, bucket: Range<usize>) -> bool {
        let print = (hash as u16).to_le_bytes();
        // Out of range only in data that nobody wrote, which must not cause a panic either.
        self.prints.as_chunks().0.get(bucket).is_some_and(|prints| prints.contains(&print))
    }
}

fn number(bytes: [u8; 2]) -> usize {
    usize::from(u16::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::storage::sled::ids::hash::Seed;

    const PART: Part = Part { ordinal: 1, section: 2, number: 0 };

    fn head(hashes: &[u64], firsts: &[EntryId]) -> Head {
        let bytes = Head::encode(PART, hashes, firsts.iter().copied());
        Head::decode(PART, &bytes.into()).expect("a head")
    }

    proptest! {
        #[test]
        fn what_is_there_may_be_there(
            hashes in proptest::collection::vec(any::<u64>(), 1..500), same_bucket: bool,
        ) {
            let hash = |hash: &u64| if same_bucket { hash >> 32 } else { *hash };
            let hashes: Vec<u64> = hashes.iter().map(hash).collect();
            let head = head(&hashes, &[EntryId::from_bytes([0; 16])]);
            prop_assert_eq!(head.count(), hashes.len());
            prop_assert!(hashes.iter().all(|hash| head.may_have(*hash, head.bucket(*hash))));
        }

        #[test]
        fn an_id_is_on_the_last_page_that_begins_before_it(
            firsts in proptest::collection::btree_set(any::<[u8; 16]>(), 1..20), id: [u8; 16],
        ) {
            let firsts: Vec<EntryId> = firsts.into_iter().map(EntryId::from_bytes).collect();
            let head = head(&[1], &firsts);
            let id = EntryId::from_bytes(id);
            let page = firsts.iter().rposition(|first| *first <= id).unwrap_or(0);
            prop_assert_eq!(head.page_of(id), page);
        }

        #[test]
        fn malformed_heads_are_refused(content: Vec<u8>, count in 0..12_u8, pages in 0..3_u8, hash: u64) {
            for content in [content.clone(), [&[count, 0, pages, 0], &content[..]].concat()] {
                let mut out = Part::begin(0);
                out.extend_from_slice(&content);
                if let Ok(head) = Head::decode(PART, &PART.finish(out).into()) {
                    prop_assert!(head.count() > 0 && !head.firsts().is_empty());
                    head.may_have(hash, head.bucket(hash));
                }
            }
        }
    }

    #[test]
    fn few_of_the_absent_are_taken_for_present() {
        let counting = |n: u64| u128::from(n);
        let counting_times = |n: u64| u128::from(n) << 80;
        let counting_both = |n: u64| u128::from(n / 100) << 80 | u128::from(n) << 3;
        for id in [counting, counting_times, counting_both] {
            let seed = Seed::random();
            let hash = |n: u64| seed.hash(EntryId::from_bytes(id(n).to_be_bytes()));
            let hashes: Vec<u64> = (0..16_384).map(hash).collect();
            let head = head(&hashes, &[EntryId::from_bytes([0; 16])]);
            let taken = (16_384..516_384)
                .map(hash)
                .filter(|hash| head.may_have(*hash, head.bucket(*hash)))
                .count();
            assert!(taken < 90, "{taken} of half a million, 31 are expected");
        }
    }

    #[test]
    fn bytes_do_not_change() {
        let hashes = [0xffff_ffff_0000_0102, 0x0000_0001_0000_0304, 0x8000_0000_0000_0506];
        let firsts = [[1; 16], [2; 16]].map(EntryId::from_bytes);
        let nine: Vec<u64> = hashes.iter().copied().cycle().take(9).collect();
        let bytes = Head::encode(PART, &nine, firsts.into_iter());
        let prints = [4, 3, 4, 3, 4, 3, 6, 5, 6, 5, 6, 5, 2, 1, 2, 1, 2, 1];
        let starts = [0, 0, 3, 0, 6, 0];
        let content = [&[9, 0, 2, 0][..], &[1; 16], &[2; 16], &starts, &prints].concat();
        assert_eq!(bytes[5..], content);
        assert_eq!(bytes[..5], [1, 229, 93, 206, 50]);
    }
}
