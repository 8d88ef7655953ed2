//! The ids of a store's newest entries, in memory.
//!
//! They are kept in chunks of the length of a block; a full chunk becomes a block on disk and is then let go.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, LazyLock};

use crate::model::{EntryId, Sequence};
use crate::storage::sled::value::block::BLOCK_ENTRIES;

/// The ids of consecutive entries.
#[derive(Debug)]
pub(in crate::storage::sled) struct Chunk {
    first: Sequence,
    ids: Vec<EntryId>,
    /// Open addressing: one more than a position in `ids`, or zero. A power of two long, at most half of it used.
    table: Vec<u16>,
}

/// Makes up collisions impossible to prepare: ids are chosen by clients.
static SEEDS: LazyLock<[u64; 2]> = LazyLock::new(|| [0, 1].map(|n| RandomState::new().hash_one(n)));

fn bucket(id: EntryId) -> usize {
    let id = u128::from_be_bytes(*id.as_bytes());
    let (high, low) = ((id >> 64) as u64 ^ SEEDS[0], id as u64 ^ SEEDS[1]);
    let product = u128::from(high) * u128::from(low);
    ((product >> 64) as u64 ^ product as u64) as usize
}

impl Chunk {
    fn new(first: Sequence) -> Self {
        Self { first, ids: Vec::new(), table: vec![0; 16] }
    }

    /// The sequence of its first entry.
    pub(in crate::storage::sled) const fn first(&self) -> Sequence {
        self.first
    }

    /// The sequence of its last entry.
    pub(in crate::storage::sled) const fn last(&self) -> Sequence {
        self.first.plus(self.ids.len() as u64).prev()
    }

    /// Its ids, in order.
    pub(in crate::storage::sled) fn ids(&self) -> &[EntryId] {
        &self.ids
    }

    fn push(&mut self, id: EntryId) {
        if self.table.len() <= self.ids.len() * 2 {
            self.table = vec![0; self.table.len() * 2];
            for at in 0..self.ids.len() {
                self.place(at);
            }
        }
        self.ids.push(id);
        self.place(self.ids.len() - 1);
    }

    fn place(&mut self, at: usize) {
        let mask = self.table.len() - 1;
        let mut bucket = bucket(self.ids[at]) & mask;
        while self.table[bucket] != 0 {
            bucket = (bucket + 1) & mask;
        }
        // At most `BLOCK_ENTRIES`, which is below 2^16.
        self.table[bucket] = at as u16 + 1;
    }

    fn find(&self, id: EntryId) -> Option<Sequence> {
        let mask = self.table.len() - 1;
        let mut bucket = bucket(id) & mask;
        loop {
            let at = usize::from(self.table[bucket]).checked_sub(1)?;
            if self.ids[at] == id {
                return Some(self.first.plus(at as u64));
            }
            bucket = (bucket + 1) & mask;
        }
    }
}

/// The ids that are in no block yet.
#[derive(Debug)]
pub(in crate::storage::sled) struct Tail {
    /// Oldest first; all full.
    full: VecDeque<Arc<Chunk>>,
    newest: Chunk,
}

impl Tail {
    /// Of a log whose blocks end before `first`.
    pub(in crate::storage::sled) fn new(first: Sequence) -> Self {
        Self { full: VecDeque::new(), newest: Chunk::new(first) }
    }

    /// Adds the id of the next entry.
    pub(in crate::storage::sled) fn push(&mut self, id: EntryId) {
        self.newest.push(id);
        if self.newest.ids.len() == BLOCK_ENTRIES {
            let next = Chunk::new(self.newest.last().next());
            self.full.push_back(Arc::new(std::mem::replace(&mut self.newest, next)));
        }
    }

    /// The sequence of `id`, if it is here.
    pub(in crate::storage::sled) fn find(&self, id: EntryId) -> Option<Sequence> {
        let full = self.full.iter().rev().find_map(|chunk| chunk.find(id));
        full.or_else(|| self.newest.find(id))
    }

    /// The full chunks that start behind `from` and end at `to` or before, oldest first.
    pub(in crate::storage::sled) fn full(
        &self,
        from: Sequence,
        to: Sequence,
    ) -> impl Iterator<Item = &Arc<Chunk>> {
        self.full.iter().filter(move |chunk| chunk.first > from && chunk.last() <= to)
    }

    /// Lets go of what ends at `to` or before: blocks have it.
    pub(in crate::storage::sled) fn forget(&mut self, to: Sequence) {
        while self.full.front().is_some_and(|chunk| chunk.last() <= to) {
            self.full.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_is_found_at_its_sequence_until_it_is_forgotten() {
        let count = BLOCK_ENTRIES as u64 * 2 + 100;
        let ids: Vec<EntryId> = (0..count).map(|_| EntryId::now()).collect();
        let mut tail = Tail::new(Sequence::FIRST);
        assert_eq!(tail.find(ids[0]), None);
        ids.iter().for_each(|id| tail.push(*id));
        let found = |tail: &Tail| ids.iter().map(|id| tail.find(*id)).collect::<Vec<_>>();
        let all: Vec<_> = (0..count).map(|n| Some(Sequence::FIRST.plus(n))).collect();
        assert_eq!(found(&tail), all);
        assert_eq!(tail.find(EntryId::now()), None);

        let full: Vec<_> = tail.full(Sequence::ZERO, Sequence::MAX).cloned().collect();
        assert_eq!(full.iter().map(|chunk| chunk.ids().len()).sum::<usize>(), BLOCK_ENTRIES * 2);
        assert_eq!(full[0].ids(), &ids[..BLOCK_ENTRIES]);
        assert_eq!(full[1].first(), full[0].last().next());
        assert_eq!(tail.full(full[0].last(), Sequence::MAX).count(), 1);
        assert_eq!(tail.full(Sequence::ZERO, full[1].last().prev()).count(), 1);

        tail.forget(full[0].last());
        assert!(found(&tail)[..BLOCK_ENTRIES].iter().all(Option::is_none));
        assert_eq!(found(&tail)[BLOCK_ENTRIES..], all[BLOCK_ENTRIES..]);
    }
}
