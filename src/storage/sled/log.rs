//! The log of one store on sled.
//!
//! Keeps: the head is durable, and nothing behind it is shown; ids count from the moment they are passed in. Leaves
//! out: when entries are written (`commit`, `checkpoint`), how they are found (`ends`, `segments`).

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;

use super::commit::{Job, Writes};
use super::ends::{End, StoreReader};
use super::erase;
use super::ids::{Cache, Ids, SEAL_IDS_MAX};
use super::key::Ordinal;
use super::reindex;
use super::segments::{Layout, Reader};
use super::shared::Shared;
use super::storage::Opened;
use super::tree::{self, Trees};
use super::value::store::StoreRecord;
use crate::model::{EntryId, Segment, Sequence, StoreId};
use crate::storage::ledger::Erased;
use crate::storage::witness::StoreHash;
use crate::storage::{AppendError, Probed, StorageError, StoreLog, StoreSize, behind_trimmed};

/// How many entries in sled are read for their ids when a store is opened. If more entries are not indexed, the first
/// caller that asks for an id starts their indexing.
const UNSEALED_MAX: u64 = 2 * SEAL_IDS_MAX as u64;
/// The maximum size of one append, in bytes of records.
const APPEND_BYTES_MAX: usize = 768 << 20;

/// A [`StoreLog`] on sled.
pub(super) struct SledLog {
    shared: Arc<Shared>,
    pub(super) writes: Arc<Writes>,
    opened: Arc<Mutex<Opened>>,
}

impl Drop for SledLog {
    fn drop(&mut self) {
        self.opened.lock().closed(&self.writes);
    }
}

impl SledLog {
    /// Reads the necessary data of `store` from disk: its end, and what is known about its ids. `opened` is told when this
    /// is dropped.
    pub(super) fn load(
        shared: &Arc<Shared>,
        cache: &Arc<Cache>,
        (store, opened): (&StoreId, Arc<Mutex<Opened>>),
    ) -> Result<Self, StorageError> {
        // This comes first: from then on, the outcome of a failed write is known.
        let generation = shared.queue.generation()?;
        let end = end_of(shared, store)?;
        let loaded = end.as_ref().map(|end| Loaded::read(shared, end, cache)).transpose()?;
        let Loaded { size, swept_bytes, ids } =
            loaded.unwrap_or_else(|| Loaded::none(shared, cache));
        if let Some(end) = &end {
            end.opened(&ids);
            if ids.is_due(size.head) {
                shared.ends.note_changed(end);
            }
        }
        let writes = Writes::new(store.clone(), generation, end, (size, swept_bytes), ids);
        Ok(Self { shared: shared.clone(), writes: Arc::new(writes), opened })
    }

    /// How many ids are in memory.
    #[cfg(test)]
    pub(super) fn in_memory(&self) -> usize {
        self.writes.ids.in_memory()
    }

    /// Those of these entries, which are there, that are not erased, in their order. Blocks on disk reads.
    pub(super) fn with_content(
        &self,
        entries: &[(Sequence, EntryId)],
    ) -> Result<Vec<(Sequence, EntryId)>, StorageError> {
        let mut sorted = entries.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        let (mut found, mut rest) = (Vec::new(), &sorted[..]);
        while let Some((at, _)) = rest.first() {
            let read = self.read(*at, 0)?;
            let holder = read.iter().find(|segment| segment.last() >= *at);
            let last = holder.map_or(*at, Segment::last);
            let (here, behind) = rest.split_at(rest.partition_point(|(at, _)| *at <= last));
            if !holder.is_some_and(Segment::is_erased) {
                found.extend_from_slice(here);
            }
            rest = behind;
        }
        Ok(found)
    }

    /// Erases these entries, which are there and are not erased. As [`StoreLog::erase`].
    pub(super) fn erase_found(
        &self,
        entries: &[(Sequence, EntryId)],
    ) -> BoxFuture<'static, Result<(), AppendError>> {
        if entries.is_empty() {
            return ready(Ok(())).boxed();
        }
        let (answer, receiver) = oneshot::channel();
        match erase::erase(&self.shared, &self.writes, entries, answer) {
            Ok(()) => answered(receiver),
            Err(error) => ready(Err(error)).boxed(),
        }
    }

    /// What there is from `from` on up to `head`, trimmed or not.
    fn read_kept(
        &self,
        from: Sequence,
        head: Sequence,
        bytes_max: usize,
    ) -> Result<Vec<Segment>, StorageError> {
        self.shared.noting(&self.writes.store, || {
            let trees = self.shared.access.trees()?;
            match self.reader(&trees) {
                Some(reader) => reader.read(from, head, bytes_max),
                // The gap at the beginning is not written yet.
                None => Ok(Segment::gaps(from.max(Sequence::FIRST), head)),
            }
        })
    }

    /// Reads the store from `trees`. `None` if it was never written to.
    fn reader<'a>(&'a self, trees: &'a Trees) -> Option<StoreReader<'a>> {
        let end = self.writes.end.get()?;
        let tree = Reader { tree: trees.log(), ordinal: end.ordinal };
        Some(StoreReader { tree, end })
    }
}

/// The answer of the commit thread.
fn answered(
    receiver: oneshot::Receiver<Result<(), AppendError>>,
) -> BoxFuture<'static, Result<(), AppendError>> {
    let ended = || AppendError::Indefinite("the commit thread ended before it answered".into());
    receiver.map(move |answer| answer.unwrap_or_else(|_| Err(ended()))).boxed()
}

/// The ordinal of `store`; `None` if it has no entries.
pub(super) fn ordinal_of(
    shared: &Shared,
    store: &StoreId,
) -> Result<Option<Ordinal>, StorageError> {
    // Memory comes first: the record moves from there to the tree.
    if let Some(ordinal) = shared.ends.ordinal(store) {
        return Ok(Some(ordinal));
    }
    let record = tree::store_record(shared.access.trees()?.log(), store)?;
    Ok(record.map(|record| record.ordinal))
}

/// The size of `store`.
pub(super) fn size(shared: &Shared, store: &StoreId) -> Result<StoreSize, StorageError> {
    // Memory comes first: the record moves from there to the tree.
    if let Some(end) = shared.ends.ordinal(store).and_then(|ordinal| shared.ends.get(ordinal)) {
        return Ok(Located::at(shared, &end)?.size);
    }
    match tree::store_record(shared.access.trees()?.log(), store)? {
        Some(record) => size_of(shared, &record),
        None => Ok(shared.new_store()),
    }
}

/// The size of the store with this record in the tree.
pub(super) fn size_of(shared: &Shared, record: &StoreRecord) -> Result<StoreSize, StorageError> {
    if let Some(end) = shared.ends.get(record.ordinal) {
        return Ok(Located::at(shared, &end)?.size);
    }
    // The store has nothing in memory.
    let trees = shared.access.trees()?;
    let last = Reader { tree: trees.log(), ordinal: record.ordinal }.find(Sequence::MAX)?;
    Ok(last.map_or_else(StoreSize::default, |last| StoreSize {
        head: last.last(),
        trimmed: record.trimmed.last,
        entries: record.kept(last.last()),
        bytes: (last.record.bytes_before + last.record.bytes).saturating_sub(record.trimmed.bytes),
    }))
}

/// The end of `store`; `None` if it has no entries.
pub(super) fn end_of(shared: &Shared, store: &StoreId) -> Result<Option<Arc<End>>, StorageError> {
    let hold = |ordinal| shared.ends.hold(ordinal, store, shared.ends.ordinal(store).is_none());
    Ok(ordinal_of(shared, store)?.map(hold))
}

/// The hash over the entries of `store`, and its last entry. `None` if it has no entries.
pub(super) fn hash_of(
    shared: &Shared,
    store: &StoreId,
) -> Result<Option<(Sequence, StoreHash)>, StorageError> {
    let Some(end) = end_of(shared, store)? else { return Ok(None) };
    let located = Located::at(shared, &end)?;
    let (last, hash) = end.hash(located.layout.last, located.layout.hash)?;
    Ok((last > Sequence::ZERO).then_some((last, hash)))
}

/// A store while nothing moves from memory to the tree. The content of the tree was synced.
pub(super) struct Located<'a> {
    pub(super) layout: MutexGuard<'a, Layout>,
    pub(super) trees: Arc<Trees>,
    pub(super) size: StoreSize,
    /// Those of its bytes that the tree does not have.
    pub(super) bytes_in_memory: u64,
}

impl<'a> Located<'a> {
    /// The last sequence.
    pub(super) const fn head(&self) -> Sequence {
        self.size.head
    }

    pub(super) fn at(shared: &Shared, end: &'a End) -> Result<Self, StorageError> {
        let mut layout = end.layout.lock();
        // Only after the lock: a failed sled is not returned here, and the lock was held until the failure was known.
        let trees = shared.access.open_trees()?;
        let reader = Reader { tree: trees.log(), ordinal: end.ordinal };
        layout.complete(&reader, Some(&end.name), trees.generation)?;
        let Layout { last: head, bytes, gaps, trimmed, .. } = &*layout;
        end.is_trimmed_in_tree(*trimmed);
        let gone = end.trimmed().min(*head);
        let entries = gaps.place(*head).since(gaps.place(gone));
        let bytes = bytes.saturating_sub(trimmed.bytes);
        let size = end.size(StoreSize { head: *head, trimmed: gone, entries, bytes });
        let bytes_in_memory = size.bytes - bytes;
        Ok(Self { layout, trees, size, bytes_in_memory })
    }
}

/// The data that is read when a store is opened.
struct Loaded {
    size: StoreSize,
    /// Bytes of the records that the tree had removed by then. More may be removed before the size is read.
    swept_bytes: u64,
    ids: Arc<Ids>,
}

impl Loaded {
    /// For a store without entries.
    fn none(shared: &Shared, cache: &Arc<Cache>) -> Self {
        let (size, ids) = (shared.new_store(), Ids::none(cache.clone()));
        // This is written with the first entries.
        Segment::gaps(Sequence::FIRST, size.head).iter().for_each(|gap| ids.pass(gap));
        Self { size, swept_bytes: 0, ids: Arc::new(ids) }
    }

    fn read(shared: &Shared, end: &End, cache: &Arc<Cache>) -> Result<Self, StorageError> {
        let Located { layout, trees, size, .. } = Located::at(shared, end)?;
        let tree = Reader { tree: trees.log(), ordinal: end.ordinal };
        let gaps = layout.gaps.clone();
        let in_tree = gaps.place(layout.last);
        let index = match tree.ids().and_then(|index| index.checked(in_tree)) {
            Err(StorageError::Corrupt(finding)) => {
                shared.ids_are_damaged(&end.name, &finding);
                tree.no_ids()?
            }
            index => index?,
        };
        let is_far_behind = in_tree.since(index.sealed()) > UNSEALED_MAX;
        // Entries that sled does not have are in memory anyway.
        let known = if is_far_behind { in_tree } else { index.sealed() };
        let mut next = gaps.sequence(known.next());
        let ids = Ids::new(index, next, trees.generation, cache.clone(), gaps);
        let reader = StoreReader { tree, end };
        while next <= size.head {
            let segment = reader.segment(next)?;
            if segment.is_gap() {
                ids.pass(&segment);
            }
            let unknown = segment.ids().skip_while(|(sequence, _)| *sequence < next);
            ids.push(unknown.map(|(_, id)| id));
            next = segment.last().next();
        }
        Ok(Self { size, swept_bytes: layout.trimmed.bytes, ids: Arc::new(ids) })
    }
}

impl StoreLog for SledLog {
    fn head(&self) -> Sequence {
        self.writes.head()
    }

    fn probe(&self, ids: &[EntryId]) -> Probed {
        self.writes.ids.probe(ids)
    }

    fn lookup(&self, ids: &[EntryId]) -> Result<Vec<Option<Sequence>>, StorageError> {
        self.shared.noting(&self.writes.store, || reindex::look_up(&self.shared, &self.writes, ids))
    }

    fn append(&self, segments: Vec<Segment>) -> BoxFuture<'static, Result<(), AppendError>> {
        if segments.is_empty() {
            return ready(Ok(())).boxed();
        }
        let bytes: usize = segments.iter().map(|segment| segment.records().len()).sum();
        if bytes > APPEND_BYTES_MAX {
            let refusal = format!("{bytes} bytes at once, {APPEND_BYTES_MAX} are the most");
            return ready(Err(AppendError::Definite(refusal.into()))).boxed();
        }
        let (answer, receiver) = oneshot::channel();
        if self.writes.take(segments, answer) {
            self.shared.queue.enqueue(Job::Store(self.writes.clone()));
        }
        answered(receiver)
    }

    #[cfg(feature = "otel")]
    fn synced(&self, sequence: Sequence) -> Option<(std::time::Instant, std::time::Instant)> {
        self.writes.synced(sequence)
    }

    fn trimmed(&self) -> Sequence {
        self.writes.end.get().map_or(Sequence::ZERO, |end| end.trimmed())
    }

    fn trim(&self, last: Sequence) -> BoxFuture<'static, Result<(), AppendError>> {
        let head = self.writes.head();
        if last > head {
            let refusal = format!("entry {last} is not there, the log ends at {head}");
            return ready(Err(AppendError::Definite(refusal.into()))).boxed();
        }
        if last <= self.trimmed() {
            return ready(Ok(())).boxed();
        }
        let (answer, receiver) = oneshot::channel();
        self.shared.queue.enqueue(Job::Trim { writes: self.writes.clone(), last, answer });
        answered(receiver)
    }

    fn erase(
        &self,
        entries: &[(Sequence, EntryId)],
    ) -> BoxFuture<'static, Result<(), AppendError>> {
        let checked = erase::check(&self.shared, &self.writes, entries);
        let definite = |error: StorageError| AppendError::Definite(error.to_string().into());
        match checked.and_then(|()| self.with_content(entries).map_err(definite)) {
            Ok(found) => self.erase_found(&found),
            Err(error) => ready(Err(error)).boxed(),
        }
    }

    fn first_known(&self) -> Result<Option<(Sequence, EntryId)>, StorageError> {
        let head = self.writes.head();
        self.shared.noting(&self.writes.store, || {
            let trees = self.shared.access.trees()?;
            let Some(reader) = self.reader(&trees) else { return Ok(None) };
            let mut next = Sequence::FIRST;
            while next <= head {
                let segment = reader.segment(next)?;
                if let Some(first) = segment.ids().next() {
                    return Ok(Some(first));
                }
                next = segment.last().next();
            }
            Ok(None)
        })
    }

    fn note_erased(&self, last: Sequence, known: (Sequence, EntryId)) -> Result<(), AppendError> {
        erase::note(&self.shared, &self.writes.store, &Erased::Store { last, first: known })
    }

    fn erasures(&self) -> u64 {
        self.writes.end.get().map_or(0, |end| end.erasures())
    }

    fn read(&self, from: Sequence, bytes_max: usize) -> Result<Vec<Segment>, StorageError> {
        // This is read first: everything durable at this moment is found later, in memory or in the tree.
        let head = self.writes.head();
        if from > head {
            return Ok(Vec::new());
        }
        loop {
            let trimmed = self.trimmed();
            let erasures = self.erasures();
            let read = self.read_kept(from.max(trimmed.next()), head, bytes_max)?;
            // Entries that were trimmed or erased meanwhile may have only their ids left.
            if (self.trimmed(), self.erasures()) == (trimmed, erasures) {
                return Ok(behind_trimmed(trimmed, from, read));
            }
        }
    }

    fn above(
        &self,
        id: EntryId,
        before: Sequence,
        count_max: usize,
    ) -> Result<Option<Vec<Sequence>>, StorageError> {
        self.shared
            .noting(&self.writes.store, || {
                let trees = self.shared.access.trees()?;
                // Zero is no store. It is used if there are no entries, and then nothing is read.
                let ordinal = self.writes.end.get().map_or(0, |end| end.ordinal);
                let reader = Reader { tree: trees.log(), ordinal };
                self.writes.ids.above(id, before, count_max, &reader)
            })
            .map(|above| {
                let trimmed = self.trimmed();
                above.map(|above| above.into_iter().filter(|at| *at > trimmed).collect())
            })
    }

    fn bytes(&self) -> u64 {
        self.writes.bytes()
    }
}
