//! The log behind an acknowledgement: frames of bytes, one after the other, each synced before the next.
//!
//! Keeps: an appended frame is returned after any crash, whole and in its place; bytes that were not appended are never
//! returned; what is missing or was changed on disk is reported as a [`LogDamage`], with the frames it affects, and is
//! never mistaken for the end of the log. Leaves out: what is in a frame, and what was made of it elsewhere
//! (`storage::sled`).
//!
//! ```text
//! log/00000017.log   an array of blocks of 512 bytes, of a fixed size (`header`, `block`, `frame`)
//! log/acked          how far the log reached a moment ago (`acked`)
//! log/spare-3        a file made ahead of time
//! ```
//!
//! [`create`] begins a log, [`open`] continues one. Each open begins a new file, so that nothing is ever written after
//! something whose state is in doubt. The two handles are [`LogWriter`], for the one thread that commits, and
//! [`LogFiles`], for the one that cleans up behind it.

mod acked;
mod block;
mod damage;
mod files;
mod finished;
mod folder;
mod frame;
mod header;
mod open;
mod reuse;
mod scan;
mod seam;
#[cfg(test)]
mod tests;
mod verify;
mod walk;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;

pub(crate) use damage::{DamageKind, LogDamage, LogError};
pub(crate) use files::LogFiles;
pub(crate) use finished::FinishedFile;
pub(crate) use frame::{BODY_BYTES_MAX, Frame};
pub(crate) use open::{Found, FoundFrame, Log, create, exists, open};
pub(crate) use seam::{Fault, LogStep, Seam};
pub(crate) use verify::{Read, read, read_running};
pub(crate) use writer::{Appended, LogWriter, Salvaged};

/// The number of a frame: 1, 2, 3 and so on over the life of the directory. Zero is before the first.
///
/// The content of an acknowledged number never changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Position(pub(crate) u64);

impl Position {
    /// The position after this one.
    #[must_use]
    pub(crate) const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The position before this one; zero has none, and stays.
    #[must_use]
    pub(crate) const fn before(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

/// Where a frame of a file begins, or would begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The number of the frame.
    pub(crate) position: Position,
    /// The number of its first block.
    pub(crate) block: u32,
}

impl Place {
    /// That of the first frame of a file: behind the header.
    const fn first(position: Position) -> Self {
        Self { position, block: 1 }
    }
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Distinguishes the logs of two directories: random, and assigned to a directory when it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Generation(pub(crate) [u8; 16]);

/// Where a log is, and how it is kept.
#[derive(Clone)]
pub(crate) struct LogOptions {
    /// The folder of the log; it contains nothing else.
    pub(crate) folder: PathBuf,
    /// The generation of the directory that the log belongs to.
    pub(crate) generation: Generation,
    /// The size of a file, rounded up to whole blocks. A larger frame gets a file of its own size.
    pub(crate) file_bytes: u64,
    /// Most finished files that are kept for reuse.
    pub(crate) spares_max: usize,
    /// Makes steps fail, in tests.
    pub(crate) seam: Option<Arc<dyn Seam>>,
}

impl LogOptions {
    /// Files of 64 MiB, four of them kept for reuse.
    pub(crate) fn new(folder: PathBuf, generation: Generation) -> Self {
        Self { folder, generation, file_bytes: 64 << 20, spares_max: 4, seam: None }
    }
}
