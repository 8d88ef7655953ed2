//! What happens after a failed checkpoint: sled is closed and opened again from the state of the disk.
//!
//! Keeps: what was durable can still be read, first from the old sled, then from the new one; nothing is written before
//! the disk was seen to accept a write and has space. Tries for as long as necessary.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::Checkpointer;
use crate::storage::sled::compact;
use crate::storage::sled::files::is_full;
use crate::storage::sled::options::OpenFailure;
use crate::storage::sled::segments::Arena;
use crate::storage::sled::steps::{self, Step};
use crate::storage::sled::tree::{self, Facts, Trees};

const DELAY_MIN: Duration = Duration::from_millis(50);
const DELAY_MAX: Duration = Duration::from_secs(5);
/// How long a reader may keep its tree while sled has to be closed.
const READERS_WAIT_MAX: Duration = Duration::from_secs(10);
const READERS_POLL: Duration = Duration::from_millis(1);

impl Checkpointer {
    /// Opens sled again, as soon as the disk permits; false once the thread has to end.
    pub(super) fn recover(&mut self, cause: &io::Error) -> bool {
        if self.compaction.is_some() {
            let why = format!("what it is made of failed: {cause}");
            self.end_compaction(Err(OpenFailure::Refused(why)));
        }
        let mut reopening = Reopening { checkpointer: self, closing: None, full: is_full(cause) };
        let mut delay = DELAY_MIN;
        loop {
            if reopening.checkpointer.shared.signal.wait_for_end(delay) {
                if let Err(error) = reopening.close() {
                    log::warn!("closing the database: {error}");
                }
                return false;
            }
            match reopening.attempt() {
                Ok(()) => {
                    log::info!("the database is open again");
                    return true;
                }
                Err(error) => {
                    reopening.full = is_full(&error);
                    log::warn!("the database is not open again yet: {error}");
                    // Otherwise nobody would do it while this continues.
                    let shared = &reopening.checkpointer.shared;
                    shared.health.look(&shared.files, &shared.options);
                }
            }
            delay = (delay * 2).min(DELAY_MAX);
        }
    }
}

struct Reopening<'a> {
    checkpointer: &'a mut Checkpointer,
    /// The sled from before the failure, once readers no longer get it but may still hold it.
    closing: Option<Arc<Trees>>,
    /// Whether the last error was that the disk is full.
    full: bool,
}

impl Reopening<'_> {
    fn attempt(&mut self) -> io::Result<()> {
        let shared = self.checkpointer.shared.clone();
        let files = &shared.files;
        if self.full {
            files.drop_ballast()?;
        }
        steps::take(shared.faults(), Step::Probe, || files.probe())?;
        // With a smaller copy there will be more.
        if !compact::is_complete(files)? && !files.has_room()? {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.close()?;
        compact::finish(files, shared.faults())?;
        files.forget_cached()?;
        let generation = shared.access.next_generation();
        let (trees, arena) = steps::take(shared.faults(), Step::Reopen, || {
            let trees = tree::open(files, &shared.options, generation)?;
            let arena = Arena::open(trees.log())?;
            let facts = Facts::read_or_make(&trees, files)?;
            if facts.checkpoint.is_none_or(|position| position < self.checkpointer.position.0) {
                let finding = "sled came back with less than it had";
                return Err(io::Error::new(io::ErrorKind::InvalidData, finding));
            }
            Ok((trees, arena))
        })?;
        self.checkpointer.arena = arena;
        shared.access.reopened(trees);
        if let Err(error) = files.make_ballast() {
            log::warn!("reserving disk space: {error}");
        }
        Ok(())
    }

    /// Closes the failed sled, once nobody reads from it any more.
    fn close(&mut self) -> io::Result<()> {
        let taken = self.closing.take().or_else(|| self.checkpointer.shared.access.take());
        let Some(trees) = taken else { return Ok(()) };
        match alone_or_back(trees) {
            Ok(trees) => {
                if let Err(error) = tree::close(trees) {
                    log::warn!("closing the database that failed: {error}");
                }
                Ok(())
            }
            Err(trees) => {
                self.closing = Some(trees);
                Err(still_read())
            }
        }
    }
}

/// Waits until nobody else holds `trees`.
pub(super) fn alone(trees: Arc<Trees>) -> io::Result<Trees> {
    alone_or_back(trees).map_err(|_| still_read())
}

fn alone_or_back(mut trees: Arc<Trees>) -> Result<Trees, Arc<Trees>> {
    let mut waited = Duration::ZERO;
    loop {
        match Arc::try_unwrap(trees) {
            Ok(trees) => return Ok(trees),
            Err(shared) if waited >= READERS_WAIT_MAX => return Err(shared),
            Err(shared) => trees = shared,
        }
        std::thread::sleep(READERS_POLL);
        waited += READERS_POLL;
    }
}

fn still_read() -> io::Error {
    io::Error::new(io::ErrorKind::ResourceBusy, "a reader does not release the database")
}
