//! The index of one store's ids, as seen by its only writer: seals ids, merges runs, and keeps track of both.
//!
//! Keeps: the root says how many sections there are and the sum of their checksums, so that a missing one is noticed;
//! what a step frees is emptied in the next step, when readers have been told. Leaves out: ids that are not sealed
//! (`tail`), and who reads (`lookup`).
//!
//! The order is: [`Index::step`], its changes become durable, [`Staged::settle`], the next step. After a failure in
//! between the index is loaded again.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::cache::{Cache, Cached, Key};
use super::cut::pieces;
use super::hash::Seed;
use super::head::Head;
use super::lookup::Known;
use super::merge::{Merge, Output};
use super::part::Part;
use super::plan::{MERGED_PER_SEALED, Sized, plan};
use super::record::{Root, Section};
use super::runs::Runs;
use super::section::{Built, build, cut};
use super::{Changes, Slots};
use crate::model::{EntryId, Sequence};
use crate::storage::StorageError;
use crate::storage::sled::key::{IdsKey, Ordinal};

/// How many ids may be left to merge. At six for each that was sealed, these are five or six runs more.
const OWED_MAX: u64 = 1 << 20;

/// The index of one store.
#[derive(Debug)]
pub(crate) struct Index {
    pub(super) root: Root,
    pub(super) runs: Runs,
    merges: Vec<Merge>,
    /// How many ids still have to be merged because of those that were sealed.
    owed: u64,
    /// Whether a merge failed. Then there are no more merges until the index is loaded again.
    failed: bool,
    /// Records of a damaged index that this one replaces.
    stale: Vec<Vec<u8>>,
    /// Whether what has to be emptied is known only from the disk.
    freed_is_read: bool,
}

/// Changes to an index, all in one batch. Once begun, it must be ended with [`Step::finish`].
#[must_use]
pub(crate) struct Step<'a> {
    index: &'a mut Index,
    changes: &'a mut dyn Changes,
    staged: Staged,
}

/// What readers have to be told once a step is durable.
#[must_use]
#[derive(Debug)]
pub(crate) struct Staged {
    /// The last entry whose id is in a section.
    sealed: Sequence,
    runs: Arc<Runs>,
    /// The heads of new sections, by their numbers.
    heads: Vec<(u64, Head)>,
    gone: Vec<Section>,
}

impl Index {
    /// The index of a store without sealed ids.
    pub(crate) fn new(ordinal: Ordinal) -> Self {
        let seed = Seed::random();
        let freed = Vec::new();
        let root = Root { seed, sealed: Sequence::ZERO, next: 1, sections: 0, sum: 0, freed };
        Self {
            root,
            runs: Runs::new(ordinal, seed),
            merges: Vec::new(),
            owed: 0,
            failed: false,
            stale: Vec::new(),
            freed_is_read: false,
        }
    }

    /// From the records in [`IdsKey::of_store`]. Corrupt if anything is missing, or there is more than there should be.
    pub(crate) fn load<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        ordinal: Ordinal,
        records: impl IntoIterator<Item = Result<(K, V), StorageError>>,
    ) -> Result<Self, StorageError> {
        let mut index = Self::new(ordinal);
        let (mut root, mut sections, mut sum) = (None, 0, 0_u64);
        for record in records {
            let (key, value) = record?;
            let key = IdsKey::parse(key.as_ref())
                .filter(|key| key.ordinal == ordinal)
                .ok_or_else(|| StorageError::corrupt("malformed key of a record of ids"))?;
            if key.number == 0 {
                let read = Root::decode(key, value.as_ref()).map_err(StorageError::corrupt)?;
                index.runs.seed = read.seed;
                root = Some(read);
                continue;
            }
            let (section, run, crc) =
                Section::decode(key, value.as_ref()).map_err(StorageError::corrupt)?;
            if !index.runs.add(run, section) {
                return Err(StorageError::corrupt("sections of a run of ids overlap"));
            }
            sections += 1;
            sum = sum.wrapping_add(u64::from(crc));
        }
        let known = root.as_ref().map_or((0, 0), |root: &Root| (root.sections, root.sum));
        if known != (sections, sum) {
            return Err(StorageError::corrupt(format!(
                "of {} sections of ids there are {sections}",
                known.0
            )));
        }
        index.root = root.unwrap_or(index.root);
        index.freed_is_read = true;
        index.plan();
        Ok(index)
    }

    /// A new index that replaces one that cannot be loaded, which has records with these keys. None of its slots is
    /// emptied: damaged records do not reliably say whose they are.
    pub(crate) fn in_place_of<K: AsRef<[u8]>>(
        ordinal: Ordinal,
        keys: impl IntoIterator<Item = Result<K, StorageError>>,
    ) -> Result<Self, StorageError> {
        let stale = keys.into_iter().map(|key| key.map(|key| key.as_ref().to_vec()));
        Ok(Self { stale: stale.collect::<Result<_, _>>()?, ..Self::new(ordinal) })
    }

    /// Whether the database has nothing of it, and nothing has to be removed there: then it need not be kept.
    pub(super) fn is_blank(&self) -> bool {
        let Root { sealed, sections, freed, .. } = &self.root;
        *sealed == Sequence::ZERO && *sections == 0 && freed.is_empty() && self.stale.is_empty()
    }

    /// The last entry whose id is in a section.
    pub(crate) const fn sealed(&self) -> Sequence {
        self.root.sealed
    }

    /// This index, for a store with entries up to `last`; corrupt if it has ids of more.
    pub(crate) fn checked(self, last: Sequence) -> Result<Self, StorageError> {
        if self.sealed() > last {
            let sealed = self.sealed();
            let finding =
                format!("ids are indexed up to entry {sealed}, and the last one is {last}");
            return Err(StorageError::corrupt(finding));
        }
        Ok(self)
    }

    /// Checks, once, whether what the next step empties is what it should be: an index that came back in an older
    /// version may name slots that others have by now. What cannot be read stays.
    pub(super) fn check_freed(&mut self, slots: &dyn Slots) {
        let ordinal = self.runs.ordinal;
        if std::mem::take(&mut self.freed_is_read) {
            self.root.freed.retain(|freed| {
                let is_whole = freed.is_whole(ordinal, slots);
                if !is_whole {
                    log::warn!("slot {} and those behind it are not emptied: they are not those of section {} of the ids of \
                         store number {ordinal}", freed.first, freed.section);
                }
                is_whole
            });
        }
    }

    /// What readers know after it was loaded: the ids of entries from `next` on have to be pushed.
    pub(super) fn known(&self, next: Sequence) -> Known {
        Known::new(self.root.sealed, self.runs(), next)
    }

    /// The slots of all sections.
    #[cfg(test)]
    pub(crate) fn slots(&self) -> Vec<u64> {
        let sections = self.runs.iter().flat_map(|run| &run.sections).map(Section::slots);
        sections.flat_map(|slots| slots.first..slots.first + slots.count()).collect()
    }

    /// What lookups need.
    pub(super) fn runs(&self) -> Arc<Runs> {
        Arc::new(self.runs.clone())
    }

    /// Whether merging is due, because of the ids that were sealed: [`Step::merge`] has to be called until it is not.
    pub(crate) fn owes(&self) -> bool {
        self.owed > 0
    }

    /// Whether so much is due that there would soon be too many runs.
    pub(crate) const fn owes_much(&self) -> bool {
        self.owed > OWED_MAX
    }

    /// Begins a step, whose changes are made with `changes`.
    pub(crate) fn step<'a>(&'a mut self, changes: &'a mut dyn Changes) -> Step<'a> {
        for key in self.stale.drain(..) {
            changes.remove(&key);
        }
        for slots in self.root.freed.drain(..) {
            changes.free(slots.first, slots.count());
        }
        let sealed = self.root.sealed;
        let runs = Arc::new(Runs::new(self.runs.ordinal, self.runs.seed));
        let staged = Staged { sealed, runs, heads: Vec::new(), gone: Vec::new() };
        Step { index: self, changes, staged }
    }

    const fn key(&self, number: u64) -> IdsKey {
        IdsKey { ordinal: self.runs.ordinal, number }
    }

    fn is_idle(&self, run: u64) -> bool {
        !self.merges.iter().any(|merge| merge.has(run))
    }

    /// A number for a run that is neither used nor planned.
    fn new_run(&self) -> u64 {
        let planned = self.merges.iter().map(|merge| merge.output + 1);
        planned.max().unwrap_or(0).max(self.runs.unused())
    }

    /// Begins the merges that are due.
    fn plan(&mut self) {
        while !self.failed {
            let idle = self.runs.iter().filter(|run| self.is_idle(run.number));
            let idle = idle.map(|run| Sized { run: run.number, ids: run.ids }).collect();
            let Some(inputs) = plan(idle) else { break };
            self.merges.push(Merge::new(&self.runs, inputs, self.new_run()));
        }
        if self.merges.is_empty() {
            self.owed = 0;
        }
    }
}

impl Step<'_> {
    /// Seals `ids`, of the entries after the last sealed one. At most [`SEAL_IDS_MAX`](super::SEAL_IDS_MAX) should be
    /// sealed in one batch.
    pub(crate) fn seal(&mut self, ids: &[EntryId]) {
        let index = &mut *self.index;
        let mut sequence = index.root.sealed;
        let mut entries = Vec::with_capacity(ids.len());
        for id in ids {
            sequence = sequence.next();
            entries.push((*id, sequence));
        }
        index.root.sealed = sequence;
        // Mostly ascending runs, which this joins.
        entries.sort();
        let (seed, ordinal) = (index.root.seed, index.runs.ordinal);
        // The pieces do not overlap, so one new run is enough for all.
        let new_run = index.new_run();
        for section in pieces(&entries).into_iter().flat_map(cut) {
            let Some(built) = build(ordinal, self.index.root.next, seed, section) else { continue };
            let room = self.index.runs.room_for(&built.section, |run| self.index.is_idle(run));
            self.put(room.unwrap_or(new_run), built);
        }
        self.index.owed += ids.len() as u64 * MERGED_PER_SEALED;
    }

    /// Merges some of what is due, at most `ids_max` ids or a section more. If that fails, nothing was merged, and
    /// nothing will be before the index is loaded again.
    pub(crate) fn merge(&mut self, slots: &dyn Slots, ids_max: usize) -> Result<(), StorageError> {
        let index = &mut *self.index;
        let Some(at) = (0..index.merges.len()).min_by_key(|at| index.merges[*at].left) else {
            return Ok(());
        };
        let mut merge = index.merges.swap_remove(at);
        let output = merge.step(index.owed.min(ids_max as u64), index.root.next, slots);
        let output = output.inspect_err(|_| {
            index.failed = true;
            index.merges.clear();
        })?;
        index.owed = index.owed.saturating_sub(output.cost);
        self.write_merged(merge.output, output);
        if !merge.is_done() {
            self.index.merges.push(merge);
        }
        Ok(())
    }

    /// Ends the changes.
    pub(crate) fn finish(self) -> Staged {
        let Self { index, changes, mut staged } = self;
        // Not earlier: what this step writes cannot be read within it.
        index.plan();
        changes.insert(&index.key(0).to_bytes(), index.root.encode(index.key(0)));
        staged.sealed = index.root.sealed;
        staged.runs = index.runs();
        staged
    }

    fn write_merged(&mut self, run: u64, output: Output) {
        for (from, section) in output.moved {
            self.unlist(from, &section);
            self.list(run, section);
        }
        for (from, section) in output.gone {
            self.unlist(from, &section);
            self.changes.remove(&self.index.key(section.number).to_bytes());
            self.index.root.freed.push(section.slots());
            self.staged.gone.push(section);
        }
        output.built.into_iter().for_each(|built| self.put(run, built));
    }

    /// Puts a new section into slots.
    fn put(&mut self, run: u64, Built { mut section, values, sieve }: Built) {
        let part = Part { ordinal: self.index.runs.ordinal, section: section.number, number: 0 };
        let head = values.first().map(|head| Head::decode(part, &Bytes::copy_from_slice(head)));
        section.slot = self.changes.put(values);
        let head = head.and_then(Result::ok).map(|head| (section.number, head.with(sieve)));
        self.staged.heads.extend(head);
        self.index.root.next = section.number + 1;
        self.list(run, section);
    }

    fn list(&mut self, run: u64, section: Section) {
        let index = &mut *self.index;
        let added = index.runs.add(run, section);
        debug_assert!(added, "what a run gets overlaps nothing in it");
        let key = index.key(section.number);
        let (record, crc) = section.encode(key, run);
        index.root.sections += 1;
        index.root.sum = index.root.sum.wrapping_add(u64::from(crc));
        self.changes.insert(&key.to_bytes(), record);
    }

    fn unlist(&mut self, run: u64, section: &Section) {
        let index = &mut *self.index;
        index.runs.remove(run, section);
        let (_, crc) = section.encode(index.key(section.number), run);
        index.root.sections -= 1;
        index.root.sum = index.root.sum.wrapping_sub(u64::from(crc));
    }
}

impl Staged {
    /// Tells readers, once the step is durable.
    pub(super) fn settle(self, known: &Mutex<Known>, cache: &Cache) {
        let seed = self.runs.seed.tag();
        for (section, head) in self.heads {
            cache.insert(Key { seed, section, part: 0 }, Cached::Head(Arc::new(head)));
        }
        known.lock().sealed(self.sealed, self.runs);
        for gone in self.gone {
            (0..=gone.pages)
                .for_each(|part| cache.remove(Key { seed, section: gone.number, part }));
        }
    }
}
