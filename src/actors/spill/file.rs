//! The file of one set.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use super::{Room, Spill};
use crate::protocol::rpc::large::{Source, Table};

/// How many numbers of a table are in memory; the others are on disk.
const TABLE_NUMBERS_MAX: usize = if cfg!(test) { 4 } else { 64 * 1_024 };
/// How many are written at once.
const TABLE_NUMBERS_WRITTEN: usize = if cfg!(test) { 3 } else { 8 * 1_024 };

/// The file of one set; it and its space are released when this is dropped.
pub(crate) struct SpillFile {
    file: Arc<File>,
    path: PathBuf,
    room: Mutex<Option<Room>>,
    spill: Arc<Spill>,
    bytes: AtomicU64,
}

impl SpillFile {
    /// An empty file. Waits for the disk.
    pub(crate) fn create(room: Room) -> io::Result<Self> {
        let spill = Arc::clone(room.spill());
        let path = spill.path();
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        let (file, room) = (Arc::new(file), Mutex::new(Some(room)));
        Ok(Self { file, path, room, spill, bytes: AtomicU64::new(0) })
    }

    /// Writes a part at its place. Waits for the disk.
    pub(crate) fn write(&self, at: u64, part: &Bytes) -> io::Result<()> {
        self.file.write_all_at(part, at)?;
        self.bytes.fetch_max(at + part.len() as u64, Ordering::Relaxed);
        if let Some(room) = &mut *self.room.lock() {
            room.used(part.len() as u64);
        }
        Ok(())
    }
}

impl Drop for SpillFile {
    /// Removing a large file takes a while, and a session has no time for that. The space is released afterwards.
    fn drop(&mut self) {
        let (path, room, file) =
            (std::mem::take(&mut self.path), self.room.lock().take(), Arc::clone(&self.file));
        let remove = move || {
            if let Err(error) = std::fs::remove_file(&path) {
                log::warn!("{} cannot be removed: {error}", path.display());
            }
            drop((file, room));
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(remove)),
            Err(_) => remove(),
        }
    }
}

impl Source for SpillFile {
    fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(into, at)
    }

    fn table(&self) -> io::Result<Box<dyn Table>> {
        Ok(Box::new(FileTable { spill: Arc::clone(&self.spill), first: Vec::new(), rest: None }))
    }
}

/// Numbers, the first of them in memory.
struct FileTable {
    spill: Arc<Spill>,
    first: Vec<u64>,
    rest: Option<Rest>,
}

struct Rest {
    file: File,
    written: u64,
    /// Not written yet.
    last: Vec<u64>,
}

impl Table for FileTable {
    fn push(&mut self, number: u64) -> io::Result<()> {
        if self.first.len() < TABLE_NUMBERS_MAX {
            self.first.push(number);
            return Ok(());
        }
        let rest = match &mut self.rest {
            Some(rest) => rest,
            None => self.rest.insert(Rest::create(&self.spill)?),
        };
        rest.last.push(number);
        if rest.last.len() == TABLE_NUMBERS_WRITTEN { rest.write() } else { Ok(()) }
    }

    fn get(&self, at: u64) -> io::Result<Option<u64>> {
        if let Some(number) = self.first.get(at)? {
            return Ok(Some(number));
        }
        let Some(rest) = &self.rest else { return Ok(None) };
        let at = at - self.first.len() as u64;
        if let Some(at) = at.checked_sub(rest.written) {
            return rest.last.get(at);
        }
        let mut number = [0; 8];
        rest.file.read_exact_at(&mut number, at * 8)?;
        Ok(Some(u64::from_le_bytes(number)))
    }
}

impl Rest {
    /// In a file without a name: it is gone when it is closed.
    fn create(spill: &Spill) -> io::Result<Self> {
        let path = spill.path();
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        std::fs::remove_file(&path)?;
        Ok(Self { file, written: 0, last: Vec::with_capacity(TABLE_NUMBERS_WRITTEN) })
    }

    fn write(&mut self) -> io::Result<()> {
        let bytes: Vec<u8> = self.last.iter().flat_map(|number| number.to_le_bytes()).collect();
        self.file.write_all_at(&bytes, self.written * 8)?;
        self.written += self.last.len() as u64;
        self.last.clear();
        Ok(())
    }
}
