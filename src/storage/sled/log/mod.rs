//! The log of one store on sled.
//!
//! Keeps: the head is what is durable, and nothing behind it is shown; ids count from the moment they are handed in;
//! once an append has failed, or the store was opened again, nothing more is taken. Leaves out: how entries lie on
//! disk (`layout`), how they are found there (`reader`, `lookup`), when they are written (`commit`).

mod layout;
mod lookup;
mod reader;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

pub(super) use self::layout::Layout;
use self::lookup::{DiskLookup, Ids, Known, Recent};
use self::reader::Reader;
use super::dedup::{Block, Directory, FingerprintCache, Tail};
use super::ends::{End, Ends, HeldEnd};
use super::group::{GROUP_BYTES_MAX, Group};
use super::key::{BlockKey, StoreKey};
use super::shared::{Job, Shared, Work};
use super::trees::Trees;
use super::value::block::{Fingerprints, Summary, prefix};
use super::value::store;
use crate::model::{EntryId, Segment, Sequence, StoreId};
use crate::storage::{AppendError, StorageError, StoreLog, StoreSize, check_consecutive};

type Answer = oneshot::Sender<Result<(), AppendError>>;

/// What a log object and the commit thread share.
pub(super) struct Log {
    shared: Arc<Shared>,
    cache: Arc<FingerprintCache>,
    store: StoreId,
    /// Of the database when this was opened.
    generation: u64,
    /// Set with the first append, or from disk.
    end: OnceLock<HeldEnd>,
    head: AtomicU64,
    bytes: AtomicU64,
    state: Mutex<State>,
    /// Nothing is queued or under way any more.
    idle: Condvar,
    recent: Recent,
}

struct State {
    /// Why nothing is taken any more.
    dead: Option<Arc<str>>,
    /// The last sequence that was handed in.
    appended: Sequence,
    ids: Ids,
    /// Handed in, and not yet in a group.
    pending: VecDeque<(Vec<Segment>, Answer)>,
    /// In the group that is being committed.
    staged: Option<Staged>,
    /// Whether the commit thread knows that there is something to do.
    queued: bool,
}

/// What becomes true when the group is durable.
struct Staged {
    head: Sequence,
    bytes: u64,
    blocks: Vec<(Sequence, Summary)>,
    answers: Vec<Answer>,
}

impl State {
    fn is_idle(&self) -> bool {
        self.pending.is_empty() && self.staged.is_none()
    }
}

impl Log {
    /// Reads from disk what is needed of the store: its end, and the summaries of its ids.
    pub(super) fn load(
        shared: &Arc<Shared>,
        cache: &Arc<FingerprintCache>,
        store: &StoreId,
    ) -> Result<Self, StorageError> {
        let trees = shared.trees()?;
        let key = StoreKey(store.clone()).to_bytes();
        let record = trees.log().get(key).map_err(StorageError::unavailable)?;
        let ordinal = record.map(|record| store::decode(&record)).transpose();
        let ordinal = ordinal.map_err(StorageError::corrupt)?;
        let end = ordinal.map(|ordinal| trees.ends().hold(ordinal));
        let loaded = match &end {
            Some(end) => load(&trees, end)?,
            None => Loaded::default(),
        };
        let state = State {
            dead: None,
            appended: loaded.last,
            ids: loaded.ids,
            pending: VecDeque::new(),
            staged: None,
            queued: false,
        };
        Ok(Self {
            shared: shared.clone(),
            cache: cache.clone(),
            store: store.clone(),
            generation: trees.generation,
            end: end.map_or_else(OnceLock::new, OnceLock::from),
            head: AtomicU64::new(loaded.last.get()),
            bytes: AtomicU64::new(loaded.bytes),
            state: Mutex::new(state),
            idle: Condvar::new(),
            recent: Recent::default(),
        })
    }

    /// Refuses appends from now on and waits until those that were taken have settled.
    pub(super) fn retire(&self) {
        let mut state = self.state.lock();
        state.dead.get_or_insert_with(|| "the store was opened again since".into());
        while !state.is_idle() {
            self.idle.wait(&mut state);
        }
    }

    /// Takes `segments` in; true if the commit thread is to be told.
    fn take(&self, segments: Vec<Segment>, answer: Answer) -> bool {
        let mut state = self.state.lock();
        let refusal = match &state.dead {
            Some(dead) => Some(dead.clone()),
            None => check_consecutive(state.appended, &segments).err(),
        };
        if let Some(refusal) = refusal {
            drop(state);
            // Whoever asked may have gone.
            let _ = answer.send(Err(AppendError::Definite(refusal)));
            return false;
        }
        for segment in &segments {
            segment.ids().for_each(|(_, id)| state.ids.tail.push(id));
            state.appended = segment.last();
        }
        state.pending.push_back((segments, answer));
        !std::mem::replace(&mut state.queued, true)
    }

    /// The end of the store, which gets its ordinal with its first entries.
    fn end(&self, group: &mut Group<'_>) -> &End {
        self.end.get_or_init(|| {
            let ordinal = group.new_ordinal();
            let key = StoreKey(self.store.clone()).to_bytes();
            group.insert(&key, &store::encode(ordinal));
            let end = group.ends().hold(ordinal);
            *end.layout.lock() = Layout::empty();
            end
        })
    }

    /// Reads the store from `tree`; nothing if it was never written to.
    fn reader<'a>(&'a self, tree: &'a sled::Tree) -> Option<Reader<'a>> {
        let end = self.end.get()?;
        Some(Reader { tree, ordinal: end.ordinal, end: Some(end) })
    }

    /// How much is durable.
    pub(super) fn size(&self) -> StoreSize {
        StoreSize { head: self.head(), bytes: self.bytes.load(Ordering::Relaxed) }
    }

    fn head(&self) -> Sequence {
        Sequence::new(self.head.load(Ordering::Acquire)).unwrap_or(Sequence::MAX)
    }

    fn lookup_one(
        &self,
        id: EntryId,
        disk: Option<&DiskLookup<'_>>,
    ) -> Result<Option<Sequence>, StorageError> {
        // First where a batch that was sent before is found.
        if let Some(recent) = self.recent.find(id) {
            return Ok(Some(recent));
        }
        let state = self.state.lock();
        match state.ids.known(id, self.generation, &self.cache) {
            Known::Fresh => return Ok(None),
            Known::At(sequence) => return Ok(Some(sequence)),
            Known::Unsure => {}
        }
        let blocks: Vec<Block> = state.ids.directory.candidates(prefix(id)).copied().collect();
        drop(state);
        match disk {
            Some(disk) => disk.find(id, &blocks),
            // There are blocks only of a store that has entries.
            None => Ok(None),
        }
    }
}

/// The size of the store that has this record, which is not open.
pub(super) fn size_on_disk(
    tree: &sled::Tree,
    ends: &Ends,
    record: &[u8],
) -> Result<StoreSize, StorageError> {
    let ordinal = store::decode(record).map_err(StorageError::corrupt)?;
    // First what is in packs: it may be moved meanwhile.
    let packed = ends.in_packs(ordinal);
    let mut size = StoreSize::default();
    if let Some(found) = (Reader { tree, ordinal, end: None }).find(Sequence::MAX)? {
        size.head = found.last();
        size.bytes = found.record.bytes_before + found.record.bytes;
    }
    for piece in packed {
        // Others are in segments by now, or in packs twice.
        if piece.first() == size.head.next() {
            size.head = piece.last();
            size.bytes += piece.records().len() as u64;
        }
    }
    Ok(size)
}

/// What is read of a store when it is opened.
struct Loaded {
    last: Sequence,
    bytes: u64,
    ids: Ids,
}

impl Default for Loaded {
    /// Of a store without entries.
    fn default() -> Self {
        let ids = Ids { tail: Tail::new(Sequence::FIRST), directory: Directory::default() };
        Self { last: Sequence::ZERO, bytes: 0, ids }
    }
}

fn load(trees: &Trees, end: &End) -> Result<Loaded, StorageError> {
    let (last, bytes) = {
        let mut layout = end.layout.lock();
        layout.complete(trees.log(), end, trees.ends())?;
        (layout.last, layout.bytes)
    };
    let reader = Reader { tree: trees.log(), ordinal: end.ordinal, end: Some(end) };
    let mut directory = Directory::default();
    for summary in reader.summaries() {
        let (first, summary) = summary?;
        if !directory.push(first, &summary) {
            return Err(StorageError::corrupt(format!(
                "the block of entry {first} is out of place"
            )));
        }
    }
    if last < directory.last() {
        return Err(StorageError::corrupt("there are more blocks than entries"));
    }
    let mut next = directory.last().next();
    let mut tail = Tail::new(next);
    while next <= last {
        let segment = reader.segment(next)?;
        let unknown = segment.ids().skip_while(|(sequence, _)| *sequence < next);
        unknown.for_each(|(_, id)| tail.push(id));
        next = segment.last().next();
    }
    Ok(Loaded { last, bytes, ids: Ids { tail, directory } })
}

impl Work for Log {
    fn generation(&self) -> u64 {
        self.generation
    }

    fn stage(&self, group: &mut Group<'_>) {
        let end = self.end(group);
        let mut layout = end.layout.lock();
        let (mut segments, mut answers, mut bytes) = (Vec::new(), Vec::new(), 0);
        let mut state = self.state.lock();
        while bytes < GROUP_BYTES_MAX
            && let Some((more, answer)) = state.pending.pop_front()
        {
            bytes += more.iter().map(|segment| segment.records().len()).sum::<usize>();
            segments.extend(more);
            answers.push(answer);
        }
        // Taken under the lock, so that whoever waits for idleness sees that it is under way.
        let head = segments.last().map_or(layout.last, Segment::last);
        let sealed = state.ids.directory.last();
        let full: Vec<_> = state.ids.tail.full(sealed, head).cloned().collect();
        let bytes = layout.bytes + bytes as u64;
        state.staged = Some(Staged { head, bytes, blocks: Vec::new(), answers });
        drop(state);

        layout.stage(end, segments, group);
        let ordinal = end.ordinal;
        let mut blocks = Vec::with_capacity(full.len());
        for chunk in full {
            let slot = group.put_in_slots(Fingerprints::encode(chunk.ids()));
            let summary = Summary::of(chunk.ids(), slot);
            let key = BlockKey { ordinal, first: chunk.first() };
            group.insert(&key.to_bytes(), summary.encode());
            blocks.push((chunk.first(), summary));
        }
        if !blocks.is_empty()
            && let Some(staged) = &mut self.state.lock().staged
        {
            staged.blocks = blocks;
        }
    }

    fn settle(self: Arc<Self>, outcome: Result<(), AppendError>) {
        let mut state = self.state.lock();
        let staged = state.staged.take();
        let mut answers = Vec::new();
        match &outcome {
            Ok(()) => {
                if let Some(staged) = staged {
                    self.end.get().inspect(|end| end.moved());
                    self.head.store(staged.head.get(), Ordering::Release);
                    self.bytes.store(staged.bytes, Ordering::Relaxed);
                    for (first, summary) in &staged.blocks {
                        state.ids.directory.push(*first, summary);
                    }
                    let sealed = state.ids.directory.last();
                    state.ids.tail.forget(sealed);
                    answers.extend(staged.answers.into_iter().map(|answer| (answer, Ok(()))));
                }
            }
            Err(error) => {
                state
                    .dead
                    .get_or_insert_with(|| format!("an earlier append failed: {error}").into());
                let tried = staged.into_iter().flat_map(|staged| staged.answers);
                answers.extend(tried.map(|answer| (answer, Err(error.clone()))));
                let refusal = AppendError::Definite(error.to_string().into());
                let untried = state.pending.drain(..);
                answers.extend(untried.map(|(_, answer)| (answer, Err(refusal.clone()))));
            }
        }
        let again = !state.pending.is_empty();
        state.queued = again;
        drop(state);
        for (answer, outcome) in answers {
            // Whoever asked may have gone.
            let _ = answer.send(outcome);
        }
        self.idle.notify_all();
        if again {
            let shared = self.shared.clone();
            shared.enqueue(Job::Work(self));
        }
    }
}

/// A [`StoreLog`] on sled.
pub(super) struct SledLog(pub(super) Arc<Log>);

impl StoreLog for SledLog {
    fn head(&self) -> Sequence {
        self.0.head()
    }

    fn probe(&self, ids: &[EntryId]) -> Option<Vec<Option<Sequence>>> {
        let log = &self.0;
        let state = log.state.lock();
        let known = |id: &EntryId| match state.ids.known(*id, log.generation, &log.cache) {
            Known::Fresh => Some(None),
            Known::At(sequence) => Some(Some(sequence)),
            Known::Unsure => log.recent.find(*id).map(Some),
        };
        ids.iter().map(known).collect()
    }

    fn lookup(&self, ids: &[EntryId]) -> Result<Vec<Option<Sequence>>, StorageError> {
        let log = &self.0;
        let trees = log.shared.trees_before_failure()?;
        let disk = log.reader(trees.log()).map(|reader| DiskLookup {
            reader,
            generation: log.generation,
            cache: &log.cache,
            recent: &log.recent,
        });
        ids.iter().map(|id| log.lookup_one(*id, disk.as_ref())).collect()
    }

    fn append(&self, segments: Vec<Segment>) -> BoxFuture<'static, Result<(), AppendError>> {
        if segments.is_empty() {
            return ready(Ok(())).boxed();
        }
        let (answer, receiver) = oneshot::channel();
        if self.0.take(segments, answer) {
            self.0.shared.enqueue(Job::Work(self.0.clone()));
        }
        let ended = || AppendError::Indefinite("the commit thread ended before it answered".into());
        receiver.map(move |answer| answer.unwrap_or_else(|_| Err(ended()))).boxed()
    }

    fn read(&self, from: Sequence, bytes_max: usize) -> Result<Vec<Segment>, StorageError> {
        // Read first: what is durable at this moment is in any tree that is got later.
        let head = self.0.head();
        if from > head {
            return Ok(Vec::new());
        }
        let trees = self.0.shared.trees_before_failure()?;
        let reader = self.0.reader(trees.log());
        reader.map_or_else(|| Ok(Vec::new()), |reader| reader.read(from, head, bytes_max))
    }

    fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
    }
}
