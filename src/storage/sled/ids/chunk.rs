//! The ids of consecutive entries, in memory.
//!
//! Most ids are never looked for: an id of the current time is above all that came before. So ids go into the table
//! only once an id is looked for that may be among them. The newest are in *runs*, each ascending and with a range of
//! its own: connections take turns, so an id may be below some that came before it, but it is mostly within none of
//! their batches.
//!
//! Keeps: each id goes into the table once, whoever looks for what.

use std::collections::VecDeque;
use std::sync::LazyLock;

use super::hash::Seed;
use super::sieve::Sieve;
use crate::model::{EntryId, Sequence, sparing};

/// Ids of a chunk.
pub(super) const CHUNK_IDS: usize = 1 << POSITION_BITS >> 1;
/// A bucket of a table holds a position plus one; zero means empty. Its other bits come from the id's hash, so that a
/// different id is mostly recognized without a look at it.
const POSITION_BITS: u32 = 18;
const POSITION: u32 = (1 << POSITION_BITS) - 1;

/// Bits of the sieve for an id.
const SIEVE_BITS: usize = 8;

/// How long a run becomes.
const RUN_IDS_MAX: usize = 1_024;
/// If a run ends with fewer, there are no runs worth a look.
const RUN_IDS_MIN: usize = 32;
/// How many runs are kept: each lookup may have to look at all of them.
const RUNS_MAX: usize = 16;

static SEED: LazyLock<Seed> = LazyLock::new(Seed::random);

/// The ids of consecutive entries.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) first: Sequence,
    pub(super) ids: Vec<EntryId>,
    /// The range of all ids.
    range: Option<IdRange>,
    /// The newest ids, without gaps.
    runs: VecDeque<Run>,
    /// The range of the ids before these.
    old: Option<IdRange>,
    /// Between these two are no ids: the next id of a batch is where the one before it was.
    free: Option<(u128, u128)>,
    /// How many of the old ids are in the table.
    placed: usize,
    /// Open addressing. Its length is a power of two, and at most half of it is used.
    table: Vec<u32>,
    /// What is in the table. It is much smaller, so that most looks at it need no memory that is in no cache.
    sieve: Sieve,
}

/// Ascending ids.
#[derive(Debug)]
struct Run {
    /// The position of the first one.
    start: usize,
    count: usize,
    range: IdRange,
}

/// Ids as numbers, which are compared faster.
#[derive(Clone, Copy, Debug)]
struct IdRange {
    least: u128,
    greatest: u128,
}

impl IdRange {
    const fn of(id: u128) -> Self {
        Self { least: id, greatest: id }
    }

    const fn has(self, id: u128) -> bool {
        self.least <= id && id <= self.greatest
    }
}

/// Makes `range` include `other`.
fn include(range: &mut Option<IdRange>, other: IdRange) {
    let all = range.get_or_insert(other);
    all.least = all.least.min(other.least);
    all.greatest = all.greatest.max(other.greatest);
}

const fn number(id: EntryId) -> u128 {
    u128::from_be_bytes(*id.as_bytes())
}

impl Chunk {
    /// An empty chunk with a capacity for this many ids; it grows if more come.
    pub(super) fn new(first: Sequence, ids: usize) -> Self {
        Self {
            first,
            // Most stores have few entries: nothing is reserved for more.
            ids: Vec::with_capacity(ids.max(1)),
            range: None,
            runs: VecDeque::new(),
            old: None,
            free: None,
            placed: 0,
            table: Vec::new(),
            sieve: Sieve::default(),
        }
    }

    /// The sequence of its last entry.
    pub(super) fn last(&self) -> Sequence {
        self.first.plus(self.ids.len() as u64).prev()
    }

    pub(super) fn push(&mut self, id: EntryId) {
        let at = number(id);
        include(&mut self.range, IdRange::of(at));
        self.free.take_if(|(below, above)| *below < at && at < *above);
        match self.runs.back_mut() {
            Some(run) if run.count < RUN_IDS_MAX && run.range.greatest < at => {
                run.count += 1;
                run.range.greatest = at;
            }
            last => {
                let is_short = last.is_some_and(|run| run.count < RUN_IDS_MIN);
                self.end_runs(if is_short { 0 } else { RUNS_MAX - 1 });
                let (start, range) = (self.ids.len(), IdRange::of(at));
                sparing::push_back(&mut self.runs, Run { start, count: 1, range });
            }
        }
        self.ids.push(id);
    }

    /// Keeps only this many runs.
    fn end_runs(&mut self, kept: usize) {
        let ended = self.runs.len().saturating_sub(kept);
        for run in self.runs.drain(..ended) {
            include(&mut self.old, run.range);
        }
    }

    pub(super) fn find(&mut self, id: EntryId) -> Option<Sequence> {
        let at = number(id);
        // An id of the current time is greater than those of all chunks but the newest, and mostly than those of this
        // one.
        self.range.filter(|range| range.has(at))?;
        if self.free.is_some_and(|(below, above)| below < at && at < above) {
            return None;
        }
        let may_be_old = self.old.is_some_and(|old| old.has(at));
        let found = if may_be_old { self.find_in_table(id) } else { None };
        let found = found.or_else(|| self.find_in_runs(at));
        found.map(|at| self.first.plus(at as u64))
    }

    /// If it is not there, notes between which ids it would be.
    fn find_in_runs(&mut self, id: u128) -> Option<usize> {
        let (mut below, mut above) = match self.old {
            Some(old) if old.greatest < id => (old.greatest, u128::MAX),
            // If the id is in this range, nothing is known of those near it.
            Some(old) => (0, old.least),
            None => (0, u128::MAX),
        };
        for run in self.runs.iter().rev() {
            if run.range.greatest < id {
                below = below.max(run.range.greatest);
            } else if id < run.range.least {
                above = above.min(run.range.least);
            } else {
                let ids = &self.ids[run.start..run.start + run.count];
                // The run's least id is at `id` or before.
                let behind = ids.partition_point(|one| number(*one) <= id).max(1);
                let before = number(ids[behind - 1]);
                if before == id {
                    return Some(run.start + behind - 1);
                }
                below = below.max(before);
                above = above.min(ids.get(behind).map_or(u128::MAX, |next| number(*next)));
            }
        }
        self.free = Some((below, above));
        None
    }

    fn find_in_table(&mut self, id: EntryId) -> Option<usize> {
        self.place_old();
        let hash = SEED.hash(id);
        if !self.sieve.may_have(hash) {
            return None;
        }
        let (mut bucket, tag) = self.bucket(hash);
        loop {
            let found = self.table[bucket];
            let at = ((found & POSITION) as usize).checked_sub(1)?;
            if found & !POSITION == tag && self.ids[at] == id {
                return Some(at);
            }
            bucket = self.next(bucket);
        }
    }

    /// Puts all ids before the runs into the table.
    fn place_old(&mut self) {
        let old = self.runs.front().map_or(self.ids.len(), |run| run.start);
        if self.table.len() < old * 2 {
            // As many as there are likely to be.
            let ids = self.ids.capacity().max(old);
            self.table = vec![0; (ids * 2).next_power_of_two().max(16)];
            self.sieve = Sieve::new(ids, SIEVE_BITS);
            self.placed = 0;
        }
        for at in self.placed..old {
            self.place(at);
        }
        self.placed = old;
    }

    fn place(&mut self, at: usize) {
        let hash = SEED.hash(self.ids[at]);
        self.sieve.add(hash);
        let (mut bucket, tag) = self.bucket(hash);
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

    /// The entries before `before` whose ids are above `id`.
    pub(super) fn above(&self, id: EntryId, before: Sequence) -> impl Iterator<Item = Sequence> {
        let any = self.range.is_some_and(|range| range.greatest > number(id));
        let count = if any { before.since(self.first) as usize } else { 0 };
        let ids = (0..).zip(&self.ids).take(count);
        ids.filter(move |(_, other)| **other > id).map(|(at, _)| self.first.plus(at))
    }

    /// Its ids after `to`.
    pub(super) fn behind(&self, to: Sequence) -> &[EntryId] {
        self.ids.get(to.next().since(self.first) as usize..).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn id(n: u64) -> EntryId {
        EntryId::from_bytes((u128::from(n) << 64).to_be_bytes())
    }

    fn sequence(at: usize) -> Sequence {
        Sequence::FIRST.plus(at as u64)
    }

    /// Batches of 100 ascending ids; each second one comes before the one it follows.
    fn taking_turns(batches: u64) -> impl Iterator<Item = u64> {
        (0..batches).map(|batch| batch ^ 1).flat_map(|batch| batch * 100..(batch + 1) * 100)
    }

    #[test]
    fn ids_of_writers_that_take_turns_are_not_put_into_the_table() {
        let mut chunk = Chunk::new(Sequence::FIRST, 0);
        for n in taking_turns(1_000) {
            assert_eq!(chunk.find(id(n)), None, "{n}");
            chunk.push(id(n));
            assert!(chunk.find(id(n)).is_some(), "{n}");
        }
        assert_eq!((chunk.placed, chunk.table.len()), (0, 0));
        assert_eq!(chunk.ids.len(), 100_000);
        for (at, n) in taking_turns(1_000).enumerate() {
            assert_eq!(chunk.find(id(n)), Some(sequence(at)), "{n}");
        }
        assert!(chunk.placed > 80_000 && chunk.runs.len() <= RUNS_MAX);
    }

    #[test]
    fn an_id_that_is_missing_says_nothing_about_those_that_are_there() {
        let batches = |order: Vec<u64>| {
            order.into_iter().flat_map(|batch| batch * 100..(batch + 1) * 100).collect()
        };
        let orders: [Vec<u64>; 2] =
            [taking_turns(200).collect(), batches((0..200).rev().collect())];
        for order in orders {
            let mut chunk = Chunk::new(Sequence::FIRST, 0);
            order.iter().for_each(|n| chunk.push(id(n * 2)));
            let there: HashMap<u64, usize> =
                order.iter().enumerate().map(|(at, n)| (n * 2, at)).collect();
            for missing in (1..40_000_u64).step_by(2) {
                for apart in [1, 201, 5_001] {
                    for other in [missing.saturating_sub(apart), missing + apart] {
                        assert_eq!(chunk.find(id(missing)), None, "{missing}");
                        let at = there.get(&other).map(|at| sequence(*at));
                        assert_eq!(chunk.find(id(other)), at, "{other} after {missing}");
                    }
                }
            }
        }
    }

    #[test]
    fn ids_in_any_order_are_found_while_more_come() {
        // Multiplied by an odd number, so that each comes once: ascending runs of one or two.
        let scattered = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let ids: Vec<EntryId> = taking_turns(20)
            .chain((2_000..4_000).map(scattered))
            .chain(4_000..6_000)
            .map(id)
            .collect();
        let mut chunk = Chunk::new(Sequence::FIRST, 0);
        for (at, one) in ids.iter().enumerate() {
            assert_eq!(chunk.find(*one), None, "{at}");
            chunk.push(*one);
            assert_eq!(chunk.find(*one), Some(sequence(at)), "{at}");
            let earlier = at * 7 / 11;
            assert_eq!(chunk.find(ids[earlier]), Some(sequence(earlier)), "{earlier} of {at}");
        }
        for (at, one) in ids.iter().enumerate() {
            assert_eq!(chunk.find(*one), Some(sequence(at)), "{at}");
        }
    }
}
