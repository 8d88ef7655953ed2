//! What was erased according to the frames of a log, and what was removed from tables that keep content of entries: dead letters and quarantine.
//!
//! Keeps: nothing that still exists is reported as gone. Leaves out: removing it (`frame`).

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;

use twox_hash::XxHash3_128;

use crate::model::{EntryId, Segment, Sequence, StoreId};
use crate::storage::commit_log::Position;
use crate::storage::ledger::{Erased, Erasure, Reader};
use crate::storage::sled::key::Ordinal;
use crate::storage::sled::keyspace::Keyspace;
use crate::storage::sled::record::{BadRecord, Record, records};

/// The key prefix of dead letters in the journal.
const LETTER: u8 = 6;
/// The key prefixes of an entry in quarantine: its description, and a part of its content.
const QUARANTINED: [u8; 2] = [1, 2];

/// What is gone. Takes 16 bytes of memory for each run of erased entries, and 24 for each key.
#[derive(Clone, Debug, Default)]
pub(in crate::storage::sled) struct Gone {
    /// The first and last entries of runs of erased entries, ascending once [`Gone::sort`] was called.
    entries: HashMap<Ordinal, Vec<(Sequence, Sequence)>>,
    /// The last frame that changed a key, by the hash of the table and the key.
    keys: HashMap<u128, Position>,
    /// The sequence up to which each store is trimmed.
    trims: HashMap<Ordinal, Sequence>,
    /// Stores that were erased as a whole: also what was trimmed before is gone.
    wholes: Vec<Whole>,
    /// Erased entries by their ids, if the frames do not say everything.
    ids: HashMap<StoreId, HashSet<EntryId>>,
    /// The stores with such ids.
    names: HashMap<Ordinal, StoreId>,
}

/// A store that was erased as a whole.
#[derive(Clone, Debug)]
struct Whole {
    store: StoreId,
    /// Its last erased sequence.
    last: Sequence,
    /// One of its entries: a store of another server may have the same name.
    known: (Sequence, EntryId),
    /// What the files call it.
    ordinal: Option<Ordinal>,
    /// Whether they have that entry.
    is_it: bool,
}

impl Gone {
    /// Begins with what the ledger of a directory says about stores that were erased as a whole. If an archive is not written to any more,
    /// its frames do not say what was erased since: `with_ids` takes that from the ledger, too. It takes 16 bytes of memory for each entry.
    pub(super) fn of_ledger(mut ledger: Reader, with_ids: bool) -> io::Result<Self> {
        let mut gone = Self::default();
        while let Some(Erasure { store, what, .. }) = ledger.next()? {
            match what {
                Erased::Store { last, first } => {
                    let whole = Whole { store, last, known: first, ordinal: None, is_it: false };
                    gone.wholes.push(whole);
                }
                Erased::Entries(ids) if with_ids => gone.ids.entry(store).or_default().extend(ids),
                Erased::Entries(_) => {}
            }
        }
        Ok(gone)
    }

    /// Adds what a frame contains. Call it in the order of frames, and [`Gone::sort`] afterwards.
    pub(in crate::storage::sled) fn note(
        &mut self,
        position: Position,
        body: &[u8],
    ) -> Result<(), BadRecord> {
        for record in records(body) {
            match record? {
                Record::Erase { ordinal, sequences } => {
                    let runs = self.entries.entry(ordinal).or_default();
                    runs.extend(sequences.into_iter().map(|at| (at, at)));
                }
                Record::Change { table, key, value: None } if has_content(table, key) => {
                    self.keys.insert(hash(table, key), position);
                }
                Record::Trim { ordinal, last } => {
                    let trimmed = self.trims.entry(ordinal).or_insert(last);
                    *trimmed = last.max(*trimmed);
                }
                Record::Store { ordinal, name } => {
                    for whole in self.wholes.iter_mut().filter(|whole| whole.store == name) {
                        whole.ordinal = Some(ordinal);
                    }
                    if self.ids.contains_key(&name) {
                        self.names.insert(ordinal, name);
                    }
                }
                Record::Entries { ordinal, segment } => {
                    let of_store = |whole: &&mut Whole| whole.ordinal == Some(ordinal);
                    for whole in self.wholes.iter_mut().filter(of_store) {
                        let is_here = (segment.first()..=segment.last()).contains(&whole.known.0);
                        whole.is_it |= is_here && segment.ids().any(|it| it == whole.known);
                    }
                    if let Some(ids) = self.names.get(&ordinal).and_then(|name| self.ids.get(name))
                    {
                        let erased = segment.ids().filter(|(_, id)| ids.contains(id));
                        let erased: Vec<_> = erased.map(|(at, _)| (at, at)).collect();
                        self.entries.entry(ordinal).or_default().extend(erased);
                    }
                }
                Record::Change { .. }
                | Record::Salt(_)
                | Record::Hash { .. }
                | Record::Time(_)
                | Record::Digests { .. } => {}
            }
        }
        Ok(())
    }

    /// Adds erased entries of a store.
    #[cfg(test)]
    pub(in crate::storage::sled) fn erase(&mut self, ordinal: Ordinal, at: Sequence) {
        self.entries.entry(ordinal).or_default().push((at, at));
    }

    /// Call this when everything was noted.
    pub(in crate::storage::sled) fn sort(&mut self) {
        for whole in self.wholes.iter().filter(|whole| whole.is_it) {
            if let Some(ordinal) = whole.ordinal {
                self.entries.entry(ordinal).or_default().push((Sequence::FIRST, whole.last));
            }
        }
        for runs in self.entries.values_mut() {
            runs.sort_unstable();
            let mut joined: Vec<(Sequence, Sequence)> = Vec::new();
            for (first, last) in runs.drain(..) {
                match joined.last_mut() {
                    Some(before) if first <= before.1.next() => before.1 = before.1.max(last),
                    _ => joined.push((first, last)),
                }
            }
            *runs = joined;
        }
    }

    /// The number of erased entries. Of stores that were erased as a whole, all sequences count.
    pub(in crate::storage::sled) fn entries(&self) -> u64 {
        let runs = self.entries.values().flatten();
        runs.map(|(first, last)| last.since(*first) + 1).sum()
    }

    /// The erased entries of `segment`.
    pub(super) fn of(&self, ordinal: Ordinal, segment: &Segment) -> BTreeSet<Sequence> {
        let (from, to) = (segment.first(), segment.last());
        let Some(runs) = self.entries.get(&ordinal).filter(|_| !segment.is_gap()) else {
            return BTreeSet::new();
        };
        let start = runs.partition_point(|(_, last)| *last < from);
        let here = runs[start..].iter().take_while(|(first, _)| *first <= to);
        // Not more than the segment has.
        here.flat_map(|(first, last)| {
            let (first, last) = ((*first).max(from), (*last).min(to));
            (0..=last.since(first)).map(move |n| first.plus(n))
        })
        .collect()
    }

    /// Adds the ids of erased entries in a frame: those that were noted, and those without content that are not trimmed.
    pub(super) fn ids_in(&self, body: &[u8], ids: &mut HashSet<EntryId>) -> Result<(), BadRecord> {
        for record in records(body) {
            let Record::Entries { ordinal, segment } = record? else { continue };
            let erased = self.of(ordinal, &segment);
            ids.extend(segment.ids().filter(|(at, _)| erased.contains(at)).map(|(_, id)| id));
            if segment.may_be_bare() {
                let trimmed = self.trims.get(&ordinal).copied().unwrap_or(Sequence::ZERO);
                let bare = segment.iter().filter(|(at, it)| *at > trimmed && it.event.is_empty());
                ids.extend(bare.map(|(_, entry)| entry.id));
            }
        }
        Ok(())
    }

    /// Whether the frame at `position` set a value that has content of an entry, and a later frame removed or replaced it.
    pub(super) fn has_value(&self, position: Position, table: Keyspace, key: &[u8]) -> bool {
        has_content(table, key)
            && self.keys.get(&hash(table, key)).is_some_and(|removed| *removed > position)
    }
}

/// Whether the value of such a key is made from the content of an entry.
fn has_content(table: Keyspace, key: &[u8]) -> bool {
    let kind = key.first();
    match table {
        Keyspace::Journal => kind == Some(&LETTER),
        Keyspace::Quarantine => kind.is_some_and(|kind| QUARANTINED.contains(kind)),
        _ => false,
    }
}

fn hash(table: Keyspace, key: &[u8]) -> u128 {
    XxHash3_128::oneshot(key).wrapping_add(u128::from(table.number()))
}
