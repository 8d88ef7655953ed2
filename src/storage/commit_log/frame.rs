//! A frame: a run of blocks that counts as a whole or not at all. Its first block's payload begins with
//!
//! ```text
//! length    8   bytes of the body
//! time      8   milliseconds since 1970, never below that of the frame before
//! sum       8   over index and payload of all blocks, the first one last and with zeros here
//! body
//! ```
//!
//! The sum is of a different kind from that of a block: a repair that made a block worse does not pass it.

use super::Position;
use super::block::{BLOCK_BYTES, HEAD_BYTES, Label, PAYLOAD_BYTES, Seal};
use crate::storage::direct::Aligned;
use crate::storage::slot::u64_at;

/// Bytes of a frame's first payload before the body.
const PREFIX_BYTES: usize = 24;
const SUM_AT: usize = HEAD_BYTES + 16;
const BODY_AT: usize = HEAD_BYTES + PREFIX_BYTES;

/// The longest body, in bytes.
pub(crate) const BODY_BYTES_MAX: u64 = 1 << 30;

/// The largest buffer that is kept for the next frame, in bytes.
const KEPT_BYTES_MAX: usize = 16 << 20;

/// A frame that is being written in memory; made by `LogWriter::frame`.
#[derive(Debug)]
pub(crate) struct Frame {
    /// What is written, with space for the heads: every block but the last is complete.
    blocks: Aligned,
    body_bytes: u64,
    file: u64,
}

impl Frame {
    /// An empty frame for `file`, in `buffer`, with space for `blocks`.
    pub(super) fn new(mut buffer: Aligned, blocks: u64, file: u64) -> Self {
        buffer.reset(blocks as usize * BLOCK_BYTES);
        buffer.resize(BODY_AT);
        Self { blocks: buffer, body_bytes: 0, file }
    }

    /// The number of the file that it goes to.
    pub(crate) fn file(&self) -> u64 {
        self.file
    }

    /// Adds `bytes` to the body.
    pub(crate) fn write(&mut self, mut bytes: &[u8]) {
        self.body_bytes += bytes.len() as u64;
        while !bytes.is_empty() {
            let used = self.blocks.len() % BLOCK_BYTES;
            if used == 0 {
                self.blocks.extend(&[0; HEAD_BYTES]);
                continue;
            }
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK_BYTES - used));
            self.blocks.extend(now);
            bytes = later;
        }
    }

    /// Completes it for writing, and returns its bytes.
    pub(super) fn close(&mut self, seal: Seal, position: Position, time: u64) -> &[u8] {
        self.blocks.resize(self.blocks.len().next_multiple_of(BLOCK_BYTES));
        let label = |index| Label { frame: position.0, index };
        let (first, rest) = self.blocks.split_at_mut(BLOCK_BYTES);
        let mut sum = FrameSum::new(position);
        for (index, block) in (1..).zip(rest.chunks_exact_mut(BLOCK_BYTES)) {
            label(index).put(block);
            sum.add(block);
            seal.close(block);
        }
        first[HEAD_BYTES..][..8].copy_from_slice(&self.body_bytes.to_be_bytes());
        first[HEAD_BYTES + 8..][..8].copy_from_slice(&time.to_be_bytes());
        first[SUM_AT..BODY_AT].fill(0);
        label(0).put(first);
        sum.add(first);
        first[SUM_AT..BODY_AT].copy_from_slice(&sum.0.to_be_bytes());
        seal.close(first);
        &self.blocks
    }

    /// The bytes of its body, in parts. It has to be closed.
    pub(super) fn body(&self) -> impl Iterator<Item = &[u8]> {
        let mut left = self.body_bytes as usize;
        let starts = std::iter::once(BODY_AT).chain(std::iter::repeat(HEAD_BYTES));
        self.blocks.chunks_exact(BLOCK_BYTES).zip(starts).map(move |(block, start)| {
            let part = &block[start..];
            let part = &part[..part.len().min(left)];
            left -= part.len();
            part
        })
    }

    /// The length of its body in bytes.
    pub(super) fn body_bytes(&self) -> u64 {
        self.body_bytes
    }

    /// How many blocks it takes.
    pub(super) fn blocks(&self) -> u64 {
        blocks_for(self.body_bytes)
    }

    /// Returns its buffer, for the next frame.
    pub(super) fn into_buffer(mut self) -> Aligned {
        self.blocks.shrink(KEPT_BYTES_MAX);
        self.blocks
    }
}

/// How many blocks a frame with a body of `bytes` takes.
pub(super) fn blocks_for(bytes: u64) -> u64 {
    (bytes + PREFIX_BYTES as u64).div_ceil(PAYLOAD_BYTES as u64)
}

/// Takes a frame apart, block by block.
pub(super) struct Taking {
    first: [u8; BLOCK_BYTES],
    sum: FrameSum,
    body_bytes: u64,
}

impl Taking {
    /// Begins with the first block, which has been checked; clears `body`, and puts the block's part into it.
    pub(super) fn begin(block: &[u8], position: Position, body: &mut Vec<u8>) -> Option<Self> {
        let body_bytes = u64_at(block, HEAD_BYTES);
        if body_bytes > BODY_BYTES_MAX {
            return None;
        }
        let mut first = [0; BLOCK_BYTES];
        first.copy_from_slice(block);
        body.clear();
        body.extend_from_slice(&block[BODY_AT..]);
        Some(Self { first, sum: FrameSum::new(position), body_bytes })
    }

    /// How many blocks the frame has.
    pub(super) fn blocks(&self) -> u64 {
        blocks_for(self.body_bytes)
    }

    /// Adds the next block, which has been checked.
    pub(super) fn add(&mut self, block: &[u8], body: &mut Vec<u8>) {
        self.sum.add(block);
        body.extend_from_slice(&block[HEAD_BYTES..]);
    }

    /// The frame's time, if all blocks were written together.
    pub(super) fn end(mut self, body: &mut Vec<u8>) -> Option<u64> {
        let sum = u64_at(&self.first, SUM_AT);
        self.first[SUM_AT..BODY_AT].fill(0);
        self.sum.add(&self.first);
        body.truncate(self.body_bytes as usize);
        (self.sum.0 == sum).then(|| u64_at(&self.first, HEAD_BYTES + 8))
    }
}

/// The sum over a frame: `wyhash`'s step, sixteen bytes at a time.
struct FrameSum(u64);

impl FrameSum {
    fn new(position: Position) -> Self {
        Self(position.0)
    }

    fn add(&mut self, block: &[u8]) {
        let number = |bytes: &[u8]| {
            let mut number = [0; 8];
            number.copy_from_slice(bytes);
            u64::from_le_bytes(number)
        };
        // Index and payload: 31 times sixteen bytes.
        for pair in block[16..].chunks_exact(16) {
            let (left, right) = pair.split_at(8);
            let product = u128::from(number(left) ^ 0xa076_1d64_78bd_642f)
                * u128::from(number(right) ^ 0xe703_7ed1_a0b4_28db ^ self.0);
            self.0 = (product as u64) ^ (product >> 64) as u64;
        }
    }
}
