//! Where the entries of compactors are, and with which others they share a bucket.

use std::collections::HashMap;
use std::sync::Arc;

use super::positions::PositionSet;
use super::short_key::ShortKey;
use super::{Moment, Rule};
use crate::model::{EntryId, Sequence};

/// No slot: the end of a chain. Budgets keep slots (40 bytes each) far below this many.
pub(super) const NONE: u32 = u32::MAX;

const ID_MIN: EntryId = EntryId::from_bytes([0; EntryId::LEN]);
const ID_MAX: EntryId = EntryId::from_bytes([0xff; EntryId::LEN]);

/// Pruning fewer slots than this is never worthwhile.
const PRUNE_SLOTS_MIN: usize = if cfg!(test) { 4 } else { 4_096 };

/// Roughly what a map from a primary key to its bucket takes in addition to the key's own bytes.
const KEY_OVERHEAD_BYTES: usize = 48;

/// An entry as the index sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sighting<'a> {
    pub(crate) sequence: Sequence,
    /// The compactor of its event.
    pub(crate) compactor: u32,
    pub(crate) primary_key: &'a str,
    pub(crate) id: EntryId,
    /// Size of its record.
    pub(crate) bytes: usize,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) sequence: Sequence,
    pub(super) id: EntryId,
    pub(super) bytes: u32,
    pub(super) bucket: u32,
    /// The slot before it in its bucket's chain.
    pub(super) prev: u32,
    /// The slot after it in its bucket's chain.
    pub(super) next: u32,
}

/// All entries of one compactor and primary key, eligible or not.
#[derive(Debug)]
pub(super) struct Bucket {
    pub(super) compactor: u32,
    /// The end of its chain, which ascends by id with [`Rule::KeepLatest`], otherwise by sequence.
    pub(super) last: u32,
    pub(super) output: Option<Output>,
}

/// What a bucket became, kept for later readers.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    /// The members that it was made from.
    pub(crate) members: Members,
    /// Whether the members are sent unchanged, because the effect failed.
    pub(crate) raw: bool,
    /// The replacements, as records; `None` if they are not kept.
    pub(crate) records: Option<Arc<[u8]>>,
}

/// Which entries of a bucket are eligible at some moment: equal values mean the same entries.
///
/// For two moments with the same end, both heads are at or above it, so only the times distinguish the members; the
/// later time has all members of the earlier one, and if it has more, it has more bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Members {
    /// The greatest sequence.
    pub(crate) end: Sequence,
    /// Size of their records.
    pub(crate) bytes: u64,
}

impl Members {
    /// The single member of a bucket to which only one entry matters.
    pub(crate) fn only(end: Sequence) -> Self {
        Self { end, bytes: 0 }
    }

    pub(super) fn add(&mut self, slot: &Slot) {
        self.end = self.end.max(slot.sequence);
        self.bytes += u64::from(slot.bytes);
    }
}

/// The feed of one store, as far as compactors are concerned.
#[derive(Debug)]
pub(crate) struct Index {
    rules: Arc<[Rule]>,
    /// It can answer cursors from here on,
    base: Sequence,
    /// and before this.
    end: Sequence,
    /// The first entry it has not seen.
    next: Sequence,
    /// Of the entries before `base`, it has seen those that [`Rule::KeepLatest`] needs and whose ids are greater than
    /// this.
    seen_above: EntryId,
    /// The least id of the other entries that this rule needs.
    least: EntryId,
    /// Ascending by sequence.
    pub(super) slots: Vec<Slot>,
    /// Entries before `base`, until all missing ones have been seen.
    earlier: Vec<Slot>,
    /// Slots that are in no chain yet, because an earlier entry had a greater id.
    pub(super) late: Vec<u32>,
    pub(super) buckets: Vec<Bucket>,
    /// For each compactor, the bucket of each primary key.
    keys: Vec<HashMap<Box<[u8]>, u32>>,
    /// Entries that are not sent at any moment from the floor on.
    pub(super) gone: PositionSet,
    /// What was pruned is correct from this moment on.
    floor: Option<Moment>,
    prune_at: usize,
    key_bytes: usize,
    record_bytes: usize,
}

impl Index {
    /// An index for compactors with these rules, of entries from `base` on, which can answer cursors from there.
    ///
    /// With [`Rule::Effect`] it must also see the entries before `base`, and with [`Rule::KeepLatest`] those of them
    /// that are [missing](Index::missing).
    pub(crate) fn new(rules: Arc<[Rule]>, base: Sequence) -> Self {
        let keys = rules.iter().map(|_| HashMap::new()).collect();
        let is_whole = base <= Sequence::FIRST;
        Self {
            rules,
            base,
            end: Sequence::MAX,
            next: base,
            seen_above: if is_whole { ID_MIN } else { ID_MAX },
            least: ID_MAX,
            slots: Vec::new(),
            earlier: Vec::new(),
            late: Vec::new(),
            buckets: Vec::new(),
            keys,
            gone: PositionSet::new(base, Sequence::MAX),
            floor: None,
            prune_at: PRUNE_SLOTS_MIN,
            key_bytes: 0,
            record_bytes: 0,
        }
    }

    /// Restricts it to cursors before `end`; must be called before the first pruning. After that it may be shown only
    /// those entries that share a bucket with one before `end`.
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

    /// Whether it has seen all entries up to `head`, and knows the place of each among those of its primary key.
    pub(crate) fn has_seen(&self, head: Sequence) -> bool {
        self.next > head && self.late.is_empty() && self.missing().is_none()
    }

    /// The id above which entries from before its base may supersede one that it has seen: it has to
    /// [see](Index::see_earlier) them as well. `None` if it has seen them.
    pub(crate) fn missing(&self) -> Option<EntryId> {
        (self.least < self.seen_above).then_some(self.least)
    }

    /// The first sequence whose cursor it can answer.
    pub(crate) const fn base(&self) -> Sequence {
        self.base
    }

    /// Whether it can answer a reader with this moment and cursor, once it [has seen](Index::has_seen) its head.
    pub(crate) fn answers(&self, at: &Moment, cursor: Sequence) -> bool {
        let within = cursor >= self.base && cursor < self.end;
        within && self.floor.as_ref().is_none_or(|floor| at.not_before(floor))
    }

    /// Adds an entry of a compactor. Entries come in feed order; [`settle`](Self::settle) must follow the last of them.
    pub(crate) fn see(&mut self, entry: &Sighting<'_>) {
        if self.rules[entry.compactor as usize] == Rule::KeepLatest {
            self.least = self.least.min(entry.id);
        }
        let slot = self.slot(entry);
        self.slots.push(slot);
        self.link(self.slots.len() - 1);
        self.next = entry.sequence.next();
    }

    /// Adds an entry from before its base, in any order; it counts once [`Index::seen_earlier`] is called.
    pub(crate) fn see_earlier(&mut self, entry: &Sighting<'_>) {
        if self.rules[entry.compactor as usize] == Rule::KeepLatest {
            let slot = self.slot(entry);
            self.earlier.push(slot);
        }
    }

    /// Says that all entries before its base with ids above `above` have been seen.
    pub(crate) fn seen_earlier(&mut self, above: EntryId) {
        self.seen_above = above;
        let mut slots = std::mem::take(&mut self.earlier);
        slots.append(&mut self.slots);
        slots.sort_by_key(|slot| slot.sequence);
        // Some were seen the last time that something was missing.
        slots.dedup_by_key(|slot| slot.sequence);
        self.slots = slots;
        self.link_all();
    }

    fn slot(&mut self, entry: &Sighting<'_>) -> Slot {
        Slot {
            sequence: entry.sequence,
            id: entry.id,
            bytes: u32::try_from(entry.bytes).unwrap_or(u32::MAX),
            bucket: self.bucket_of(entry.compactor, entry.primary_key),
            prev: NONE,
            next: NONE,
        }
    }

    /// Says that all entries before `next` have been seen, including those without a compactor.
    pub(crate) fn seen_before(&mut self, next: Sequence) {
        self.next = self.next.max(next);
    }

    /// How many buckets there are; they are numbered from 0.
    pub(crate) const fn buckets(&self) -> usize {
        self.buckets.len()
    }

    /// The bucket of this primary key, if there is one.
    pub(crate) fn find_bucket(&self, compactor: u32, primary_key: &str) -> Option<u32> {
        let key = self.key(compactor, primary_key);
        self.keys[compactor as usize].get(key.as_bytes()).copied()
    }

    /// The bucket of this primary key, created if there is none.
    pub(crate) fn bucket_of(&mut self, compactor: u32, primary_key: &str) -> u32 {
        let key = self.key(compactor, primary_key);
        let keys = &mut self.keys[compactor as usize];
        if let Some(bucket) = keys.get(key.as_bytes()) {
            return *bucket;
        }
        let bucket = self.buckets.len() as u32;
        keys.insert(key.as_bytes().into(), bucket);
        self.key_bytes += key.as_bytes().len() + KEY_OVERHEAD_BYTES;
        self.buckets.push(Bucket { compactor, last: NONE, output: None });
        bucket
    }

    /// Whether enough entries were added since the last time that pruning is worth a walk over all slots.
    pub(crate) const fn wants_pruning(&self) -> bool {
        self.slots.len() >= self.prune_at
    }

    /// Discards what no reader from `floor` on needs; earlier ones are no longer answered. What is discarded does not
    /// come back: the floor only moves up.
    pub(crate) fn prune(&mut self, floor: &Moment) {
        let floor = &self.floor.as_ref().map_or_else(|| floor.clone(), |it| it.later_of(floor));
        self.settle();
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
        self.link_all();
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

    /// Discards the replacements that it keeps, but not whether there are any.
    pub(crate) fn drop_records(&mut self) {
        for output in self.buckets.iter_mut().filter_map(|bucket| bucket.output.as_mut()) {
            output.records = None;
        }
        self.record_bytes = 0;
    }

    /// Roughly how much memory it takes.
    pub(crate) fn bytes(&self) -> usize {
        (self.slots.capacity() + self.earlier.capacity()) * size_of::<Slot>()
            + self.late.capacity() * size_of::<u32>()
            + self.buckets.capacity() * size_of::<Bucket>()
            + self.gone.bytes()
            + self.key_bytes
            + self.record_bytes
    }

    /// How much of that is taken by replacements.
    pub(crate) const fn record_bytes(&self) -> usize {
        self.record_bytes
    }

    /// The first position after what it can tell a reader with this moment.
    pub(super) fn end(&self, at: &Moment) -> Sequence {
        at.head().next().min(self.end)
    }

    pub(super) fn rule_of(&self, slot: &Slot) -> Rule {
        self.rules[self.buckets[slot.bucket as usize].compactor as usize]
    }

    pub(super) fn is_eligible(&self, slot: &Slot, at: &Moment) -> bool {
        let compactor = self.buckets[slot.bucket as usize].compactor;
        at.eligible(compactor, slot.id.created_at_millis(), slot.sequence)
    }

    /// Entries in an effect's bucket are needed for as long as the bucket may be requested again.
    fn is_gone_for_good(&self, at: usize, floor: &Moment) -> bool {
        let slot = &self.slots[at];
        match self.rule_of(slot) {
            Rule::KeepLatest => self.is_eligible(slot, floor) && self.is_superseded(slot, floor),
            Rule::Drop => self.is_eligible(slot, floor),
            Rule::Effect => false,
        }
    }

    /// Dropped entries need not be distinguished.
    fn key<'a>(&self, compactor: u32, primary_key: &'a str) -> ShortKey<'a> {
        ShortKey::new(match self.rules[compactor as usize] {
            Rule::Drop => "",
            Rule::KeepLatest | Rule::Effect => primary_key,
        })
    }
}
