//! Sled itself: its trees, and how it is opened, synced and closed.

mod access;
mod facts;
mod flush;
mod stores;

pub(super) use access::Access;
pub(super) use facts::{Facts, apply_changing, apply_checkpoint, apply_identity};
pub(super) use stores::{store_record, store_records};

use std::any::Any;
use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use super::files::{Files, is_full};
use super::keyspace::Keyspace;
use super::options::{DatabaseOptions, OpenFailure};

/// The unit in which sled lays out its log, in bytes. At most a quarter of it stays in the log; a page full of values
/// of [`VALUE_BYTES_MAX`](super::VALUE_BYTES_MAX) is smaller. Persisted: sled refuses another one.
pub const LOG_UNIT_BYTES: usize = 4 << 20;

/// How long threads of an earlier sled in this process may hold its lock.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(5);
const LOCK_POLL: Duration = Duration::from_millis(1);

/// Sled, opened once.
pub(crate) struct Trees {
    db: sled::Db,
    all: Vec<sled::Tree>,
    /// The file that sled writes to.
    file: File,
    /// Counts how often this process opened it.
    pub(crate) generation: u64,
}

impl Trees {
    pub(crate) fn get(&self, keyspace: Keyspace) -> &sled::Tree {
        &self.all[keyspace.index()]
    }

    pub(crate) fn log(&self) -> &sled::Tree {
        self.get(Keyspace::Log)
    }

    /// Hands sled's buffers to the kernel.
    pub(crate) fn flush(&self) -> io::Result<()> {
        flush::flush(&self.db, self.get(Keyspace::Meta))
    }

    /// Makes the kernel hand them to the disk.
    pub(crate) fn sync(&self, files: &Files) -> io::Result<()> {
        files.sync_log(&self.file)
    }
}

/// Opens sled for the first time in this process; on a full disk, after removing the ballast.
pub(super) fn open_first(
    files: &Files,
    options: &DatabaseOptions,
) -> Result<(Trees, Facts), OpenFailure> {
    let opened = match open(files, options, 0) {
        Err(OpenFailure::Io(error)) if is_full(&error) => {
            log::warn!(
                "the disk is full: freeing the reserved space (ballast_bytes) to open the database"
            );
            files.drop_ballast().map_err(OpenFailure::Io).and_then(|()| open(files, options, 0))
        }
        opened => opened,
    };
    let trees = opened?;
    let facts = Facts::read_or_make(&trees, files)?;
    if let Err(error) = files.make_ballast() {
        log::warn!("reserving disk space: {error}");
    }
    Ok((trees, facts))
}

/// Opens sled and syncs what it wrote meanwhile.
pub(super) fn open(
    files: &Files,
    options: &DatabaseOptions,
    generation: u64,
) -> Result<Trees, OpenFailure> {
    let config = sled::Config::new()
        .path(files.database())
        .cache_capacity(options.cache_bytes)
        .segment_size(LOG_UNIT_BYTES)
        // Its timer swallows errors.
        .flush_every_ms(None)
        .mode(sled::Mode::HighThroughput);
    let db = open_unlocked(&config)?;
    let all = Keyspace::ALL
        .iter()
        .map(|keyspace| db.open_tree(keyspace.name()))
        .collect::<Result<Vec<_>, _>>()?;
    db.flush()?;
    // What a process wrote before it was killed shows now; it is served only once it is on disk.
    files.sync_all()?;
    let file = File::options().read(true).write(true).open(files.database_log())?;
    Ok(Trees { db, all, file, generation })
}

/// Opens sled, once the threads of an earlier one in this process have released it. Our own lock keeps others out.
fn open_unlocked(config: &sled::Config) -> Result<sled::Db, OpenFailure> {
    let deadline = Instant::now() + LOCK_WAIT_MAX;
    loop {
        // Sled asserts some of what it expects to find.
        let opened = catch_unwind(AssertUnwindSafe(|| config.open()))
            .map_err(|panic| OpenFailure::Corrupt(message_of(panic.as_ref())))?;
        match opened {
            Err(sled::Error::Io(error))
                if error.to_string().contains("could not acquire lock")
                    && Instant::now() < deadline =>
            {
                std::thread::sleep(LOCK_POLL);
            }
            opened => return Ok(opened?),
        }
    }
}

/// Runs code that reads sled, which asserts some of what it expects to find.
pub(super) fn guarded<T>(read: impl FnOnce() -> Result<T, OpenFailure>) -> Result<T, OpenFailure> {
    catch_unwind(AssertUnwindSafe(read))
        .unwrap_or_else(|panic| Err(OpenFailure::Corrupt(message_of(panic.as_ref()))))
}

/// Closes sled. It flushes and syncs once more, and panics if that fails.
pub(super) fn close(trees: Trees) -> io::Result<()> {
    catch_unwind(AssertUnwindSafe(|| drop(trees)))
        .map_err(|panic| io::Error::other(message_of(panic.as_ref())))
}

/// The message of a panic.
pub(super) fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("it panicked").to_owned()
}
