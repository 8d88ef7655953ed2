//! Where the entries that belong to compactors stand, and with whom they share a bucket.

use std::collections::HashMap;
use std::sync::Arc;

use super::positions::PositionSet;
use super::{Moment, Rule};
use crate::model::Sequence;

/// No slot: the end of a chain. Budgets keep slots (32 bytes each) far below this many.
const NONE: u32 = u32::MAX;

/// Fewer slots than this are never worth pruning.
const PRUNE_SLOTS_MIN: usize = if cfg!(test) { 4 } else { 4_096 };

/// About what a map from a primary key to its bucket takes beside the key's own bytes.
const KEY_OVERHEAD_BYTES: usize = 48;

/// An entry as the index sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sighting<'a> {
    pub(crate) sequence: Sequence,
    /// The compactor its event belongs to.
    pub(crate) compactor: u32,
    pub(crate) primary_key: &'a str,
    /// Creation time in Unix milliseconds.
    pub(crate) created: u64,
    /// Size of its record.
    pub(crate) bytes: usize,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) sequence: Sequence,
    pub(super) created: u64,
    pub(super) bytes: u32,
    pub(super) bucket: u32,
    /// The slot before it in its bucket.
    prev: u32,
    /// The slot behind it in its bucket.
    next: u32,
}

/// All entries of one compactor and primary key, eligible or not.
#[derive(Debug)]
pub(super) struct Bucket {
    pub(super) compactor: u32,
    last: u32,
    pub(super) output: Option<Output>,
}

/// What a bucket became, kept for those who ask again.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    /// Of which members.
    pub(crate) members: Members,
    /// Whether the members are sent as they are, because the effect failed.
    pub(crate) raw: bool,
    /// The replacements, as records; `None` if they are not kept.
    pub(crate) records: Option<Arc<[u8]>>,
}

/// Which entries of a bucket are eligible at some moment: equal values mean the same entries.
///
/// For two moments with the same end, both heads are at or above it, so only the times tell the members apart; the
/// later time has all members of the earlier one, and with any more it has more bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Members {
    /// The greatest sequence.
    pub(crate) end: Sequence,
    /// Size of their records.
    pub(crate) bytes: u64,
}

impl Members {
    /// The one member of a bucket that only its last entry matters to.
    pub(crate) fn only(end: Sequence) -> Self {
        Self { end, bytes: 0 }
    }

    fn add(&mut self, slot: &Slot) {
        self.end = self.end.max(slot.sequence);
        self.bytes += u64::from(slot.bytes);
    }
}

/// The feed of one store, as far as compactors are concerned.
#[derive(Debug)]
pub(crate) struct Index {
    rules: Arc<[Rule]>,
    /// The cursors it can answer are from here on,
    base: Sequence,
    /// and before this.
    end: Sequence,
    /// The first entry it has not seen.
    next: Sequence,
    /// Ascending by sequence.
    pub(super) slots: Vec<Slot>,
    pub(super) buckets: Vec<Bucket>,
    /// For each compactor, the bucket of each primary key.
    keys: Vec<HashMap<Box<str>, u32>>,
    /// Entries that no moment from the floor on sends.
    pub(super) gone: PositionSet,
    /// What was pruned is right from this moment on.
    floor: Option<Moment>,
    prune_at: usize,
    key_bytes: usize,
    record_bytes: usize,
}

impl Index {
    /// An index for compactors with these rules, of entries from `base` on, which answers cursors there.
    ///
    /// With a rule that looks at whole buckets ([`Rule::Effect`]) it must see the entries before `base` as well.
    pub(crate) fn new(rules: Arc<[Rule]>, base: Sequence) -> Self {
        let keys = rules.iter().map(|_| HashMap::new()).collect();
        Self {
            rules,
            base,
            end: Sequence::MAX,
            next: base,
            slots: Vec::new(),
            buckets: Vec::new(),
            keys,
            gone: PositionSet::new(base, Sequence::MAX),
            floor: None,
            prune_at: PRUNE_SLOTS_MIN,
            key_bytes: 0,
            record_bytes: 0,
        }
    }

    /// Makes it answer cursors before `end` alone; comes before the first pruning. It may then be shown only those
    /// entries that share a bucket with one before `end`.
    pub(crate) fn end_at(&mut self, end: Sequence) {
        self.end = end;
        self.gone = PositionSet::new(self.base, end);
    }

    /// The sequence of the first entry it has not seen.
    pub(crate) const fn next(&self) -> Sequence {
        self.next
    }

    /// Whether it begins too late for a reader with this cursor.
    pub(crate) fn begins_behind(&self, cursor: Sequence) -> bool {
        self.base > cursor
    }

    /// Whether it can answer a reader with this moment and cursor, once it has seen the entries up to its head.
    pub(crate) fn answers(&self, at: &Moment, cursor: Sequence) -> bool {
        let within = cursor >= self.base && cursor < self.end;
        within && self.floor.as_ref().is_none_or(|floor| at.not_before(floor))
    }

    /// Takes in an entry of a compactor. Entries come in feed order.
    pub(crate) fn see(&mut self, entry: &Sighting<'_>) {
        let bucket = self.bucket_of(entry.compactor, entry.primary_key);
        self.slots.push(Slot {
            sequence: entry.sequence,
            created: entry.created,
            bytes: u32::try_from(entry.bytes).unwrap_or(u32::MAX),
            bucket,
            prev: NONE,
            next: NONE,
        });
        self.link(self.slots.len() - 1);
        self.next = entry.sequence.next();
    }

    /// Says that all entries before `next` have been seen, those of no compactor included.
    pub(crate) fn seen_before(&mut self, next: Sequence) {
        self.next = self.next.max(next);
    }

    /// How many buckets there are; they are numbered from 0.
    pub(crate) const fn buckets(&self) -> usize {
        self.buckets.len()
    }

    /// The bucket of this primary key, if there is one.
    pub(crate) fn find_bucket(&self, compactor: u32, primary_key: &str) -> Option<u32> {
        self.keys[compactor as usize].get(self.key(compactor, primary_key)).copied()
    }

    /// Makes the bucket of this primary key, if there is none, and finds it.
    pub(crate) fn bucket_of(&mut self, compactor: u32, primary_key: &str) -> u32 {
        let key = self.key(compactor, primary_key);
        let keys = &mut self.keys[compactor as usize];
        if let Some(bucket) = keys.get(key) {
            return *bucket;
        }
        let bucket = self.buckets.len() as u32;
        keys.insert(key.into(), bucket);
        self.key_bytes += key.len() + KEY_OVERHEAD_BYTES;
        self.buckets.push(Bucket { compactor, last: NONE, output: None });
        bucket
    }

    /// Whether enough entries came in since the last time that pruning is worth its walk over all slots.
    pub(crate) const fn wants_pruning(&self) -> bool {
        self.slots.len() >= self.prune_at
    }

    /// Forgets what no reader from `floor` on needs; earlier ones are no longer answered. What is forgotten already
    /// does not come back: the floor only moves up.
    pub(crate) fn prune(&mut self, floor: &Moment) {
        let floor = &self.floor.as_ref().map_or_else(|| floor.clone(), |it| it.later_of(floor));
        let kept: Vec<Slot> = (0..self.slots.len())
            .filter(|at| !self.is_gone_for_good(*at, floor))
            .map(|at| self.slots[at])
            .collect();
        let mut kept_sequences = kept.iter().map(|slot| slot.sequence).peekable();
        for slot in &self.slots {
            if kept_sequences.next_if_eq(&slot.sequence).is_none() {
                self.gone.insert(slot.sequence);
            }
        }
        self.slots = kept;
        self.buckets.iter_mut().for_each(|bucket| bucket.last = NONE);
        (0..self.slots.len()).for_each(|at| self.link(at));
        self.prune_at = (self.slots.len() * 2).max(PRUNE_SLOTS_MIN);
        self.floor = Some(floor.clone());
    }

    /// Keeps what a bucket became.
    pub(crate) fn set_output(&mut self, bucket: u32, output: Output) {
        let bytes = |output: &Output| output.records.as_ref().map_or(0, |records| records.len());
        self.record_bytes += bytes(&output);
        if let Some(replaced) = self.buckets[bucket as usize].output.replace(output) {
            self.record_bytes -= bytes(&replaced);
        }
    }

    /// Forgets the replacements it keeps, but not whether there are any.
    pub(crate) fn drop_records(&mut self) {
        for output in self.buckets.iter_mut().filter_map(|bucket| bucket.output.as_mut()) {
            output.records = None;
        }
        self.record_bytes = 0;
    }

    /// About how much memory it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Slot>()
            + self.buckets.capacity() * size_of::<Bucket>()
            + self.gone.bytes()
            + self.key_bytes
            + self.record_bytes
    }

    /// How much of that is replacements.
    pub(crate) const fn record_bytes(&self) -> usize {
        self.record_bytes
    }

    /// The first position behind what it can tell a reader with this moment.
    pub(super) fn end(&self, at: &Moment) -> Sequence {
        at.head().next().min(self.end)
    }

    pub(super) fn rule_of(&self, slot: &Slot) -> Rule {
        self.rules[self.buckets[slot.bucket as usize].compactor as usize]
    }

    pub(super) fn is_eligible(&self, slot: &Slot, at: &Moment) -> bool {
        let compactor = self.buckets[slot.bucket as usize].compactor;
        at.eligible(compactor, slot.created, slot.sequence)
    }

    /// Whether a later entry of the bucket is eligible. Walks up to the next such entry, so that asking it of every
    /// slot in turn takes one step a slot.
    pub(super) fn is_followed(&self, slot: &Slot, at: &Moment) -> bool {
        let mut no_limit = usize::MAX;
        self.is_followed_within(slot, at, &mut no_limit).unwrap_or(false)
    }

    /// The same in so many steps, or `None`; counts them down.
    pub(super) fn is_followed_within(
        &self,
        slot: &Slot,
        at: &Moment,
        steps_left: &mut usize,
    ) -> Option<bool> {
        let mut next = slot.next;
        while next != NONE {
            *steps_left = steps_left.checked_sub(1)?;
            let later = &self.slots[next as usize];
            if self.is_eligible(later, at) {
                return Some(true);
            }
            next = later.next;
        }
        Some(false)
    }

    /// The eligible entries of a bucket, from the last to the first.
    pub(super) fn members(&self, bucket: u32, at: &Moment) -> impl Iterator<Item = &Slot> {
        let slot = |at: u32| (at != NONE).then(|| &self.slots[at as usize]);
        let last = slot(self.buckets[bucket as usize].last);
        std::iter::successors(last, move |this| slot(this.prev))
            .filter(move |slot| self.is_eligible(slot, at))
    }

    /// Sums up [`Index::members`].
    pub(super) fn sum_members(&self, bucket: u32, at: &Moment) -> Members {
        let mut members = Members::default();
        self.members(bucket, at).for_each(|slot| members.add(slot));
        members
    }

    /// Hangs a slot at the end of its bucket's chain.
    fn link(&mut self, at: usize) {
        let bucket = &mut self.buckets[self.slots[at].bucket as usize];
        let prev = std::mem::replace(&mut bucket.last, at as u32);
        self.slots[at].prev = prev;
        self.slots[at].next = NONE;
        if prev != NONE {
            self.slots[prev as usize].next = at as u32;
        }
    }

    /// Entries of an effect's bucket are needed as long as the bucket may be asked for again.
    fn is_gone_for_good(&self, at: usize, floor: &Moment) -> bool {
        let slot = &self.slots[at];
        match self.rule_of(slot) {
            Rule::KeepLatest => self.is_eligible(slot, floor) && self.is_followed(slot, floor),
            Rule::Drop => self.is_eligible(slot, floor),
            Rule::Effect => false,
        }
    }

    /// Dropped entries need not be told apart.
    fn key<'a>(&self, compactor: u32, primary_key: &'a str) -> &'a str {
        match self.rules[compactor as usize] {
            Rule::Drop => "",
            Rule::KeepLatest | Rule::Effect => primary_key,
        }
    }
}
