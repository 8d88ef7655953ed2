//! Logs that live as long as the process: for tests, and for programs that embed a server without a disk.
//!
//! Keeps: the contract of [`Storage`], except durability. Leaves out: any limit on memory.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use parking_lot::Mutex;

use super::{
    AppendError, ERASE_MAX, Keep, MemoryUsedKeys, Probed, Storage, StorageError, StoreLog,
    StoreSize, UsedKeys, behind_trimmed, check_consecutive,
};
use crate::model::{EntryId, RemoteId, Segment, Sequence, StoreId};

/// A [`Storage`] without a disk.
#[derive(Debug)]
pub struct MemoryStorage {
    remote_id: RemoteId,
    stores: Mutex<BTreeMap<StoreId, Arc<Mutex<Store>>>>,
    used_keys: MemoryUsedKeys,
}

/// What outlives a log object.
#[derive(Debug, Default)]
struct Store {
    /// Counts openings: an object of an earlier one refuses appends.
    opened: u64,
    segments: BTreeMap<Sequence, Segment>,
    ids: HashMap<EntryId, Sequence>,
    head: Sequence,
    trimmed: Sequence,
    erasures: u64,
    /// When the entries up to a sequence were appended, in milliseconds since 1970.
    times: Vec<(Sequence, u64)>,
    entries: u64,
    bytes: u64,
}

#[derive(Debug)]
struct Log {
    store: Arc<Mutex<Store>>,
    opened: u64,
}

impl MemoryStorage {
    /// An empty storage with a random remote id.
    pub fn new() -> Self {
        let used_keys = MemoryUsedKeys::default();
        Self { remote_id: RemoteId::random(), stores: Mutex::default(), used_keys }
    }
}

impl Default for MemoryStorage {
    fn default() -> Self {
        Self::new()
    }
}

impl Storage for MemoryStorage {
    fn remote_id(&self) -> RemoteId {
        self.remote_id
    }

    fn open(&self, store: &StoreId) -> Result<Arc<dyn StoreLog>, StorageError> {
        let store = self.stores.lock().entry(store.clone()).or_default().clone();
        let opened = {
            let mut store = store.lock();
            store.opened += 1;
            store.opened
        };
        Ok(Arc::new(Log { store, opened }))
    }

    fn stores(
        &self,
        after: Option<&StoreId>,
        count: usize,
    ) -> Result<Vec<(StoreId, StoreSize)>, StorageError> {
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        let stores = self.stores.lock();
        let behind = stores.range::<StoreId, _>((after, Bound::Unbounded));
        let sizes = behind.map(|(id, store)| (id.clone(), store.lock().size()));
        Ok(sizes.filter(|(_, size)| size.head > Sequence::ZERO).take(count).collect())
    }

    fn size(&self, store: &StoreId) -> Result<StoreSize, StorageError> {
        let stores = self.stores.lock();
        Ok(stores.get(store).map_or_else(StoreSize::default, |store| store.lock().size()))
    }

    fn beyond(&self, store: &StoreId, keep: &Keep) -> Result<Sequence, StorageError> {
        let stores = self.stores.lock();
        Ok(stores.get(store).map_or(Sequence::ZERO, |store| store.lock().beyond(keep)))
    }

    fn times(
        &self,
        store: &StoreId,
        from: Sequence,
        count_max: usize,
    ) -> Result<Option<Vec<(Sequence, u64)>>, StorageError> {
        let store = self.stores.lock().get(store).cloned();
        Ok(Some(store.map_or_else(Vec::new, |store| {
            let store = store.lock();
            let times = store.times.iter().filter(|(last, _)| *last >= from);
            times.take(count_max).copied().collect()
        })))
    }

    fn used_keys(&self) -> &dyn UsedKeys {
        &self.used_keys
    }

    fn ready(&self) -> Result<(), StorageError> {
        Ok(())
    }
}

impl Store {
    const fn size(&self) -> StoreSize {
        let Self { head, trimmed, entries, bytes, .. } = *self;
        StoreSize { head, trimmed, entries, bytes }
    }

    fn append(&mut self, segments: Vec<Segment>) -> Result<(), AppendError> {
        check_consecutive(self.head, &segments).map_err(AppendError::Definite)?;
        for segment in segments {
            self.head = segment.last();
            self.entries += segment.len() as u64;
            self.bytes += segment.records().len() as u64;
            self.ids.extend(segment.ids().map(|(sequence, id)| (id, sequence)));
            self.segments.insert(segment.first(), segment);
        }
        let last = self.times.last().map_or(0, |(_, time_ms)| *time_ms);
        self.times.push((self.head, now_ms().max(last)));
        Ok(())
    }

    fn lookup(&self, ids: &[EntryId]) -> Vec<Option<Sequence>> {
        ids.iter().map(|id| self.ids.get(id).copied()).collect()
    }

    fn trim(&mut self, last: Sequence) -> Result<(), AppendError> {
        if last > self.head {
            let refusal = format!("entry {last} is not there, the log ends at {}", self.head);
            return Err(AppendError::Definite(refusal.into()));
        }
        self.trimmed = self.trimmed.max(last);
        let all = std::mem::take(&mut self.segments).into_values();
        let kept = behind_trimmed(self.trimmed, self.trimmed.next(), all);
        self.entries = kept.iter().map(entries_of).sum();
        self.bytes = kept.iter().map(|segment| segment.records().len() as u64).sum();
        self.segments = kept.into_iter().map(|segment| (segment.first(), segment)).collect();
        Ok(())
    }

    fn erase(&mut self, entries: &[(Sequence, EntryId)]) -> Result<(), AppendError> {
        let refused = |why: String| AppendError::Definite(why.into());
        if entries.len() > ERASE_MAX {
            return Err(refused(format!("more than {ERASE_MAX} at once")));
        }
        if let Some((at, id)) = entries.iter().find(|(at, id)| self.ids.get(id) != Some(at)) {
            return Err(refused(format!("entry {at} is not there, or is not {id}")));
        }
        let gone = entries.iter().map(|(at, _)| *at).collect();
        let all = std::mem::take(&mut self.segments).into_values();
        let left: Vec<Segment> = all.flat_map(|segment| segment.without(&gone)).collect();
        self.bytes = left.iter().map(|segment| segment.records().len() as u64).sum();
        self.segments = left.into_iter().map(|segment| (segment.first(), segment)).collect();
        self.erasures += 1;
        Ok(())
    }

    fn beyond(&self, keep: &Keep) -> Sequence {
        let mut beyond = self.trimmed;
        let (mut entries, mut bytes) = (self.entries, self.bytes);
        for segment in self.segments.values() {
            let more = entries.saturating_sub(keep.entries_max.unwrap_or(u64::MAX));
            if more > 0 && entries_of(segment) > 0 {
                beyond = segment.first().plus(more.min(entries_of(segment)) - 1);
            }
            if keep.bytes_max.is_some_and(|bytes_max| bytes > bytes_max) {
                beyond = segment.last();
            }
            entries -= entries_of(segment);
            bytes -= segment.records().len() as u64;
        }
        let old = |time: &&(Sequence, u64)| keep.since_ms.is_some_and(|since| time.1 < since);
        let old = self.times.iter().take_while(old).last().map(|(at, _)| *at);
        beyond.max(old.unwrap_or_default())
    }

    fn read(&self, from: Sequence, bytes_max: usize) -> Vec<Segment> {
        let kept = self.read_kept(from.max(self.trimmed.next()), bytes_max);
        if from > self.head { kept } else { behind_trimmed(self.trimmed, from, kept) }
    }

    fn read_kept(&self, from: Sequence, bytes_max: usize) -> Vec<Segment> {
        let holding = self.segments.range(..=from).next_back();
        let first = holding.map_or(from, |(first, _)| *first);
        let mut bytes = 0;
        let behind = self.segments.range(first..).map(|(_, segment)| segment);
        behind
            .skip_while(|segment| segment.last() < from)
            .take_while(|segment| {
                // A gap takes no space.
                let room = bytes == 0 || bytes < bytes_max;
                bytes += segment.records().len();
                room
            })
            .cloned()
            .collect()
    }
}

/// How many entries it has, including erased ones.
const fn entries_of(segment: &Segment) -> u64 {
    if segment.is_gap() && !segment.is_erased() { 0 } else { segment.span() }
}

impl StoreLog for Log {
    fn head(&self) -> Sequence {
        self.store.lock().head
    }

    fn probe(&self, ids: &[EntryId]) -> Probed {
        Probed { known: self.store.lock().lookup(ids), open: Vec::new() }
    }

    fn lookup(&self, ids: &[EntryId]) -> Result<Vec<Option<Sequence>>, StorageError> {
        Ok(self.store.lock().lookup(ids))
    }

    fn append(&self, segments: Vec<Segment>) -> BoxFuture<'static, Result<(), AppendError>> {
        let mut store = self.store.lock();
        let outcome = if store.opened == self.opened {
            store.append(segments)
        } else {
            Err(AppendError::Definite("the store was opened again since".into()))
        };
        ready(outcome).boxed()
    }

    fn trimmed(&self) -> Sequence {
        self.store.lock().trimmed
    }

    fn trim(&self, last: Sequence) -> BoxFuture<'static, Result<(), AppendError>> {
        ready(self.store.lock().trim(last)).boxed()
    }

    fn erase(
        &self,
        entries: &[(Sequence, EntryId)],
    ) -> BoxFuture<'static, Result<(), AppendError>> {
        ready(self.store.lock().erase(entries)).boxed()
    }

    fn erasures(&self) -> u64 {
        self.store.lock().erasures
    }

    fn read(&self, from: Sequence, bytes_max: usize) -> Result<Vec<Segment>, StorageError> {
        Ok(self.store.lock().read(from, bytes_max))
    }

    fn above(
        &self,
        id: EntryId,
        before: Sequence,
        count_max: usize,
    ) -> Result<Option<Vec<Sequence>>, StorageError> {
        let store = self.store.lock();
        let wanted = store.trimmed.next()..before;
        let above = store.ids.iter().filter(|(other, at)| **other > id && wanted.contains(*at));
        let mut sequences: Vec<Sequence> = above.map(|(_, at)| *at).take(count_max + 1).collect();
        sequences.sort_unstable();
        Ok((sequences.len() <= count_max).then_some(sequences))
    }

    fn bytes(&self) -> u64 {
        self.store.lock().bytes
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "when something is committed is said by who commits it"
)]
fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    crate::contract_tests!(storage: Arc::new(MemoryStorage::new()) as Arc<dyn Storage>);
}
