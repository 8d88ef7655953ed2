//! A group: what is committed together, and what is given out while it is formed.
//!
//! Keeps: what is staged changes nothing before the group is applied, but for numbers, which are never given out twice
//! while the database is open. Leaves out: when groups are formed and made durable (`commit`), what stores put into
//! them (`log`).

use std::io;
use std::sync::Arc;

use super::arena::Arena;
use super::ends::{Ends, HeldEnd};
use super::key::{Ordinal, PackKey, SegmentKey};
use super::keyspace::Keyspace;
use super::ops::{Ops, VALUE_BYTES_MAX};
use super::places::Place;
use super::trees::Trees;
use super::value::pack::PackWriter;
use crate::model::{Segment, Sequence};

/// A group is closed once it holds so much, in bytes. Larger ones make no sync cheaper and delay its answers.
pub(super) const GROUP_BYTES_MAX: usize = 8 << 20;
/// So many stores are written out at once, at most, or twice as many as have something new in packs.
const WRITTEN_OUT_MIN: usize = 256;

/// What one group changes.
pub(super) struct Group<'a> {
    ops: Vec<(Keyspace, Ops)>,
    log: Ops,
    bytes: usize,
    /// The pack that the next small append goes into.
    pack: Option<(Arc<Place>, PackWriter)>,
    packed: usize,
    /// Ends of stores that were written out because packs held too much.
    written_out: Vec<HeldEnd>,
    position: &'a mut Position,
    trees: &'a Trees,
}

/// A group, ready to be applied.
pub(super) struct Changes {
    /// What changes in each tree.
    pub(super) ops: Vec<(Keyspace, Ops)>,
    /// What was written out of packs, for [`HeldEnd::moved`] once it is applied.
    pub(super) written_out: Vec<HeldEnd>,
}

/// What the commit thread alone gives out.
pub(super) struct Position {
    arena: Arena,
    next_ordinal: Ordinal,
    packs_bytes_max: u64,
}

impl Position {
    /// Finds out where to go on; packs may hold `packs_bytes_max` bytes.
    pub(super) fn open(trees: &Trees, packs_bytes_max: u64) -> io::Result<Self> {
        let tree = trees.log();
        let malformed = || io::Error::new(io::ErrorKind::InvalidData, "malformed segment key");
        let segments = SegmentKey::of_store(0, Sequence::FIRST, Sequence::FIRST).start().to_vec()
            ..=SegmentKey::of_store(Ordinal::MAX, Sequence::MAX, Sequence::MAX).end().to_vec();
        let in_segments = match tree.range(segments).next_back().transpose()? {
            Some((key, _)) => Some(SegmentKey::parse(&key).ok_or_else(malformed)?.ordinal),
            None => None,
        };
        let next_ordinal = in_segments.max(trees.ends().ordinal_max()).map_or(0, |max| max + 1);
        Ok(Self { arena: Arena::open(tree)?, next_ordinal, packs_bytes_max })
    }

    /// Makes empty slots for what was staged, see [`Arena::place`].
    pub(super) fn place_slots(&mut self, tree: &sled::Tree) -> io::Result<()> {
        self.arena.place(tree)
    }
}

impl<'a> Group<'a> {
    pub(super) fn new(position: &'a mut Position, trees: &'a Trees) -> Self {
        Self {
            ops: Vec::new(),
            log: Ops::default(),
            bytes: 0,
            pack: None,
            packed: 0,
            written_out: Vec::new(),
            position,
            trees,
        }
    }

    /// Whether it holds as much as it may.
    pub(super) const fn is_full(&self) -> bool {
        self.bytes >= GROUP_BYTES_MAX
    }

    /// Nothing more is staged.
    pub(super) fn finish(mut self) -> Changes {
        self.close_pack();
        self.write_out();
        while let Some(number) = self.ends().places().superfluous() {
            self.remove(&PackKey::new(number).to_bytes());
        }
        self.ops.push((Keyspace::Log, self.log));
        Changes { ops: self.ops, written_out: self.written_out }
    }

    /// Sets `key` to `value` in the log's tree.
    pub(super) fn insert(&mut self, key: &[u8], value: impl Into<sled::IVec>) {
        let value = value.into();
        self.bytes += value.len();
        self.log.insert(key, value);
    }

    /// Removes `key` from the log's tree.
    pub(super) fn remove(&mut self, key: &[u8]) {
        self.log.remove(key);
    }

    /// The log's tree, as it was before this group.
    pub(super) fn tree(&self) -> &sled::Tree {
        self.trees.log()
    }

    /// Puts `bytes` into slots and returns the first.
    pub(super) fn put_in_slots(&mut self, bytes: Vec<u8>) -> u64 {
        self.bytes += bytes.len();
        self.position.arena.put(&mut self.log, bytes)
    }

    /// Empties slots.
    pub(super) fn free_slots(&mut self, first: u64, body_bytes: u64) {
        Arena::free(&mut self.log, first, body_bytes);
    }

    /// The ends of stores.
    pub(super) fn ends(&self) -> &'a Arc<Ends> {
        self.trees.ends()
    }

    /// Puts `piece`, of the store with this ordinal, into a pack. The pack is kept for as long as its place is.
    pub(super) fn put_in_pack(&mut self, ordinal: Ordinal, piece: &Segment) -> Arc<Place> {
        self.packed += 1;
        self.bytes += piece.records().len();
        if let Some((place, pack)) = &mut self.pack
            && pack.push(ordinal, piece, VALUE_BYTES_MAX)
        {
            return place.clone();
        }
        self.close_pack();
        let (place, mut pack) = (Arc::new(self.ends().places().take()), PackWriter::new());
        // Larger than it may be is only a piece that is larger than any.
        pack.push(ordinal, piece, usize::MAX);
        self.pack = Some((place.clone(), pack));
        place
    }

    fn close_pack(&mut self) {
        let Some((place, pack)) = self.pack.take() else { return };
        let value = pack.finish();
        place.fill(value.len());
        self.log.insert(&PackKey::new(place.number()).to_bytes(), value);
    }

    /// Keeps packs from holding too much: writes out the stores that have had something in them for longest.
    fn write_out(&mut self) {
        let over = self.ends().places().used_bytes().saturating_sub(self.position.packs_bytes_max);
        if over == 0 {
            return;
        }
        let mut bytes = 0;
        for end in self.ends().oldest(WRITTEN_OUT_MIN.max(self.packed * 2)) {
            if bytes >= over {
                break;
            }
            let written = end.layout.lock().write_out(&end, self);
            match written {
                Ok(written) => bytes += written,
                Err(error) => {
                    log::error!("a store stays in packs, it cannot be read: {error}");
                    self.ends().give_up(&end);
                }
            }
            self.written_out.push(end);
        }
    }

    /// The number for a store that has none yet.
    pub(super) fn new_ordinal(&mut self) -> Ordinal {
        let ordinal = self.position.next_ordinal;
        self.position.next_ordinal += 1;
        ordinal
    }

    /// Adds `ops`, of a tree other than the log's or besides what stores write.
    pub(super) fn add(&mut self, keyspace: Keyspace, ops: Ops) {
        match self.ops.iter_mut().find(|(present, _)| *present == keyspace) {
            Some((_, present)) => present.extend(ops),
            None => self.ops.push((keyspace, ops)),
        }
    }
}
