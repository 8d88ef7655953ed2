//! Decides when an archive gets another base, and writes it while everything else continues.
//!
//! Keeps: what the archive can rebuild a database from stays as it is until the new base is complete; nobody waits for
//! it. A base is due if a database could no longer be rebuilt (files had to be released, or the retention took them).
//! If a retention is set, it is also due once there is as much after the base as in it: otherwise the retention would
//! take files that are needed. Leaves out: what is in a base (`base`), which files are kept (`archive`).

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::base;
use super::commit::now_ms;
use super::shared::Shared;
use crate::storage::archive::{Archive, Listing, Retention};
use crate::storage::commit_log::{LogFiles, Position};

/// The shortest time between two bases, as a multiple of the longest time between two checkpoints; that is an hour.
const APART_MIN: u32 = 60;

/// Writes bases.
pub(super) struct FurtherBase {
    shared: Arc<Shared>,
    /// Whether the first frame of the log began with an empty database.
    complete: bool,
    /// When one was begun that was not written, or is not written yet.
    tried: Option<Instant>,
    running: Option<Running>,
}

struct Running {
    thread: JoinHandle<io::Result<()>>,
    end: Arc<AtomicBool>,
}

impl FurtherBase {
    pub(super) const fn new(shared: Arc<Shared>, complete: bool) -> Self {
        Self { shared, complete, tried: None, running: None }
    }

    /// Looks at the archive, and begins a base if one is due. Sled has everything up to `position`.
    pub(super) fn look(
        &mut self,
        archive: &Archive,
        files: &LogFiles,
        position: Position,
    ) -> io::Result<()> {
        let listing = archive.files()?;
        let is_whole = listing.is_whole(self.complete, files.first().1);
        self.shared.health.archive_is_incomplete.store(!is_whole, Relaxed);
        if let Some(ended) = self.running.take_if(|running| running.thread.is_finished())
            && let Ok(Ok(())) = ended.thread.join()
        {
            self.tried = None;
        }
        if self.running.is_none() && self.is_due(&listing, is_whole) {
            self.tried = Some(Instant::now());
            self.running = Some(self.begin(archive.clone(), files.clone(), position)?);
        }
        Ok(())
    }

    fn is_due(&self, listing: &Listing, is_whole: bool) -> bool {
        let options = &self.shared.options;
        let apart = options.checkpoint_every * APART_MIN;
        if self.tried.is_some_and(|tried| tried.elapsed() < apart) {
            return false;
        }
        let base = listing.base();
        // A clock that was ahead is no reason to wait.
        let age =
            base.and_then(|base| now_ms().checked_sub(base.time_ms)).map(Duration::from_millis);
        let in_base = base.map_or(0, |base| base.bytes).max(options.log_file_bytes);
        let is_kept = options.archive.retention() == Retention::default();
        !is_whole && age.is_none_or(|age| age >= apart)
            || !is_kept && listing.bytes_behind_base() >= in_base
    }

    fn begin(&self, archive: Archive, files: LogFiles, position: Position) -> io::Result<Running> {
        let (shared, end) = (self.shared.clone(), Arc::new(AtomicBool::new(false)));
        let (ended, under_way) = (end.clone(), UnderWay::begin(shared.clone()));
        let thread =
            std::thread::Builder::new().name("archive-base".to_owned()).spawn(move || {
                let _under_way = under_way;
                let begun = Instant::now();
                log::info!("the archive gets a further base");
                let written = write(&shared, &archive, &files, position, &ended);
                match &written {
                    Ok(()) => {
                        let seconds = begun.elapsed().as_secs_f64();
                        log::info!("the archive has a further base, which took {seconds:.1} s");
                    }
                    Err(error) => log::warn!("the archive did not get a further base: {error}"),
                }
                // What it was waiting to look at may be over.
                shared.upkeep.look_again();
                written
            })?;
        Ok(Running { thread, end })
    }
}

/// While this lives, a file of the archive is written that nobody may remove.
struct UnderWay(Arc<Shared>);

impl UnderWay {
    fn begin(shared: Arc<Shared>) -> Self {
        *shared.writes_base.lock() = true;
        Self(shared)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        *self.0.writes_base.lock() = false;
    }
}

impl Drop for FurtherBase {
    fn drop(&mut self) {
        if let Some(Running { thread, end }) = self.running.take() {
            end.store(true, Relaxed);
            // If it panicked, there is no base, as before.
            drop(thread.join());
        }
    }
}

fn write(
    shared: &Shared,
    archive: &Archive,
    files: &LogFiles,
    position: Position,
    end: &AtomicBool,
) -> io::Result<()> {
    let trees = shared.access.open_trees().map_err(io::Error::other)?;
    let parts = base::parts(&trees).map(|part| {
        if end.load(Relaxed) {
            return Err(io::Error::other("the database is closed"));
        }
        // Whoever opens sled again waits until nobody holds it.
        shared.access.ready().map_err(io::Error::other)?;
        part.map_err(io::Error::from)
    });
    let number = files.number_of(position.next());
    archive.write_base(number, position, now_ms(), parts).map(drop).map_err(io::Error::other)
}
