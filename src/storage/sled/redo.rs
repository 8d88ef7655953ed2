//! Applies frames of the commit log in memory, after the database was opened or a write to the log failed.
//!
//! Keeps: the result is the same, however much of it sled already has. Sled has the first part of a store; changes of
//! tables are repeated in their order. If a loss is accepted, entries keep their sequences, and those that are missing
//! before them become a gap.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::ends::{End, Hashing};
use super::key::Ordinal;
use super::missing::Missing;
use super::options::OpenFailure;
use super::record::{BadRecord, Record, records};
use super::segments::Reader;
use super::shared::Shared;
use super::tree;
use crate::model::{Segment, Sequence, StoreId};
use crate::storage::StorageError;
use crate::storage::commit_log::FoundFrame;
use crate::storage::witness::FrameSalt;

/// Applies frames, in order.
pub(super) struct Redo<'a> {
    shared: &'a Shared,
    /// The stores that were named.
    named: HashMap<Ordinal, Arc<End>>,
    /// The names of all stores in the tree, read when one of them is needed.
    in_tree: Option<HashMap<Ordinal, StoreId>>,
    /// What is missing, if that is accepted.
    lost: Option<Lost>,
}

/// What the frames do not have, though later ones show that it was there.
#[derive(Default)]
struct Lost {
    /// The sequences of each store that became gaps.
    entries: BTreeMap<StoreId, Missing>,
    /// How many entries were left out of stores whose names are missing.
    nameless: BTreeMap<Ordinal, u64>,
}

impl From<BadRecord> for OpenFailure {
    fn from(bad: BadRecord) -> Self {
        Self::Refused(bad.to_string())
    }
}

impl<'a> Redo<'a> {
    pub(super) fn new(shared: &'a Shared) -> Self {
        Self { shared, named: HashMap::new(), in_tree: None, lost: None }
    }

    /// Like [`Redo::new`], but accepts that frames are missing. Entries keep their sequences.
    pub(super) fn lenient(shared: &'a Shared) -> Self {
        Self { lost: Some(Lost::default()), ..Self::new(shared) }
    }

    /// What is missing.
    pub(super) fn lost(&self) -> Vec<String> {
        let lost =
            |(store, missing): (&StoreId, &Missing)| format!("store {store:?} has lost {missing}");
        let nameless = |(ordinal, count): (&Ordinal, &u64)| {
            format!("{count} entries are lost of store number {ordinal}: its name is missing")
        };
        let all = self.lost.iter();
        all.flat_map(|all| all.entries.iter().map(lost).chain(all.nameless.iter().map(nameless)))
            .collect()
    }

    /// The highest ordinal that was named.
    pub(super) fn ordinal_max(&self) -> Option<Ordinal> {
        self.named.keys().max().copied()
    }

    /// Shows what a frame says.
    pub(super) fn frame(
        &mut self,
        FoundFrame { position, mut time_ms, body }: FoundFrame<'_>,
    ) -> Result<(), OpenFailure> {
        let (mut salt, mut known, mut digested) = (FrameSalt::default(), None, None);
        for record in records(body) {
            match record? {
                Record::Salt(of_frame) => salt = of_frame,
                Record::Store { ordinal, name } => self.name(ordinal, &name)?,
                Record::Hash { ordinal, hash } => known = Some((ordinal, hash)),
                Record::Digests { ordinal, digests } => digested = Some((ordinal, digests.into())),
                Record::Entries { ordinal, segment } => {
                    let known = known.take_if(|(of, _)| *of == ordinal);
                    let salted = Hashing::Salted(salt);
                    let of_digests = digested.take_if(|(of, _)| *of == ordinal);
                    let hashing = match (known, of_digests) {
                        (Some((_, hash)), _) => Hashing::Known(hash),
                        (None, Some((_, digests))) => Hashing::Digests(digests),
                        (None, None) => salted,
                    };
                    self.append(ordinal, segment, (hashing, time_ms))?;
                }
                Record::Trim { ordinal, last } => self.trim(ordinal, last)?,
                Record::Erase { ordinal, sequences } => self.erase(ordinal, sequences)?,
                Record::Time(committed) => time_ms = committed,
                Record::Change { table, key, value } => {
                    self.shared.tables.apply_one(table, key, value, position.0);
                }
            }
        }
        Ok(())
    }

    fn name(&mut self, ordinal: Ordinal, name: &StoreId) -> Result<(), OpenFailure> {
        let trees = self.shared.access.open_trees()?;
        let in_tree = tree::store_record(trees.log(), name)?;
        if in_tree.as_ref().is_some_and(|known| known.ordinal != ordinal) {
            let finding = format!("store {name:?} has two numbers, {ordinal} is one of them");
            return Err(OpenFailure::Corrupt(finding));
        }
        let end = self.shared.ends.hold(ordinal, name, in_tree.is_some());
        if end.name != *name {
            let finding = format!("stores {name:?} and {:?} have number {ordinal}", end.name);
            return Err(OpenFailure::Corrupt(finding));
        }
        self.named.insert(ordinal, end);
        Ok(())
    }

    /// The end of a store that was named. If an earlier frame named it, the tree has its name. `None` if the name is
    /// missing, and that is accepted.
    fn end(&mut self, ordinal: Ordinal) -> Result<Option<Arc<End>>, OpenFailure> {
        let held = self.named.get(&ordinal).cloned().or_else(|| self.shared.ends.get(ordinal));
        if let Some(end) = held {
            return Ok(Some(end));
        }
        let names = match &mut self.in_tree {
            Some(names) => names,
            unread => unread.insert(names_in_tree(self.shared)?),
        };
        let Some(name) = names.get(&ordinal) else {
            let finding = format!("nothing says which store has number {ordinal}");
            return self.lost.as_ref().map(|_| None).ok_or(OpenFailure::Corrupt(finding));
        };
        let end = self.shared.ends.hold(ordinal, name, true);
        self.named.insert(ordinal, end.clone());
        Ok(Some(end))
    }

    fn append(
        &mut self,
        ordinal: Ordinal,
        segment: Segment,
        known: (Hashing, u64),
    ) -> Result<(), OpenFailure> {
        let Some(end) = self.end(ordinal)? else {
            let lost = self.lost.iter_mut();
            lost.for_each(|lost| *lost.nameless.entry(ordinal).or_default() += segment.span());
            return Ok(());
        };
        let last = self.last(&end)?;
        if segment.last() <= last {
            // A checkpoint already included it.
            return Ok(());
        }
        if segment.first() != last.next() {
            self.gap(&end, (last, segment.first()), known.1)?;
        }
        self.shared.ends.push(&end, [segment], known);
        Ok(())
    }

    /// Entries between these two are missing. If that is accepted, their sequences become a gap.
    fn gap(
        &mut self,
        end: &Arc<End>,
        (last, next): (Sequence, Sequence),
        time_ms: u64,
    ) -> Result<(), OpenFailure> {
        let name = &end.name;
        let finding = format!("in store {name:?}, entry {next} follows entry {last}");
        let Some(lost) = self.lost.as_mut().filter(|_| next > last) else {
            return Err(OpenFailure::Corrupt(finding));
        };
        let (first, last) = (last.next(), next.prev());
        let missing = Missing::new(first, last);
        let all = lost.entries.entry(name.clone());
        all.and_modify(|before| before.add(missing)).or_insert(missing);
        // A gap contains nothing to hash.
        let hashing = Hashing::Salted(FrameSalt::default());
        self.shared.ends.push(end, Segment::gaps(first, last), (hashing, time_ms));
        Ok(())
    }

    fn trim(&mut self, ordinal: Ordinal, last: Sequence) -> Result<(), OpenFailure> {
        let Some(end) = self.end(ordinal)? else { return Ok(()) };
        // The last entries may be missing.
        let last = last.min(self.last(&end)?);
        self.shared.ends.trim(&end, last);
        Ok(())
    }

    fn erase(&mut self, ordinal: Ordinal, sequences: Vec<Sequence>) -> Result<(), OpenFailure> {
        let Some(end) = self.end(ordinal)? else { return Ok(()) };
        // The last entries may be missing.
        let last = self.last(&end)?;
        let sequences: Vec<Sequence> = sequences.into_iter().filter(|at| *at <= last).collect();
        self.shared.ends.erase(&end, &sequences);
        Ok(())
    }

    fn last(&self, end: &End) -> Result<Sequence, StorageError> {
        if let Some(last) = end.last() {
            return Ok(last);
        }
        let mut layout = end.layout.lock();
        let trees = self.shared.access.open_trees()?;
        let reader = Reader { tree: trees.log(), ordinal: end.ordinal };
        layout.complete(&reader, Some(&end.name), trees.generation)?;
        Ok(layout.last)
    }
}

fn names_in_tree(shared: &Shared) -> Result<HashMap<Ordinal, StoreId>, OpenFailure> {
    let trees = shared.access.open_trees()?;
    let stores = tree::store_records(&trees, None);
    stores
        .map(|store| store.map(|(name, record)| (record.ordinal, name)).map_err(Into::into))
        .collect()
}
