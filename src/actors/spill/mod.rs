//! Where the parts of a set that is too large for memory wait on disk.
//!
//! Keeps: all sets together take no more space than allowed, nor more than half of the free space of the disk; those
//! that find none wait in the order of arrival; a key has one set at a time. Files do not outlive the process: they are
//! removed when the next one starts. Leaves out: which parts a set has, and how long it may be unfinished
//! (`session::rpc`).

mod file;
mod room;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

pub(crate) use self::file::SpillFile;
use self::room::Rooms;
pub(crate) use self::room::{Room, Waiting};
use crate::model::PublicKey;

/// The default share of a disk's free space for sets.
const FREE_SHARE: u64 = 4;

/// Parts of sets that wait for space are in memory, up to this many bytes for all sets together.
const WAITING_BYTES_MAX: usize = 32 * 1_024 * 1_024;

/// Most bytes that may be on their way to the disk; beyond that, clients that send parts are not read from.
const WRITING_BYTES_MAX: usize = 64 * 1_024 * 1_024;

/// A set that will never have space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a write in parts takes {bytes} bytes of disk, at most {bytes_max} are allowed (spill_bytes_max)"
)]
pub(crate) struct TooLarge {
    pub(crate) bytes: u64,
    pub(crate) bytes_max: u64,
}

/// See the module's description.
pub(crate) struct Spill {
    directory: PathBuf,
    bytes_max: u64,
    rooms: Mutex<Rooms>,
    /// Bytes in memory of sets that wait for space.
    waiting_bytes: Arc<AtomicUsize>,
    /// Bytes on their way to the disk.
    writing_bytes: Arc<AtomicUsize>,
    files: AtomicU64,
}

impl Spill {
    /// In `directory`, which is created if missing, and whose files are removed. By default, a quarter of the free space may be used.
    pub(crate) fn open(directory: &Path, bytes_max: Option<u64>) -> io::Result<Arc<Self>> {
        std::fs::create_dir_all(directory)?;
        for entry in std::fs::read_dir(directory)? {
            let path = entry?.path();
            // A disk of its own has `lost+found`.
            if !path.is_dir() {
                std::fs::remove_file(path)?;
            }
        }
        let bytes_max = match bytes_max {
            Some(bytes_max) => bytes_max,
            None => free_bytes(directory)? / FREE_SHARE,
        };
        Ok(Arc::new(Self {
            directory: directory.to_owned(),
            bytes_max,
            rooms: Mutex::default(),
            waiting_bytes: Arc::default(),
            writing_bytes: Arc::default(),
            files: AtomicU64::new(0),
        }))
    }

    /// Lines up for space for a set of `key`.
    pub(crate) fn enter(self: &Arc<Self>, key: PublicKey, bytes: u64) -> Result<Waiting, TooLarge> {
        if bytes > self.bytes_max {
            return Err(TooLarge { bytes, bytes_max: self.bytes_max });
        }
        Ok(Waiting::new(self, key, bytes))
    }

    /// Counts a part of a set that waits for space; `None` if there are too many.
    pub(crate) fn wait(&self, bytes: usize) -> Option<Counted> {
        let fits = self.waiting_bytes.load(Ordering::Relaxed) + bytes <= WAITING_BYTES_MAX;
        fits.then(|| Counted::new(&self.waiting_bytes, bytes))
    }

    /// Counts a part that is on its way to the disk.
    pub(crate) fn write(&self, bytes: usize) -> Counted {
        Counted::new(&self.writing_bytes, bytes)
    }

    /// Whether so much is on its way to the disk that no more is accepted.
    pub(crate) fn is_busy(&self) -> bool {
        self.writing_bytes.load(Ordering::Relaxed) >= WRITING_BYTES_MAX
    }

    /// How much space unfinished and uncommitted sets have now, and how many wait.
    pub(crate) fn figures(&self) -> (u64, usize) {
        self.rooms.lock().figures()
    }

    /// Half of the disk's free space belongs to others.
    fn disk_bytes(&self) -> u64 {
        // If the disk does not say, only the limit counts.
        free_bytes(&self.directory).map_or(u64::MAX, |free| free / 2)
    }

    fn path(&self) -> PathBuf {
        self.directory.join(self.files.fetch_add(1, Ordering::Relaxed).to_string())
    }
}

/// Bytes that are counted until it is dropped.
pub(crate) struct Counted {
    count: Arc<AtomicUsize>,
    bytes: usize,
}

impl Counted {
    pub(crate) fn new(count: &Arc<AtomicUsize>, bytes: usize) -> Self {
        count.fetch_add(bytes, Ordering::Relaxed);
        Self { count: Arc::clone(count), bytes }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.count.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

fn free_bytes(directory: &Path) -> io::Result<u64> {
    let space = rustix::fs::statvfs(directory)?;
    Ok(space.f_bavail.saturating_mul(space.f_frsize))
}

#[cfg(test)]
mod tests;
