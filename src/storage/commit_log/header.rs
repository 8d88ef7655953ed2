//! What a log file says about itself, in its first block and again in its last one.
//!
//! ```text
//! crc32        4   over the rest
//! magic        8   "evlogwal"
//! version      4   1; 2 if the file was named ahead of time, and is not begun
//! generation  16
//! file         8   its number, which its name has too
//! life         4   of the file, see `block`
//! blocks       4   how many it has, these two included
//! first        8   the number of its first frame; frames from here on in earlier files are void
//! time         8   of the frame before that one
//! zeros
//! ```
//!
//! A file that is not begun has no frames, and does not say where the log is: its `first` and `time` are zero. To begin
//! it means to write both places once more, which needs no new name.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::block::{BLOCK_BYTES, Seal};
use super::{DamageKind, Generation, Position};
use crate::storage::direct::{self, Aligned};
use crate::storage::slot::{self, u32_at, u64_at};

const MAGIC: &[u8; 8] = b"evlogwal";
pub(super) const VERSION: u32 = 1;
const NOT_BEGUN: u32 = 2;
const SEED: u32 = 0;

/// The header of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) generation: Generation,
    pub(super) file: u64,
    pub(super) life: u32,
    pub(super) blocks: u32,
    pub(super) first: Position,
    pub(super) time: u64,
}

/// Why a file has no valid header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoHeader {
    Damaged(DamageKind),
    Version(u32),
    /// It was named ahead of time, and has no frames.
    NotBegun,
}

impl Header {
    pub(super) fn seal(&self) -> Seal {
        Seal::new(self.generation, self.file, self.life, self.first.0)
    }

    /// The place after the last block that can belong to a frame.
    pub(super) fn end(&self) -> u32 {
        self.blocks - 1
    }

    /// How long the file has to be.
    pub(super) fn file_bytes(&self) -> u64 {
        u64::from(self.blocks) * BLOCK_BYTES as u64
    }

    /// Writes it to both places, without a sync.
    pub(super) fn write(&self, file: &File) -> io::Result<()> {
        self.write_block(&self.encode(VERSION), file)
    }

    /// Writes to both places, without a sync, that the file is not begun.
    pub(super) fn write_not_begun(&self, file: &File) -> io::Result<()> {
        self.write_block(&self.encode(NOT_BEGUN), file)
    }

    /// Writes it to both places of a file that was opened for writes without the page cache, each on disk when it
    /// returns; false if that is not possible.
    pub(super) fn write_past_cache(&self, direct: &File) -> io::Result<bool> {
        let mut block = Aligned::default();
        block.reset(BLOCK_BYTES);
        block.extend(&self.encode(VERSION));
        for place in self.places() {
            if !direct::write(direct, &block, place)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn write_block(&self, block: &[u8], file: &File) -> io::Result<()> {
        self.places().into_iter().try_for_each(|place| file.write_all_at(block, place))
    }

    fn places(&self) -> [u64; 2] {
        [0, u64::from(self.end()) * BLOCK_BYTES as u64]
    }

    /// Reads the header of file number `number`, from whichever place has it.
    pub(super) fn read(
        file: &File,
        number: u64,
        generation: Generation,
    ) -> io::Result<Result<Self, NoHeader>> {
        let blocks = file.metadata()?.len() / BLOCK_BYTES as u64;
        let mut fault = NoHeader::Damaged(DamageKind::Header);
        for place in [0, blocks.saturating_sub(1)] {
            let mut block = [0; BLOCK_BYTES];
            // Too short, or unreadable: the other place may have it.
            if file.read_exact_at(&mut block, place * BLOCK_BYTES as u64).is_err() {
                continue;
            }
            let decoded = Self::decode(&mut block);
            let version = u32_at(&block, 12);
            match decoded {
                Ok(header) if header.generation != generation => {
                    fault = NoHeader::Damaged(DamageKind::Foreign);
                }
                Ok(header) if header.file == number && header.blocks > 2 => {
                    if version == VERSION {
                        return Ok(Ok(header));
                    }
                    // The other place may say that it was begun.
                    fault = NoHeader::NotBegun;
                }
                Ok(_) | Err(NoHeader::Damaged(_)) => {}
                Err(version) => fault = version,
            }
        }
        Ok(Err(fault))
    }

    fn encode(&self, version: u32) -> [u8; BLOCK_BYTES] {
        let mut block = [0; BLOCK_BYTES];
        block[4..12].copy_from_slice(MAGIC);
        block[12..16].copy_from_slice(&version.to_be_bytes());
        block[16..32].copy_from_slice(&self.generation.0);
        block[32..40].copy_from_slice(&self.file.to_be_bytes());
        block[40..44].copy_from_slice(&self.life.to_be_bytes());
        block[44..48].copy_from_slice(&self.blocks.to_be_bytes());
        block[48..56].copy_from_slice(&self.first.0.to_be_bytes());
        block[56..64].copy_from_slice(&self.time.to_be_bytes());
        slot::close(&mut block, SEED);
        block
    }

    fn decode(block: &mut [u8; BLOCK_BYTES]) -> Result<Self, NoHeader> {
        if !slot::check(block, SEED) || block[4..12] != *MAGIC {
            return Err(NoHeader::Damaged(DamageKind::Header));
        }
        let version = u32_at(block, 12);
        if ![VERSION, NOT_BEGUN].contains(&version) {
            return Err(NoHeader::Version(version));
        }
        let mut generation = [0; 16];
        generation.copy_from_slice(&block[16..32]);
        Ok(Self {
            generation: Generation(generation),
            file: u64_at(block, 32),
            life: u32_at(block, 40),
            blocks: u32_at(block, 44),
            first: Position(u64_at(block, 48)),
            time: u64_at(block, 56),
        })
    }
}
