//! What happens after a failed write: sled is closed and opened again from what the disk has.
//!
//! Keeps: what was durable is read on, first from the old sled, then from the new one; nothing is written before the
//! disk was seen to take a write and has room. Tries for as long as it takes.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::commit::Writer;
use super::files::is_full;
use super::shared::Shared;
use super::steps::{self, Step};
use super::trees::{self, Trees};

const DELAY_MIN: Duration = Duration::from_millis(50);
const DELAY_MAX: Duration = Duration::from_secs(5);
/// How long a reader may keep its tree while the database is to be closed.
const READERS_WAIT_MAX: Duration = Duration::from_secs(10);
const READERS_POLL: Duration = Duration::from_millis(1);

/// Opens sled again, as soon as the disk permits; `None` once the database is to be closed.
pub(super) fn reopen(shared: &Arc<Shared>, cause: &io::Error) -> Option<Writer> {
    let mut reopening = Reopening { shared, closing: None, generation: 0, full: is_full(cause) };
    let mut delay = DELAY_MIN;
    loop {
        if shared.wait_for_closing(delay) {
            if let Err(error) = reopening.close() {
                log::warn!("closing the database: {error}");
            }
            return None;
        }
        match reopening.attempt() {
            Ok(writer) => {
                shared.take_writes();
                log::info!("the database takes writes again");
                return Some(writer);
            }
            Err(error) => {
                reopening.full = is_full(&error);
                log::warn!("the database is not open for writing yet: {error}");
            }
        }
        delay = (delay * 2).min(DELAY_MAX);
    }
}

/// Closes sled for good.
pub(super) fn close(shared: &Shared) -> io::Result<()> {
    let trees = shared.take_trees();
    trees.map_or(Ok(()), |trees| trees::close(alone(trees).map_err(|_| still_read())?))
}

struct Reopening<'a> {
    shared: &'a Arc<Shared>,
    /// Sled from before the failure, once readers get it no more but may still hold it.
    closing: Option<Arc<Trees>>,
    /// Of the sled that failed.
    generation: u64,
    /// Whether the last error was that the disk is full.
    full: bool,
}

impl Reopening<'_> {
    fn attempt(&mut self) -> io::Result<Writer> {
        if !self.shared.is_open() {
            self.open()?;
        }
        if !self.shared.files.has_room()? {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Writer::open(self.shared)
    }

    fn open(&mut self) -> io::Result<()> {
        let (files, faults) = (&self.shared.files, self.shared.faults());
        if self.full {
            files.drop_ballast()?;
        }
        steps::take(faults, Step::Probe, || files.probe())?;
        self.close()?;
        files.forget_cached()?;
        let generation = self.generation + 1;
        let trees = steps::take(faults, Step::Reopen, || {
            Ok(trees::open(files, &self.shared.options, generation)?)
        })?;
        self.shared.reopened(trees);
        if let Err(error) = files.make_ballast() {
            log::warn!("setting disk space aside: {error}");
        }
        Ok(())
    }

    /// Closes the sled that failed, once nobody reads from it any more.
    fn close(&mut self) -> io::Result<()> {
        let Some(trees) = self.closing.take().or_else(|| self.shared.take_trees()) else {
            return Ok(());
        };
        self.generation = trees.generation;
        match alone(trees) {
            Ok(trees) => {
                if let Err(error) = trees::close(trees) {
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

/// Waits until nobody else has `trees`.
fn alone(mut trees: Arc<Trees>) -> Result<Trees, Arc<Trees>> {
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
    io::Error::new(io::ErrorKind::ResourceBusy, "a reader does not let go of the database")
}
