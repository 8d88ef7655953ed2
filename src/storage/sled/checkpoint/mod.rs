//! The only thread that writes to sled. From time to time, it copies the content of the commit log there, one portion
//! at a time.
//!
//! Keeps: a portion is in sled whole or not at all, and stays in memory until sled was synced; the position of a
//! checkpoint is written once everything up to it is there. After a failed write, sled is opened again before the next
//! one, and writers continue meanwhile. Leaves out: what is in a frame of the log (`record`), how entries are stored in
//! sled (`segments`).

mod compaction;
mod counting;
mod portions;
mod recovery;
mod staged;
mod sweep;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use self::counting::Count;
use self::sweep::Sweeps;
use super::commit::Job;
use super::compact::Compaction;
use super::open;
use super::options::OpenFailure;
use super::segments::Arena;
use super::shared::Shared;
use super::steps::{self, Step};
use super::tree::{self, Trees};
use super::upkeep::Upkeep;
use super::watch::Watch;
use crate::storage::StorageError;
use crate::storage::archive::Archive;
use crate::storage::commit_log::{LogFiles, Position};

/// The pause between two portions of work besides checkpoints, so that this work takes only a part of the disk's
/// capacity.
const PAUSE: Duration = Duration::from_millis(10);

/// Copies the content of memory to sled.
pub(super) struct Checkpointer {
    shared: Arc<Shared>,
    /// Allocates slots of sled, as it was opened last.
    arena: Arena,
    /// Everything up to here is certainly in sled.
    position: Position,
    /// Whether sled may say that it has more.
    changing: bool,
    /// Whether it certainly does: what is written before that would look like damage after a crash.
    is_marked: bool,
    /// `None` if a database is only rebuilt.
    watch: Option<Watch>,
    archive: Option<Archive>,
    /// Whether the witness must be tried again.
    behind: bool,
    /// What is trimmed and not removed yet.
    sweeps: Sweeps,
    /// A copy that will replace sled.
    compaction: Option<Compaction>,
    count: Count,
}

/// When the thread ends for any reason, nothing is read any more, and nobody waits for a checkpoint.
struct EndGuard(Arc<Shared>);

impl Drop for EndGuard {
    fn drop(&mut self) {
        self.0.access.closed();
        let why = "the checkpoint thread has ended";
        self.0.checkpoint_failure.lock().get_or_insert_with(|| why.into());
        self.0.queue.close(why);
    }
}

impl Checkpointer {
    /// Continues behind the checkpoint at `position`.
    pub(super) fn new(shared: Arc<Shared>, position: Position) -> io::Result<Self> {
        let trees = shared.access.open_trees().map_err(io::Error::other)?;
        let arena = Arena::open(trees.log())?;
        Ok(Self {
            shared,
            arena,
            position,
            changing: true,
            is_marked: false,
            watch: None,
            archive: None,
            behind: false,
            sweeps: Sweeps::default(),
            compaction: None,
            count: Count::default(),
        })
    }

    /// Writes to sled, for the first time, that there is a commit log.
    pub(super) fn begin(&mut self) -> io::Result<()> {
        let trees = self.shared.access.open_trees().map_err(io::Error::other)?;
        tree::apply_checkpoint(&trees, self.position.0)?;
        self.sync(&trees)
    }

    /// Copies everything in memory, which is everything up to `position`, to sled and closes it.
    pub(super) fn finish(&mut self, position: Position) -> io::Result<()> {
        self.write_all()?;
        self.write_position(position, true)?;
        let trees = self.shared.access.take();
        trees.map_or(Ok(()), |trees| tree::close(recovery::alone(trees)?))
    }

    /// Keeps this witness from now on.
    pub(super) fn keep(&mut self, watch: Watch, archive: Option<Archive>) {
        self.watch = Some(watch);
        self.archive = archive;
    }

    /// Starts the thread. It ends when it is told to, and returns how the last checkpoint and closing sled went.
    pub(super) fn start(
        mut self,
        files: LogFiles,
    ) -> io::Result<JoinHandle<Result<(), StorageError>>> {
        // Before this thread runs there may be more.
        let opened_at = self.shared.settled();
        let is_complete = self.watch.as_ref().is_some_and(Watch::is_complete);
        let archive = self.archive.take();
        // Also one that is not written to any more.
        let to_scrub = self.watch.as_ref().and_then(|watch| {
            open::archive_to_read(&self.shared.files, &self.shared.options, watch.generation())
        });
        let upkeep = Upkeep::start(self.shared.clone(), files, (archive, to_scrub), is_complete)?;
        // What an earlier process did not come to.
        self.shared.upkeep.release(self.position);
        std::thread::Builder::new().name("checkpoint".to_owned()).spawn(move || {
            let _guard = EndGuard(self.shared.clone());
            // Ends when the last checkpoint was made.
            let _upkeep = upkeep;
            self.run(opened_at).map_err(StorageError::unavailable)
        })
    }

    fn run(&mut self, opened_at: Position) -> io::Result<()> {
        let shared = self.shared.clone();
        let mut due = Instant::now() + shared.options.checkpoint_every;
        let mut minutes = Minutes { due, finished: opened_at };
        if let Err(error) = self.find_sweeps() {
            log::warn!("cannot find what is trimmed and not swept yet: {error}");
        }
        self.count_bytes();
        loop {
            let next = due.min(minutes.due);
            let rest = next.saturating_duration_since(Instant::now());
            let is_busy = self.compaction.is_some() || !self.sweeps.is_empty();
            let patience = if is_busy { rest.min(PAUSE) } else { rest };
            let wanted = shared.signal.wait(patience);
            if wanted.end {
                return self.end();
            }
            if minutes.pass(&shared) {
                self.count_bytes();
            }
            if wanted.compact {
                self.begin_compaction();
            }
            match self.compact() {
                Ok(false) => {}
                Ok(true) => {
                    if !self.recover(&io::Error::other("it is compacted")) {
                        // The next start continues it, and the commit log has the rest.
                        return Ok(());
                    }
                    self.compacted();
                }
                Err(error) => {
                    if !self.recover(&error) {
                        return Err(io::Error::other("closed while the disk was failing"));
                    }
                }
            }
            if let Err(error) = self.sweep() {
                log::error!(
                    "sweeping trimmed entries failed, the database will be reopened: {error}"
                );
                if !self.recover(&error) {
                    return Err(io::Error::other("closed while the disk was failing"));
                }
            }
            let is_due = Instant::now() >= due;
            if is_due {
                due = Instant::now() + shared.options.checkpoint_every;
            }
            let bytes = shared.budget.bytes();
            let is_much = wanted.checkpoint && bytes >= shared.options.checkpoint_bytes;
            if !(is_much
                || wanted.at_once
                || is_due && (self.behind || shared.settled() > self.position))
            {
                continue;
            }
            due = Instant::now() + shared.options.checkpoint_every;
            if let Err(error) = self.checkpoint() {
                log::error!("a checkpoint failed, the database will be reopened: {error}");
                if !self.recover(&error) {
                    return Err(io::Error::other("closed while the disk was failing"));
                }
                // The rest is tried again.
                due = Instant::now();
            }
        }
    }

    /// Makes the last checkpoint and then closes sled.
    fn end(&mut self) -> io::Result<()> {
        if self.compaction.is_some() {
            let closed = OpenFailure::Refused("the database is closed".into());
            self.end_compaction(Err(closed));
        }
        let last = self.checkpoint();
        if let Err(error) = &last {
            log::error!("the last checkpoint failed, the commit log has the rest: {error}");
        }
        let trees = self.shared.access.take();
        let closed = trees.map_or(Ok(()), |trees| tree::close(recovery::alone(trees)?));
        last.and(closed)
    }

    /// Copies everything that is in memory at the start to sled.
    fn checkpoint(&mut self) -> io::Result<()> {
        // Sled checks some of its expectations with assertions.
        let done = catch_unwind(AssertUnwindSafe(|| {
            let position = self.shared.settled();
            self.write_all()?;
            // A frame is synced before its content is in memory.
            let is_all = self.shared.synced() == position;
            self.write_position(position, is_all)
        }));
        let done = done.unwrap_or_else(|panic| {
            let why = tree::message_of(panic.as_ref());
            Err(io::Error::other(format!("a checkpoint panicked: {why}")))
        });
        if let Err(error) = &done {
            *self.shared.checkpoint_failure.lock() = Some(error.to_string().into());
            self.shared.access.fail(error.to_string().into());
            return done;
        }
        *self.shared.checkpoint_failure.lock() = None;
        // If this fails, the next checkpoint does it.
        let witnessed = self.witness();
        self.behind = witnessed.is_err();
        if let Err(error) = witnessed {
            log::warn!("the witness of a checkpoint cannot be written: {error}");
        }
        Ok(())
    }

    /// Sled has everything up to `position`. This is written to the witness first, and only then are files of the log
    /// released.
    fn witness(&mut self) -> io::Result<()> {
        if let Some(watch) = &mut self.watch {
            let trees = self.shared.access.open_trees().map_err(io::Error::other)?;
            watch.write(&trees, self.position)?;
        }
        self.shared.upkeep.release(self.position);
        Ok(())
    }

    /// Writes that everything up to `position` is in sled, and whether that `is_all`. If it is not, and the position is
    /// the same as before, sled keeps saying that it may have more: otherwise a crash before the next witness would
    /// leave two states at one position, which looks like damage.
    fn write_position(&mut self, position: Position, is_all: bool) -> io::Result<()> {
        if position > self.position || (self.changing && is_all) {
            let trees = self.shared.access.open_trees().map_err(io::Error::other)?;
            let faults = self.shared.faults();
            steps::take(faults, Step::Apply, || tree::apply_checkpoint(&trees, position.0))?;
            self.sync(&trees)?;
            self.position = position;
            (self.changing, self.is_marked) = (false, false);
        }
        Ok(())
    }

    /// Makes everything that is applied durable.
    fn sync(&self, trees: &Trees) -> io::Result<()> {
        let faults = self.shared.faults();
        steps::take(faults, Step::Flush, || trees.flush())?;
        steps::take(faults, Step::TableSync, || trees.sync(&self.shared.files))
    }
}

/// Work that is done each minute, however many checkpoints there are.
struct Minutes {
    due: Instant,
    /// The log file with this frame is finished, or will be soon.
    finished: Position,
}

impl Minutes {
    /// Checks the disk. If due, finishes a log file that was written to, and returns true.
    fn pass(&mut self, shared: &Shared) -> bool {
        // On each call, since much can be written within a minute.
        shared.health.look(&shared.files, &shared.options);
        if Instant::now() < self.due {
            return false;
        }
        self.due = Instant::now() + shared.options.checkpoint_every;
        let settled = shared.settled();
        // While a finished file cannot be released, another one each minute would only take space.
        let takes_files = !shared.health.archive_fails.load(Relaxed);
        if shared.options.archive.enabled && takes_files && settled > self.finished {
            shared.queue.enqueue(Job::FinishFile);
            self.finished = settled;
        }
        true
    }
}
