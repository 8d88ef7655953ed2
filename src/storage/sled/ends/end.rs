//! The end of one store.

mod erased;

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::Ends;
use crate::model::limits::SEGMENT_BYTES_TARGET;
use crate::model::{Segment, Sequence, StoreId, sparing};
use crate::storage::sled::ids::Ids;
use crate::storage::sled::key::Ordinal;
use crate::storage::sled::segments::Layout;
use crate::storage::sled::trimmed::Trimmed;
use crate::storage::witness::{EntryDigest, FrameSalt, StoreHash};
use crate::storage::{StorageError, StoreSize};

/// What a piece takes in memory in addition to its records, roughly, in bytes.
const PIECE_BYTES: u64 = 168;

/// The end of one store. It is dropped when nobody has the store open and it has no pieces.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) ordinal: Ordinal,
    pub(crate) name: StoreId,
    /// How the store ends in the tree. A checkpoint locks it from changing the tree until that is synced; opening the
    /// store locks it too.
    pub(crate) layout: Mutex<Layout>,
    /// The file of the commit log to which its name was last written; for the commit thread.
    pub(crate) named_in: AtomicU64,
    /// The ids of the most recently opened log object.
    pub(crate) ids: Mutex<Weak<Ids>>,
    /// Whether the tree has its record.
    in_tree: AtomicBool,
    /// Whether its name can be found, in memory or in the tree.
    is_named: AtomicBool,
    /// The last sequence whose trim is durable.
    trimmed: AtomicU64,
    /// Bytes of the records that the tree has released because of that.
    swept_bytes: AtomicU64,
    /// Counts erasures here, and removals of erased entries from the tree: what is read while it changes is read again.
    erasures: AtomicU64,
    /// Bytes that erasing took from records in memory.
    erased_bytes: AtomicU64,
    tail: Mutex<Tail>,
    ends: Weak<Ends>,
}

#[derive(Debug, Default)]
struct Tail {
    /// Consecutive, up to the head of the store.
    pieces: VecDeque<Piece>,
    /// The bytes of their records.
    bytes: u64,
    /// The number of their entries.
    entries: u64,
    /// Whether the next checkpoint knows about it, or one is writing it.
    changed: bool,
    /// It was trimmed, and the tree may not say so yet.
    is_trimmed: bool,
    /// Erased entries whose content may still be in the tree.
    erasing: BTreeSet<Sequence>,
    /// The ids of its log object, until those of its pieces are sealed: even if the store is closed before a
    /// checkpoint.
    ids: Option<Arc<Ids>>,
}

/// What a frame of the commit log has of one store, or a part of that.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    pub(crate) segment: Segment,
    pub(crate) hashing: Hashing,
    /// By when it was committed, in milliseconds since 1970.
    pub(crate) time_ms: u64,
}

/// How the hash of a store with a piece is determined.
#[derive(Clone, Debug)]
pub(crate) enum Hashing {
    /// With the salt of the piece's frame.
    Salted(FrameSalt),
    /// It is known.
    Known(StoreHash),
    /// With these digests, because some of the entries are erased.
    Digests(Arc<[EntryDigest]>),
}

/// What [`End::push`] did.
pub(super) struct Pushed {
    /// What they take in memory.
    pub(super) bytes: u64,
    /// What they take in memory.
    pub(super) memory_bytes: u64,
    /// Whether a checkpoint has to be told.
    pub(super) changed: bool,
}

/// What [`End::forget`] did.
pub(super) struct Forgotten {
    /// What the pieces took in memory.
    pub(super) bytes: u64,
    /// Whether there is more for a checkpoint.
    pub(super) changed: bool,
    /// Whether the tree knows by now how far the store is trimmed, and did not before.
    pub(super) trim: bool,
}

impl End {
    pub(super) fn new(ends: Weak<Ends>, ordinal: Ordinal, name: StoreId, in_tree: bool) -> Self {
        Self {
            ordinal,
            name,
            layout: Mutex::default(),
            named_in: AtomicU64::new(0),
            ids: Mutex::default(),
            in_tree: AtomicBool::new(in_tree),
            is_named: AtomicBool::new(in_tree),
            trimmed: AtomicU64::new(0),
            swept_bytes: AtomicU64::new(0),
            erasures: AtomicU64::new(0),
            erased_bytes: AtomicU64::new(0),
            tail: Mutex::default(),
            ends,
        }
    }

    /// The store was opened, with these `ids`.
    pub(crate) fn opened(&self, ids: &Arc<Ids>) {
        *self.ids.lock() = Arc::downgrade(ids);
        let mut tail = self.tail.lock();
        let before = tail.ids.take();
        if !tail.pieces.is_empty() {
            tail.ids = Some(ids.clone());
        }
        drop(tail);
        drop(before);
    }

    /// The last entry; `None` if all are in the tree.
    pub(crate) fn last(&self) -> Option<Sequence> {
        self.tail.lock().pieces.back().map(Piece::last)
    }

    /// Bytes of the records that are here.
    pub(crate) fn bytes(&self) -> u64 {
        self.tail.lock().bytes
    }

    /// The last sequence that was trimmed.
    pub(crate) fn trimmed(&self) -> Sequence {
        Sequence::new(self.trimmed.load(Ordering::Acquire)).unwrap_or(Sequence::MAX)
    }

    /// Bytes of the records that the tree has released.
    pub(crate) fn swept_bytes(&self) -> u64 {
        self.swept_bytes.load(Ordering::Relaxed)
    }

    /// The tree, which was synced, says that the store is trimmed this far.
    pub(crate) fn is_trimmed_in_tree(&self, trimmed: Trimmed) {
        self.trimmed.fetch_max(trimmed.last.get(), Ordering::AcqRel);
        self.swept_bytes.fetch_max(trimmed.bytes, Ordering::Relaxed);
    }

    /// The entries up to `last` are trimmed, which is durable in the commit log. True if there was nothing to tell the
    /// tree before.
    pub(super) fn trim(&self, last: Sequence) -> bool {
        let mut tail = self.tail.lock();
        self.trimmed.fetch_max(last.get(), Ordering::AcqRel);
        !std::mem::replace(&mut tail.is_trimmed, true)
    }

    /// The size of the store, which has `in_tree` in the tree, not counting what is trimmed there.
    pub(crate) fn size(&self, in_tree: StoreSize) -> StoreSize {
        let tail = self.tail.lock();
        let trimmed = self.trimmed();
        let head = tail.pieces.back().map_or(Sequence::ZERO, Piece::last).max(in_tree.head);
        let known = tail.pieces.iter().take_while(|piece| piece.last() <= in_tree.head);
        // Some are known only after a failure.
        let known = known.fold((0, 0), |(bytes, entries), Piece { segment, .. }| {
            (bytes + segment.records().len() as u64, entries + segment.len() as u64)
        });
        let bytes = in_tree.bytes + tail.bytes - known.0;
        let entries = in_tree.entries + tail.entries - known.1;
        let unknown = tail.pieces.iter().filter(|piece| piece.last() > in_tree.head);
        let gone: u64 = unknown.map(|piece| piece.entries_up_to(trimmed)).sum();
        StoreSize { head, trimmed, entries: entries - gone, bytes }
    }

    /// The last entry, and the hash over everything, of a store that has entries up to `last` with this `hash` in the
    /// tree.
    pub(crate) fn hash(
        &self,
        last: Sequence,
        hash: StoreHash,
    ) -> Result<(Sequence, StoreHash), StorageError> {
        let pieces: Vec<Piece> = self.tail.lock().pieces.iter().cloned().collect();
        pieces
            .iter()
            .filter(|piece| piece.last() > last)
            .try_fold((last, hash), |(_, hash), piece| {
                Ok((piece.last(), piece.hashed(self.ordinal, hash)?))
            })
    }

    /// Entries from the piece that holds `at` on, as one segment of about the usual length on disk; or the gap that
    /// holds it. `None` if `at` is not here.
    pub(crate) fn segment(&self, at: Sequence) -> Option<Segment> {
        let tail = self.tail.lock();
        let (first, last) = (tail.pieces.front()?.segment.first(), tail.pieces.back()?.last());
        if !(first..=last).contains(&at) {
            return None;
        }
        let start = tail.pieces.partition_point(|piece| piece.last() < at);
        let found = &tail.pieces[start].segment;
        if found.is_gap() {
            return Some(found.clone());
        }
        let mut bytes = 0;
        let fits = |segment: &Segment| {
            let is_first = bytes == 0;
            bytes += segment.records().len();
            !segment.is_gap() && (is_first || bytes <= SEGMENT_BYTES_TARGET)
        };
        let segments = tail.pieces.range(start..).map(|piece| piece.segment.clone());
        let joined: Vec<Segment> = segments.take_while(fits).collect();
        drop(tail);
        Segment::joined(&joined)
    }

    /// The times by which entries from `from` on were committed: for each piece its last entry, and the time; at most
    /// `count_max` of them.
    pub(crate) fn times(&self, from: Sequence, count_max: usize) -> Vec<(Sequence, u64)> {
        let tail = self.tail.lock();
        let start = tail.pieces.partition_point(|piece| piece.last() < from);
        let pieces = tail.pieces.range(start..).take(count_max);
        pieces.map(|piece| (piece.last(), piece.time_ms)).collect()
    }

    /// The gaps behind `last` that are here.
    pub(crate) fn gaps(&self, last: Sequence) -> Vec<Segment> {
        let tail = self.tail.lock();
        let start = tail.pieces.partition_point(|piece| piece.last() <= last);
        let gaps = tail.pieces.range(start..).map(|piece| &piece.segment);
        gaps.filter(|segment| segment.is_gap()).cloned().collect()
    }

    /// Its first pieces up to the entry `last`, until they have `bytes_max` bytes; at least one, if there is one.
    pub(crate) fn first_pieces(&self, last: Sequence, bytes_max: usize) -> Vec<Piece> {
        let tail = self.tail.lock();
        let mut bytes = 0;
        let fits = |piece: &&Piece| {
            let room = piece.last() <= last && (bytes == 0 || bytes < bytes_max);
            bytes += piece.segment.records().len();
            room
        };
        tail.pieces.iter().take_while(fits).cloned().collect()
    }

    /// Adds `segments`, which are hashed in this way, and were committed by this time.
    pub(super) fn push(
        &self,
        segments: impl IntoIterator<Item = Segment>,
        (hashing, time_ms): (Hashing, u64),
    ) -> Pushed {
        let mut tail = self.tail.lock();
        let before = tail.pieces.len();
        let mut bytes = 0;
        for segment in segments {
            bytes += segment.records().len() as u64;
            tail.entries += segment.len() as u64;
            let piece = Piece { segment, hashing: hashing.clone(), time_ms };
            sparing::push_back(&mut tail.pieces, piece);
        }
        tail.bytes += bytes;
        if tail.ids.is_none() {
            tail.ids = self.ids.lock().upgrade();
        }
        let memory_bytes = bytes + (tail.pieces.len() - before) as u64 * PIECE_BYTES;
        Pushed { bytes, memory_bytes, changed: !std::mem::replace(&mut tail.changed, true) }
    }

    /// Whether a checkpoint has to be told that there is something to do.
    pub(super) fn note_changed(&self) -> bool {
        !std::mem::replace(&mut self.tail.lock().changed, true)
    }

    /// Drops its first `count` pieces, because the tree has them and is `trimmed` this far; and with the last one its
    /// ids, unless some of them have to be sealed.
    pub(super) fn forget(&self, count: usize, ids_are_due: bool, trimmed: Trimmed) -> Forgotten {
        let mut tail = self.tail.lock();
        let was_trimmed = tail.is_trimmed;
        // More of it may have been trimmed since.
        tail.is_trimmed &= trimmed.last < self.trimmed();
        let trim = was_trimmed && !tail.is_trimmed;
        self.is_trimmed_in_tree(trimmed);
        // The rest moves to memory of its own: the memory for many pieces is released.
        let rest = tail.pieces.split_off(count);
        let gone = std::mem::replace(&mut tail.pieces, rest);
        let bytes: u64 = gone.iter().map(|piece| piece.segment.records().len() as u64).sum();
        tail.bytes -= bytes;
        tail.entries -= gone.iter().map(|piece| piece.segment.len() as u64).sum::<u64>();
        tail.changed = !tail.pieces.is_empty() || tail.is_trimmed || !tail.erasing.is_empty();
        let changed = tail.changed;
        let ids = if !tail.pieces.is_empty() || ids_are_due { None } else { tail.ids.take() };
        drop(tail);
        drop(ids);
        Forgotten { bytes: bytes + gone.len() as u64 * PIECE_BYTES, changed, trim }
    }

    /// True once, for a store whose name can be found in memory from now on.
    pub(super) fn is_named_first(&self) -> bool {
        !self.is_named.load(Ordering::Relaxed) && !self.is_named.swap(true, Ordering::Relaxed)
    }

    /// True once, when its record gets into the tree.
    pub(super) fn is_in_tree_first(&self) -> bool {
        !self.in_tree.swap(true, Ordering::AcqRel)
    }
}

impl Piece {
    /// The hash over everything before it in its store, and over it.
    pub(crate) fn hashed(
        &self,
        ordinal: Ordinal,
        before: StoreHash,
    ) -> Result<StoreHash, StorageError> {
        match &self.hashing {
            Hashing::Known(hash) => Ok(*hash),
            Hashing::Digests(digests) => {
                before.with_digests(&self.segment, digests).map_err(StorageError::corrupt)
            }
            Hashing::Salted(salt) => {
                let salt = salt.append(ordinal, self.segment.first());
                before.with_append(&self.segment, salt).map_err(StorageError::corrupt)
            }
        }
    }

    pub(crate) fn last(&self) -> Sequence {
        self.segment.last()
    }

    /// How many of its entries do not come after `last`.
    fn entries_up_to(&self, last: Sequence) -> u64 {
        let sequences = last.next().get().saturating_sub(self.segment.first().get());
        sequences.min(self.segment.len() as u64)
    }
}

impl Drop for End {
    fn drop(&mut self) {
        if let Some(ends) = self.ends.upgrade() {
            ends.forget(self.ordinal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::storage::{client, ids, segments};

    #[test]
    fn what_came_after_a_checkpoint_began_is_left_for_the_next_one() {
        let name = StoreId::new("a").expect("a name");
        let end = End::new(Weak::new(), 0, name, false);
        let hashing = Hashing::Salted(FrameSalt::random());
        for first in [1, 6, 11] {
            let first = Sequence::new(first).expect("a sequence");
            let _ = end.push(segments(first, &ids(5), 10, &client("alice")), (hashing.clone(), 0));
        }
        let pieces = |last: u64, bytes_max| {
            let last = Sequence::new(last).expect("a sequence");
            end.first_pieces(last, bytes_max).last().map(|piece| piece.last().get())
        };
        assert_eq!(pieces(15, usize::MAX), Some(15));
        assert_eq!(pieces(10, usize::MAX), Some(10));
        assert_eq!(pieces(15, 1), Some(5));
        assert_eq!(pieces(4, usize::MAX), None);
    }
}
