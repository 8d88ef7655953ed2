//! Makes sections of sorted entries.

use super::hash::Seed;
use super::head::Head;
use super::page::{PAGE_IDS_MAX, Page};
use super::part::Part;
use super::record::Section;
use super::sieve::Sieve;
use crate::model::{EntryId, Sequence};
use crate::storage::sled::key::Ordinal;

/// Most ids of a section: its head has to fit in a slot, and its numbers in two bytes.
pub(super) const SECTION_IDS_MAX: usize = 16_384;

/// Bits of a section's sieve for an id.
const SIEVE_BITS: usize = 16;

/// A section that is not in a slot yet.
#[derive(Debug)]
pub(super) struct Built {
    /// Its slot still has to be filled in.
    pub(super) section: Section,
    /// Its head, then its pages.
    pub(super) values: Vec<Vec<u8>>,
    /// Has the hashes of its ids.
    pub(super) sieve: Sieve,
}

/// The section of `entries`, which ascend: at least one, at most [`SECTION_IDS_MAX`].
pub(super) fn build(
    ordinal: Ordinal,
    number: u64,
    seed: Seed,
    entries: &[(EntryId, Sequence)],
) -> Option<Built> {
    let (first, last) = (entries.first()?.0, entries.last()?.0);
    let part = |at| Part { ordinal, section: number, number: at };
    let pages = entries.chunks(PAGE_IDS_MAX);
    let hashes: Vec<u64> = entries.iter().map(|(id, _)| seed.hash(*id)).collect();
    let mut sieve = Sieve::new(hashes.len(), SIEVE_BITS);
    hashes.iter().for_each(|hash| sieve.add(*hash));
    let mut values = vec![Head::encode(part(0), &hashes, pages.clone().map(|page| page[0].0))];
    values.extend((1..).zip(pages).map(|(at, page)| Page::encode(part(at), page)));
    let (count, pages) = (entries.len() as u32, values.len() as u32 - 1);
    Some(Built { section: Section { number, first, last, count, pages, slot: 0 }, values, sieve })
}

/// Splits `entries` so that each piece fits in a section, none much shorter than another.
pub(super) fn cut(entries: &[(EntryId, Sequence)]) -> impl Iterator<Item = &[(EntryId, Sequence)]> {
    let sections = entries.len().div_ceil(SECTION_IDS_MAX).max(1);
    entries.chunks(entries.len().div_ceil(sections).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::sled::ops::VALUE_BYTES_MAX;

    #[test]
    fn the_largest_parts_fit_into_slots() {
        let id = |n: u64| EntryId::from_bytes(u128::from(n).to_be_bytes());
        let mut entries: Vec<_> =
            (1..).map(|n| (id(n), Sequence::ZERO.plus(n))).take(40_000).collect();
        entries[0].1 = Sequence::MAX;
        let pieces: Vec<_> = cut(&entries).collect();
        assert_eq!(pieces.concat(), entries);
        assert!(pieces.iter().all(|piece| piece.len() > SECTION_IDS_MAX / 2));
        let built = build(1, 2, Seed::random(), &entries[..SECTION_IDS_MAX]).expect("entries");
        assert_eq!(built.values.len() as u64, built.section.slots().count());
        assert!(built.values.iter().all(|value| value.len() <= VALUE_BYTES_MAX));
        assert!(build(1, 2, Seed::random(), &[]).is_none());
        assert_eq!(cut(&[]).count(), 0);
    }
}
