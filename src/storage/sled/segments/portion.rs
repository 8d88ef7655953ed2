//! A portion of a checkpoint: what goes into sled's tree of entries together, all or nothing.

use super::arena::{Arena, SLOT_BYTES_MAX};
use crate::storage::sled::ids::Changes;
use crate::storage::sled::ops::Ops;

/// What a key takes in sled in addition to its value, roughly, in bytes.
const KEY_BYTES: usize = 100;

/// Collects changes of the log's tree.
pub(crate) struct Portion<'a> {
    ops: Ops,
    bytes: usize,
    arena: &'a mut Arena,
    tree: &'a sled::Tree,
}

impl<'a> Portion<'a> {
    /// An empty portion that changes `tree`, with slots from `arena`.
    pub(crate) fn new(tree: &'a sled::Tree, arena: &'a mut Arena) -> Self {
        Self { ops: Ops::default(), bytes: 0, arena, tree }
    }

    /// How much it writes, roughly.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// The changes.
    pub(crate) fn finish(self) -> Ops {
        self.ops
    }

    /// Sets `key` to `value`.
    pub(crate) fn insert(&mut self, key: &[u8], value: impl Into<sled::IVec>) {
        let value = value.into();
        self.bytes += value.len() + KEY_BYTES;
        self.ops.insert(key, value);
    }

    /// Removes `key`.
    pub(crate) fn remove(&mut self, key: &[u8]) {
        self.bytes += KEY_BYTES;
        self.ops.remove(key);
    }

    /// The tree, as it was before this portion.
    pub(crate) const fn tree(&self) -> &'a sled::Tree {
        self.tree
    }

    /// Puts `bytes` into slots and returns the first.
    pub(crate) fn put_in_slots(&mut self, bytes: Vec<u8>) -> u64 {
        self.bytes += bytes.len() + KEY_BYTES;
        self.arena.put(&mut self.ops, bytes)
    }

    /// Empties slots.
    pub(crate) fn free_slots(&mut self, first: u64, body_bytes: u64) {
        Arena::free(&mut self.ops, first, body_bytes);
    }
}

impl Changes for Portion<'_> {
    fn put(&mut self, values: Vec<Vec<u8>>) -> u64 {
        // Nobody else assigns slots in between.
        let slots = values.into_iter().map(|value| self.put_in_slots(value));
        slots.min().unwrap_or_default()
    }

    fn free(&mut self, first: u64, count: u64) {
        self.free_slots(first, count * SLOT_BYTES_MAX as u64);
    }

    fn insert(&mut self, key: &[u8], value: Vec<u8>) {
        Self::insert(self, key, value);
    }

    fn remove(&mut self, key: &[u8]) {
        Self::remove(self, key);
    }
}
