//! The tables that other modules keep in sled, with what is in the commit log and not in sled yet.
//!
//! Keeps: whatever is shown is durable; a change is shown before its commit is answered. A change leaves memory only
//! after the tree that has it was synced: looking here first and then in the tree finds it.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use parking_lot::RwLock;
use sled::IVec;

use super::budget::Budget;
use super::keyspace::Keyspace;
use super::ops::Ops;
use super::tree::Trees;
use crate::storage::StorageError;

/// What a change takes in memory in addition to key and value, roughly, in bytes.
const CHANGE_BYTES: u64 = 96;
/// How many changes a range takes at once.
const TAKEN_AT_ONCE: usize = 256;

/// What is not in sled yet.
#[derive(Debug)]
pub(super) struct Tables {
    /// By [`Keyspace::index`].
    changes: [RwLock<Changes>; Keyspace::ALL.len()],
    budget: Arc<Budget>,
}

type Changes = BTreeMap<IVec, Change>;

#[derive(Debug)]
struct Change {
    /// The position of the frame that has it.
    position: u64,
    /// `None` if the key was removed.
    value: Option<IVec>,
}

/// Changes to one table for a checkpoint, and the frames that they come from.
#[derive(Debug)]
pub(super) struct TableChanges {
    pub(super) table: Keyspace,
    pub(super) ops: Ops,
    keys: Vec<(IVec, u64)>,
    pub(super) bytes: usize,
}

fn bytes_of(key: &[u8], value: Option<&IVec>) -> u64 {
    CHANGE_BYTES + (key.len() + value.map_or(0, |value| value.len())) as u64
}

impl Tables {
    /// Without changes. What they hold is counted in `budget`.
    pub(super) fn new(budget: Arc<Budget>) -> Self {
        Self { changes: std::array::from_fn(|_| RwLock::default()), budget }
    }

    /// Shows `ops`, which are durable in the frame at `position`.
    pub(super) fn apply(&self, table: Keyspace, ops: Ops, position: u64) {
        let mut changes = self.changes[table.index()].write();
        for (key, value) in ops {
            self.set(&mut changes, key, value, position);
        }
    }

    /// Like [`Tables::apply`], for one key.
    pub(super) fn apply_one(
        &self,
        table: Keyspace,
        key: &[u8],
        value: Option<&[u8]>,
        position: u64,
    ) {
        let mut changes = self.changes[table.index()].write();
        self.set(&mut changes, key.into(), value.map(IVec::from), position);
    }

    fn set(&self, changes: &mut Changes, key: IVec, value: Option<IVec>, position: u64) {
        let bytes = bytes_of(&key, value.as_ref());
        let key_len = key.len();
        if let Some(before) = changes.insert(key, Change { position, value }) {
            let value_len = before.value.map_or(0, |value| value.len());
            self.budget.free(CHANGE_BYTES + (key_len + value_len) as u64);
        }
        self.budget.add(bytes);
    }

    /// What sled does not have of `table` after the key `after`, until it is `bytes_max` bytes; `None` if there is
    /// nothing.
    pub(super) fn for_checkpoint(
        &self,
        table: Keyspace,
        after: Option<&IVec>,
        bytes_max: usize,
    ) -> Option<TableChanges> {
        let changes = self.changes[table.index()].read();
        let mut taken = TableChanges { table, ops: Ops::default(), keys: Vec::new(), bytes: 0 };
        let after = after.map_or(Bound::Unbounded, |key| Bound::Excluded(&key[..]));
        for (key, change) in changes.range::<[u8], _>((after, Bound::Unbounded)) {
            match &change.value {
                Some(value) => taken.ops.insert(key.clone(), value.clone()),
                None => taken.ops.remove(key.clone()),
            }
            taken.keys.push((key.clone(), change.position));
            taken.bytes += bytes_of(key, change.value.as_ref()) as usize;
            if taken.bytes >= bytes_max {
                break;
            }
        }
        (!taken.keys.is_empty()).then_some(taken)
    }

    /// `taken` is in sled, which was synced.
    pub(super) fn settle(&self, taken: &TableChanges) {
        let mut changes = self.changes[taken.table.index()].write();
        for (key, position) in &taken.keys {
            if changes.get(key).is_some_and(|change| change.position == *position)
                && let Some(change) = changes.remove(key)
            {
                self.budget.free(bytes_of(key, change.value.as_ref()));
            }
        }
    }
}

impl TableChanges {
    /// The last key.
    pub(super) fn last_key(&self) -> Option<&IVec> {
        self.keys.last().map(|(key, _)| key)
    }
}

/// A table for the duration of one question: drop it soon, because sled cannot be reopened while it is held.
///
/// Shows what is durable.
pub(crate) struct Tree {
    trees: Arc<Trees>,
    tables: Arc<Tables>,
    keyspace: Keyspace,
}

/// A key and its value.
type Pair = (IVec, IVec);

impl Tree {
    pub(super) const fn new(trees: Arc<Trees>, tables: Arc<Tables>, keyspace: Keyspace) -> Self {
        Self { trees, tables, keyspace }
    }

    fn changes(&self) -> &RwLock<Changes> {
        &self.tables.changes[self.keyspace.index()]
    }

    /// The value of `key`.
    pub(crate) fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<IVec>, StorageError> {
        let key = key.as_ref();
        if let Some(change) = self.changes().read().get(key) {
            return Ok(change.value.clone());
        }
        self.trees.get(self.keyspace).get(key).map_err(StorageError::from)
    }

    /// The pairs whose keys are in `range`, ascending. A pair that is set or removed meanwhile may be included or not.
    pub(crate) fn range<K: AsRef<[u8]>>(
        &self,
        range: (Bound<K>, Bound<K>),
    ) -> impl Iterator<Item = Result<Pair, StorageError>> {
        Merged::new(self, range, false)
    }

    /// Like [`Tree::range`], descending.
    pub(crate) fn range_backwards<K: AsRef<[u8]>>(
        &self,
        range: (Bound<K>, Bound<K>),
    ) -> impl Iterator<Item = Result<Pair, StorageError>> {
        Merged::new(self, range, true)
    }
}

/// The pairs of memory and of sled, in order. A part of the range is read in memory, so that no lock is held, and then
/// in sled: what sled gets in between is already known.
struct Merged<'a> {
    tree: &'a Tree,
    /// What has not been read yet; `None` if nothing is left.
    rest: Option<(Bound<IVec>, Bound<IVec>)>,
    changes: VecDeque<(IVec, Option<IVec>)>,
    in_sled: Option<sled::Iter>,
    /// The next pair of sled.
    next: Option<Pair>,
    backwards: bool,
}

impl<'a> Merged<'a> {
    fn new<K: AsRef<[u8]>>(tree: &'a Tree, range: (Bound<K>, Bound<K>), backwards: bool) -> Self {
        let owned = |bound: Bound<K>| bound.map(|key| IVec::from(key.as_ref()));
        let range = (owned(range.0), owned(range.1));
        let rest = (!is_empty(&range)).then_some(range);
        Self { tree, rest, changes: VecDeque::new(), in_sled: None, next: None, backwards }
    }

    /// Reads a further part; false if there is none.
    fn advance(&mut self) -> bool {
        let Some((low, high)) = self.rest.take() else { return false };
        let changes = self.tree.changes().read();
        let pair = |(key, change): (&IVec, &Change)| (key.clone(), change.value.clone());
        let range = changes.range((low.clone(), high.clone()));
        self.changes = if self.backwards {
            range.rev().take(TAKEN_AT_ONCE).map(pair).collect()
        } else {
            range.take(TAKEN_AT_ONCE).map(pair).collect()
        };
        drop(changes);
        // If there may be more changes, this part ends with the last one that was read.
        let cut = self.changes.back().filter(|_| self.changes.len() == TAKEN_AT_ONCE);
        let part = match (cut.map(|(key, _)| key.clone()), self.backwards) {
            (None, _) => (low, high),
            (Some(cut), false) => {
                self.rest = Some((Bound::Excluded(cut.clone()), high));
                (low, Bound::Included(cut))
            }
            (Some(cut), true) => {
                self.rest = Some((low, Bound::Excluded(cut.clone())));
                (Bound::Included(cut), high)
            }
        };
        self.rest = self.rest.take().filter(|rest| !is_empty(rest));
        self.in_sled = Some(self.tree.trees.get(self.tree.keyspace).range(part));
        true
    }

    fn next_in_sled(&mut self) -> Result<(), StorageError> {
        if self.next.is_none()
            && let Some(pairs) = &mut self.in_sled
        {
            let next = if self.backwards { pairs.next_back() } else { pairs.next() };
            self.next = next.transpose().map_err(StorageError::from)?;
            if self.next.is_none() {
                self.in_sled = None;
            }
        }
        Ok(())
    }

    fn try_next(&mut self) -> Result<Option<Pair>, StorageError> {
        loop {
            self.next_in_sled()?;
            if self.changes.is_empty() && self.next.is_none() {
                if self.advance() {
                    continue;
                }
                return Ok(None);
            }
            let order = match (self.changes.front(), &self.next) {
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, _) => std::cmp::Ordering::Greater,
                (Some((changed, _)), Some((key, _))) => {
                    let order = changed.cmp(key);
                    if self.backwards { order.reverse() } else { order }
                }
            };
            if order.is_gt() {
                return Ok(self.next.take());
            }
            if order.is_eq() {
                // The change is newer.
                self.next = None;
            }
            if let Some((key, Some(value))) = self.changes.pop_front() {
                return Ok(Some((key, value)));
            }
        }
    }
}

impl Iterator for Merged<'_> {
    type Item = Result<Pair, StorageError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.try_next().transpose()
    }
}

/// Whether no key can be in `range`: sled must not be asked for such a range.
fn is_empty((low, high): &(Bound<IVec>, Bound<IVec>)) -> bool {
    match (low, high) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Included(low), Bound::Included(high)) => low > high,
        (
            Bound::Included(low) | Bound::Excluded(low),
            Bound::Included(high) | Bound::Excluded(high),
        ) => low >= high,
    }
}
