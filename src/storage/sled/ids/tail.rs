//! The ids of a store's newest entries, in memory.
//!
//! They are in chunks, each with a table of its own: few chunks, so that an id is looked for in few tables, and bounded
//! ones, so that growing one never takes long. Sealed ids are released chunk by chunk.

use std::collections::VecDeque;
use std::sync::LazyLock;

use super::hash::Seed;
use crate::model::{EntryId, Sequence};

/// Ids of a chunk.
const CHUNK_IDS: usize = 1 << POSITION_BITS >> 1;
/// A chunk in which no more than this fraction is unsealed is rebuilt from that fraction.
const KEPT_PART_MAX: usize = 4;
/// A bucket of a table holds a position plus one; zero means empty. Its other bits come from the id's hash, so that a
/// different id is mostly recognized without a look at it.
const POSITION_BITS: u32 = 18;
const POSITION: u32 = (1 << POSITION_BITS) - 1;

static SEED: LazyLock<Seed> = LazyLock::new(Seed::random);

/// The ids of consecutive entries.
#[derive(Debug)]
struct Chunk {
    first: Sequence,
    ids: Vec<EntryId>,
    /// The least and the greatest id.
    range: Option<(EntryId, EntryId)>,
    /// Open addressing. Its length is a power of two, and at most half of it is used.
    table: Vec<u32>,
}

impl Chunk {
    /// An empty chunk with a capacity for this many ids; it grows if more come.
    fn new(first: Sequence, ids: usize) -> Self {
        let table = vec![0; (ids * 2).next_power_of_two().max(16)];
        Self { first, ids: Vec::with_capacity(ids), range: None, table }
    }

    /// The sequence of its last entry.
    fn last(&self) -> Sequence {
        self.first.plus(self.ids.len() as u64).prev()
    }

    fn push(&mut self, id: EntryId) {
        if self.table.len() <= self.ids.len() * 2 {
            self.table = vec![0; self.table.len() * 2];
            for at in 0..self.ids.len() {
                self.place(at);
            }
        }
        let (least, greatest) = self.range.unwrap_or((id, id));
        self.range = Some((least.min(id), greatest.max(id)));
        self.ids.push(id);
        self.place(self.ids.len() - 1);
    }

    fn place(&mut self, at: usize) {
        let (mut bucket, tag) = self.bucket(SEED.hash(self.ids[at]));
        while self.table[bucket] != 0 {
            bucket = self.next(bucket);
        }
        // At most `CHUNK_IDS`, which is a valid position.
        self.table[bucket] = tag | (at as u32 + 1);
    }

    /// The place where the search for the id with this hash starts, and its tag.
    fn bucket(&self, hash: u64) -> (usize, u32) {
        (hash as usize & (self.table.len() - 1), (hash >> 32) as u32 & !POSITION)
    }

    fn next(&self, bucket: usize) -> usize {
        (bucket + 1) & (self.table.len() - 1)
    }

    fn find(&self, id: EntryId, hash: u64) -> Option<Sequence> {
        // An id of the current time is greater than those of all chunks but the newest.
        self.range.filter(|(least, greatest)| *least <= id && id <= *greatest)?;
        let (mut bucket, tag) = self.bucket(hash);
        loop {
            let found = self.table[bucket];
            let at = ((found & POSITION) as usize).checked_sub(1)?;
            if found & !POSITION == tag && self.ids[at] == id {
                return Some(self.first.plus(at as u64));
            }
            bucket = self.next(bucket);
        }
    }

    /// The entries before `before` whose ids are above `id`.
    fn above(&self, id: EntryId, before: Sequence) -> impl Iterator<Item = Sequence> {
        let any = self.range.is_some_and(|(_, greatest)| greatest > id);
        let count = if any { before.since(self.first) as usize } else { 0 };
        let ids = (0..).zip(&self.ids).take(count);
        ids.filter(move |(_, other)| **other > id).map(|(at, _)| self.first.plus(at))
    }

    /// Its ids after `to`.
    fn behind(&self, to: Sequence) -> &[EntryId] {
        self.ids.get(to.next().since(self.first) as usize..).unwrap_or_default()
    }
}

/// The ids that are in no section yet, and some that are.
#[derive(Debug)]
pub(super) struct Tail {
    /// Oldest first. The last one grows, the others are full.
    chunks: VecDeque<Chunk>,
    next: Sequence,
}

impl Tail {
    /// For a store whose entry `next` is the first that is not sealed.
    pub(super) fn new(next: Sequence) -> Self {
        Self { chunks: VecDeque::new(), next }
    }

    /// Adds the id of the next entry.
    pub(super) fn push(&mut self, id: EntryId) {
        let full = self.chunks.back().is_none_or(|chunk| chunk.ids.len() == CHUNK_IDS);
        if full {
            // After a full one there are likely to be as many again.
            let ids = if self.chunks.is_empty() { 0 } else { CHUNK_IDS };
            self.chunks.push_back(Chunk::new(self.next, ids));
        }
        self.chunks.back_mut().into_iter().for_each(|chunk| chunk.push(id));
        self.next = self.next.next();
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.ids.len()).sum()
    }

    /// The first entry whose id is here, or the next one.
    pub(super) fn first(&self) -> Sequence {
        self.chunks.front().map_or(self.next, |chunk| chunk.first)
    }

    /// The sequence of `id`, if it is here.
    pub(super) fn find(&self, id: EntryId) -> Option<Sequence> {
        let hash = SEED.hash(id);
        self.chunks.iter().rev().find_map(|chunk| chunk.find(id, hash))
    }

    /// The entries before `before` whose ids are above `id`, as far as they are here.
    pub(super) fn above(&self, id: EntryId, before: Sequence) -> Vec<Sequence> {
        self.chunks.iter().flat_map(|chunk| chunk.above(id, before)).collect()
    }

    /// The ids of the entries from `from` to `to`, as far as they are here.
    pub(super) fn ids(&self, from: Sequence, to: Sequence) -> Vec<EntryId> {
        let here = |chunk: &Chunk| {
            let start = from.since(chunk.first) as usize;
            let end = to.next().since(chunk.first) as usize;
            let end = end.min(chunk.ids.len());
            chunk.ids[start.min(end)..end].to_vec()
        };
        self.chunks.iter().flat_map(here).collect()
    }

    /// Releases most of what is at `to` or before.
    pub(super) fn forget(&mut self, to: Sequence) {
        while self.chunks.front().is_some_and(|chunk| chunk.last() <= to) {
            self.chunks.pop_front();
        }
        let Some(chunk) = self.chunks.front_mut() else { return };
        let kept = chunk.behind(to);
        if kept.len() <= chunk.ids.len() / KEPT_PART_MAX {
            let mut anew = Chunk::new(to.next(), kept.len());
            kept.iter().for_each(|id| anew.push(*id));
            *chunk = anew;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_is_found_at_its_sequence_until_it_is_forgotten() {
        let count = CHUNK_IDS * 2 + 100;
        let ids: Vec<EntryId> = (0..count).map(|_| EntryId::now()).collect();
        let sequence = |n: usize| Sequence::ZERO.plus(n as u64);
        let mut tail = Tail::new(Sequence::FIRST);
        assert_eq!(tail.find(ids[0]), None);
        ids.iter().for_each(|id| tail.push(*id));
        let assert_found = |tail: &Tail, from: usize| {
            for (id, at) in ids.iter().zip(1..) {
                assert_eq!(tail.find(*id), (at >= from).then(|| sequence(at)), "{at}");
            }
        };
        assert_found(&tail, 1);
        assert_eq!(tail.find(EntryId::now()), None);
        assert_eq!(tail.find(EntryId::from_bytes([0; 16])), None);

        assert_eq!(tail.ids(Sequence::FIRST, Sequence::MAX), ids);
        for (from, to) in [(1, 10), (CHUNK_IDS - 5, CHUNK_IDS + 5), (40, CHUNK_IDS * 2 + 7)] {
            assert_eq!(tail.ids(sequence(from), sequence(to)), &ids[from - 1..to]);
        }

        tail.forget(sequence(CHUNK_IDS / 2));
        assert_found(&tail, 1);
        tail.forget(sequence(CHUNK_IDS - CHUNK_IDS / 4));
        assert_found(&tail, CHUNK_IDS - CHUNK_IDS / 4 + 1);
        tail.forget(sequence(CHUNK_IDS));
        assert_found(&tail, CHUNK_IDS + 1);
        tail.forget(sequence(CHUNK_IDS));
        assert_found(&tail, CHUNK_IDS + 1);
        tail.forget(sequence(count));
        assert_found(&tail, count + 1);
        tail.push(ids[0]);
        assert_eq!(tail.find(ids[0]), Some(sequence(count + 1)));
    }

    #[test]
    fn ids_that_differ_little_are_told_apart() {
        let ids: Vec<EntryId> =
            (0..1_000_u128).map(|n| EntryId::from_bytes((n << 64).to_be_bytes())).collect();
        let mut tail = Tail::new(Sequence::FIRST);
        ids.iter().for_each(|id| tail.push(*id));
        let found: Vec<_> = ids.iter().filter_map(|id| tail.find(*id)).map(Sequence::get).collect();
        assert_eq!(found, (1..=1_000).collect::<Vec<_>>());
    }
}
