//! The ids of a store's newest entries, in memory.
//!
//! They are in chunks, each with a table of its own: few chunks, so that an id is looked for in few tables, and bounded
//! ones, so that filling one never takes long. Sealed ids are released chunk by chunk.

use std::collections::VecDeque;

use super::chunk::{CHUNK_IDS, Chunk};
use crate::model::{EntryId, Sequence, sparing};

/// A chunk in which no more than this fraction is unsealed is rebuilt from that fraction.
const KEPT_PART_MAX: usize = 4;

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
            sparing::push_back(&mut self.chunks, Chunk::new(self.next, ids));
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
    pub(super) fn find(&mut self, id: EntryId) -> Option<Sequence> {
        self.chunks.iter_mut().rev().find_map(|chunk| chunk.find(id))
    }

    /// The entries before `before` whose ids are above `id`, as far as they are here.
    pub(super) fn above(&self, id: EntryId, before: Sequence) -> Vec<Sequence> {
        self.chunks.iter().flat_map(|chunk| chunk.above(id, before)).collect()
    }

    /// The ids of the entries from `from` to `to`, as far as they are here.
    pub(super) fn ids(&self, from: Sequence, to: Sequence) -> Vec<EntryId> {
        let mut ids = Vec::new();
        for chunk in &self.chunks {
            let start = from.since(chunk.first) as usize;
            let end = to.next().since(chunk.first) as usize;
            let end = end.min(chunk.ids.len());
            ids.extend_from_slice(&chunk.ids[start.min(end)..end]);
        }
        ids
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
        let assert_found = |tail: &mut Tail, from: usize| {
            for (id, at) in ids.iter().zip(1..) {
                assert_eq!(tail.find(*id), (at >= from).then(|| sequence(at)), "{at}");
            }
        };
        assert_found(&mut tail, 1);
        assert_eq!(tail.find(EntryId::now()), None);
        assert_eq!(tail.find(EntryId::from_bytes([0; 16])), None);

        assert_eq!(tail.ids(Sequence::FIRST, Sequence::MAX), ids);
        for (from, to) in [(1, 10), (CHUNK_IDS - 5, CHUNK_IDS + 5), (40, CHUNK_IDS * 2 + 7)] {
            assert_eq!(tail.ids(sequence(from), sequence(to)), &ids[from - 1..to]);
        }

        tail.forget(sequence(CHUNK_IDS / 2));
        assert_found(&mut tail, 1);
        tail.forget(sequence(CHUNK_IDS - CHUNK_IDS / 4));
        assert_found(&mut tail, CHUNK_IDS - CHUNK_IDS / 4 + 1);
        tail.forget(sequence(CHUNK_IDS));
        assert_found(&mut tail, CHUNK_IDS + 1);
        tail.forget(sequence(CHUNK_IDS));
        assert_found(&mut tail, CHUNK_IDS + 1);
        tail.forget(sequence(count));
        assert_found(&mut tail, count + 1);
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
