//! Applies frames of the commit log in memory, after the database was opened or a write to the log failed.
//!
//! Keeps: the result is the same, however much of it sled already has. Sled has the first part of a store; changes of
//! tables are repeated in their order.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::ends::{End, Hashing};
use super::key::Ordinal;
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
    /// The stores whose entries were left out because earlier ones are missing, and from where to where, if that is accepted.
    left_out: Option<BTreeMap<StoreId, (Sequence, Sequence)>>,
}

impl From<BadRecord> for OpenFailure {
    fn from(bad: BadRecord) -> Self {
        Self::Refused(bad.to_string())
    }
}

impl<'a> Redo<'a> {
    pub(super) fn new(shared: &'a Shared) -> Self {
        Self { shared, named: HashMap::new(), in_tree: None, left_out: None }
    }

    /// Like [`Redo::new`], but leaves out entries whose predecessors are missing.
    pub(super) fn lenient(shared: &'a Shared) -> Self {
        Self { left_out: Some(BTreeMap::new()), ..Self::new(shared) }
    }

    /// What was left out.
    pub(super) fn lost(&self) -> Vec<String> {
        let lost = |(store, (first, last)): (&StoreId, &(Sequence, Sequence))| {
            let count = last.since(*first) + 1;
            format!(
                "store {store:?} has lost its entries {first} to {last}, which are {count}: the first of them are missing, and the others come \
                 behind these"
            )
        };
        self.left_out.iter().flatten().map(lost).collect()
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

    /// The end of a store that was named. If an earlier frame named it, the tree has its name.
    fn end(&mut self, ordinal: Ordinal) -> Result<Arc<End>, OpenFailure> {
        let held = self.named.get(&ordinal).cloned().or_else(|| self.shared.ends.get(ordinal));
        if let Some(end) = held {
            return Ok(end);
        }
        let names = match &mut self.in_tree {
            Some(names) => names,
            unread => unread.insert(names_in_tree(self.shared)?),
        };
        let name = names.get(&ordinal).ok_or_else(|| {
            OpenFailure::Corrupt(format!("nothing says which store has number {ordinal}"))
        })?;
        let end = self.shared.ends.hold(ordinal, name, true);
        self.named.insert(ordinal, end.clone());
        Ok(end)
    }

    fn append(
        &mut self,
        ordinal: Ordinal,
        segment: Segment,
        known: (Hashing, u64),
    ) -> Result<(), OpenFailure> {
        let end = self.end(ordinal)?;
        let last = self.last(&end)?;
        if segment.last() <= last {
            // A checkpoint already included it.
            return Ok(());
        }
        if segment.first() != last.next()
            && let Some(left_out) = &mut self.left_out
        {
            let first = last.next();
            left_out.entry(end.name.clone()).or_insert((first, first)).1 = segment.last();
            return Ok(());
        }
        if segment.first() != last.next() {
            let (first, name) = (segment.first(), &end.name);
            let finding = format!("in store {name:?}, entry {first} follows entry {last}");
            return Err(OpenFailure::Corrupt(finding));
        }
        self.shared.ends.push(&end, [segment], known);
        Ok(())
    }

    fn trim(&mut self, ordinal: Ordinal, last: Sequence) -> Result<(), OpenFailure> {
        let end = self.end(ordinal)?;
        // The entries may have been left out.
        let last = last.min(self.last(&end)?);
        self.shared.ends.trim(&end, last);
        Ok(())
    }

    fn erase(&mut self, ordinal: Ordinal, sequences: Vec<Sequence>) -> Result<(), OpenFailure> {
        let end = self.end(ordinal)?;
        // The entries may have been left out.
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
