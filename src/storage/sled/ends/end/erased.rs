//! Erased entries of one store: nothing in memory has their content any more, and it is known which of them may still
//! be in the tree.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use super::{End, Hashing, Piece};
use crate::model::{Segment, Sequence};
use crate::storage::StorageError;
use crate::storage::sled::key::Ordinal;
use crate::storage::witness::digests_of;

/// What an erased entry takes in memory until it is removed from the tree, roughly, in bytes.
const ERASING_BYTES: u64 = 32;
/// Most erased entries that are removed from the tree in one portion.
const ERASING_AT_ONCE: usize = 1 << 16;

impl End {
    /// Counts erasures, and removals from the tree.
    pub(crate) fn erasures(&self) -> u64 {
        self.erasures.load(Ordering::Acquire)
    }

    /// Bytes that erasing took from records in memory.
    pub(crate) fn erased_bytes(&self) -> u64 {
        self.erased_bytes.load(Ordering::Relaxed)
    }

    /// These entries are erased, which is durable in the commit log: nothing in memory has them any more. Returns how
    /// many bytes were added to and removed from memory.
    pub(in crate::storage::sled::ends) fn erase(&self, sequences: &[Sequence]) -> (u64, u64) {
        let gone: BTreeSet<Sequence> = sequences.iter().copied().collect();
        let mut tail = self.tail.lock();
        let before = tail.erasing.len();
        let mut less = 0;
        for piece in &mut tail.pieces {
            // Its bytes were read when it arrived.
            less += piece.erase(self.ordinal, &gone).unwrap_or(0);
        }
        tail.bytes -= less;
        // After a failure the tree may have more than is known.
        tail.erasing.extend(gone);
        let more = (tail.erasing.len() - before) as u64 * ERASING_BYTES;
        self.erased_bytes.fetch_add(less, Ordering::Relaxed);
        self.erasures.fetch_add(1, Ordering::AcqRel);
        (more, less)
    }

    /// As readers should see what they read from the tree or from here: erased entries are gaps.
    pub(crate) fn shown(&self, segment: Segment) -> Result<Vec<Segment>, StorageError> {
        let erased = segment.erasing(&self.tail.lock().erasing);
        erased.unwrap_or(segment).shown().map_err(StorageError::corrupt)
    }

    /// The first erased entries up to `last` whose content may be in the tree.
    pub(crate) fn erasing(&self, last: Sequence) -> BTreeSet<Sequence> {
        let tail = self.tail.lock();
        tail.erasing.range(..=last).take(ERASING_AT_ONCE).copied().collect()
    }

    /// The tree, which was synced, no longer has those of `gone` that do not come after `last`. Returns what they took
    /// in memory, in bytes.
    pub(in crate::storage::sled::ends) fn is_erased_in_tree(
        &self,
        gone: &BTreeSet<Sequence>,
        last: Sequence,
    ) -> u64 {
        let mut tail = self.tail.lock();
        let removed = gone.range(..=last).filter(|at| tail.erasing.remove(at)).count() as u64;
        self.erasures.fetch_add(1, Ordering::AcqRel);
        removed * ERASING_BYTES
    }
}

impl Piece {
    /// Erases those of `gone` that it has. Returns by how many bytes its records shrink; `None` if it cannot be read.
    fn erase(&mut self, ordinal: Ordinal, gone: &BTreeSet<Sequence>) -> Option<u64> {
        let Some(erased) = self.segment.erasing(gone) else { return Some(0) };
        if let Hashing::Salted(salt) = &self.hashing {
            let salt = salt.append(ordinal, self.segment.first());
            self.hashing = Hashing::Digests(digests_of(&self.segment, salt).ok()?.into());
        }
        let less = self.segment.records().len() - erased.records().len();
        self.segment = erased;
        Some(less as u64)
    }
}
