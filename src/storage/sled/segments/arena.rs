//! The slots: where everything larger than a small record goes, one value after another, whatever its store.
//!
//! Values are not stored under the key that one would look for, because sled keeps up to 16 keys in a leaf, splits it
//! at 17 and then writes both halves with all values again, and after ten changes the whole leaf; a log written in the
//! order of its keys went to disk three to five times. Slots are numbered, so their keys are known ahead: they are made
//! empty, in order, until their leaves have split, nine to a leaf. When the values come, each leaf takes nine changes,
//! one short of being written again, and every value goes to disk once (measured: 1.2 times instead of 5.3).

use std::io;

use crate::storage::sled::key::SlotKey;
use crate::storage::sled::ops::{Ops, VALUE_BYTES_MAX};

/// The longest value of a slot, in bytes; longer ones take several slots.
pub(crate) const SLOT_BYTES_MAX: usize = VALUE_BYTES_MAX;

/// How many empty slots are kept ahead of the data: more than sled has in an unsplit leaf.
const AHEAD_MIN: u64 = 32;
/// How many empty slots are made at once.
const PLACED_AT_ONCE: u64 = 256;

/// Assigns slots. Numbers are never assigned twice while the database is open.
pub(crate) struct Arena {
    /// The next slot to assign.
    next: u64,
    /// The first slot that has not been made yet.
    end: u64,
}

impl Arena {
    /// Finds the end of the slots.
    pub(crate) fn open(tree: &sled::Tree) -> io::Result<Self> {
        let mut slots = tree.range(SlotKey::all()).rev();
        let mut arena = Self { next: 0, end: 0 };
        for slot in &mut slots {
            let (key, value) = slot?;
            let number = SlotKey::parse(&key)
                .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "malformed slot key"))?
                .number();
            arena.end = arena.end.max(number + 1);
            if !value.is_empty() {
                arena.next = number + 1;
                break;
            }
        }
        Ok(arena)
    }

    /// Assigns as many slots as `bytes` needs, adds writing them to `ops` and returns the first.
    pub(crate) fn put(&mut self, ops: &mut Ops, bytes: Vec<u8>) -> u64 {
        let first = self.next;
        if bytes.len() <= SLOT_BYTES_MAX {
            ops.insert(&SlotKey::new(first).to_bytes(), bytes);
            self.next += 1;
            return first;
        }
        for part in bytes.chunks(SLOT_BYTES_MAX) {
            ops.insert(&SlotKey::new(self.next).to_bytes(), part);
            self.next += 1;
        }
        first
    }

    /// Adds emptying the slots of `body_bytes` bytes from `first` on to `ops`.
    pub(crate) fn free(ops: &mut Ops, first: u64, body_bytes: u64) {
        for slot in slots_of(first, body_bytes) {
            ops.insert(&SlotKey::new(slot).to_bytes(), Vec::new());
        }
    }

    /// Makes empty slots if the assigned ones come near the end: call it before they are written.
    pub(crate) fn place(&mut self, tree: &sled::Tree) -> io::Result<()> {
        if self.next + AHEAD_MIN <= self.end {
            return Ok(());
        }
        let end = self.next + PLACED_AT_ONCE;
        while self.end < end {
            // One by one: a batch would not keep their order.
            tree.insert(SlotKey::new(self.end).to_bytes(), &[])?;
            self.end += 1;
        }
        Ok(())
    }
}

/// The slots that `body_bytes` bytes take from `first` on.
pub(crate) fn slots_of(first: u64, body_bytes: u64) -> std::ops::Range<u64> {
    let count = body_bytes.div_ceil(SLOT_BYTES_MAX as u64).max(1);
    first..first.saturating_add(count)
}
