//! The blocks of a log file, and how a changed block is distinguished from one that is not there.
//!
//! ```text
//! crc32     4   over the rest, begun with a seed from generation, file number and life
//! life      4   of the file: random, another one for each use of it; never zero
//! frame     8   number of the frame
//! index     4   which block of the frame it is, from 0
//! payload   492
//! ```
//!
//! Numbers are big-endian. A block with another life is from an earlier use of the file, or zeros: it counts as absent.
//! A block with this life and a wrong sum was changed. A single changed bit can be found, because each bit changes the
//! sum in a way that no other does; the same holds for a life that was changed in any way.

use super::Generation;
pub(super) use crate::storage::slot::BLOCK_BYTES;
use crate::storage::slot::{put_right, sum, u32_at, u64_at};

pub(super) const HEAD_BYTES: usize = 20;
pub(super) const PAYLOAD_BYTES: usize = BLOCK_BYTES - HEAD_BYTES;

const LIFE: std::ops::Range<usize> = 4..8;

/// What makes a block belong to this use of this file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seal {
    life: u32,
    seed: u32,
    first: u64,
}

/// What is at a place in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Block {
    /// An unchanged block.
    Whole(Label),
    /// A block that was changed; it has been repaired.
    Repaired(Label),
    /// A block that was changed, and cannot be repaired.
    Changed,
    /// The disk cannot read it.
    Unreadable,
    /// No block.
    Absent,
}

/// Which block it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Label {
    pub(super) frame: u64,
    pub(super) index: u32,
}

impl Seal {
    /// For a file whose first frame is `first`.
    pub(super) fn new(generation: Generation, file: u64, life: u32, first: u64) -> Self {
        let mut sum = crc32fast::Hasher::new();
        sum.update(&generation.0);
        sum.update(&file.to_be_bytes());
        sum.update(&life.to_be_bytes());
        Self { life, seed: sum.finalize(), first }
    }

    /// Completes the head of `block`, which already has its label.
    pub(super) fn close(self, block: &mut [u8]) {
        block[LIFE].copy_from_slice(&self.life.to_be_bytes());
        let sum = sum(self.seed, block);
        block[..4].copy_from_slice(&sum.to_be_bytes());
    }

    /// Determines what `block` is. Repairs it if it was changed and that is possible.
    pub(super) fn check(self, block: &mut [u8]) -> Block {
        let difference = sum(self.seed, block) ^ u32_at(block, 0);
        let life = u32_at(block, LIFE.start);
        if life == self.life && difference == 0 {
            return Block::Whole(Label::of(block));
        }
        if life == self.life {
            // The life is part of the seed: if the rest of the block is correct, it cannot be wrong.
            let right = put_right(block, difference) && u32_at(block, LIFE.start) == self.life;
            return if right { Block::Repaired(Label::of(block)) } else { Block::Changed };
        }
        block[LIFE].copy_from_slice(&self.life.to_be_bytes());
        let label = Label::of(block);
        // Blocks of earlier lives have lower numbers: fewer than one in four billion of them is mistaken for one of
        // this life.
        if label.frame >= self.first && sum(self.seed, block) == u32_at(block, 0) {
            return Block::Repaired(label);
        }
        block[LIFE].copy_from_slice(&life.to_be_bytes());
        Block::Absent
    }
}

impl Label {
    /// Writes it into the head of `block`.
    pub(super) fn put(self, block: &mut [u8]) {
        block[8..16].copy_from_slice(&self.frame.to_be_bytes());
        block[16..20].copy_from_slice(&self.index.to_be_bytes());
    }

    fn of(block: &[u8]) -> Self {
        Self { frame: u64_at(block, 8), index: u32_at(block, 16) }
    }
}
