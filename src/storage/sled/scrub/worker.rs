//! The thread that removes erased content from files, some time after the erasure.
//!
//! Keeps this order, so that nothing returns: files of the commit log are moved to the archive, and none of them is reused; sled is
//! copied without its free space; the archive is rewritten. What fails or is interrupted is done again from the beginning.
//! Leaves out: frames (`frame`), names of what was kept aside (`kept`).

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::gone::Gone;
use super::{frame, kept};
use crate::storage::archive::{Archive, ArchiveError, ArchivedFile, Kind};
use crate::storage::commit_log::{FoundFrame, LogFiles};
use crate::storage::sled::commit::{Job, now_ms};
use crate::storage::sled::erasures;
use crate::storage::sled::keyspace::Keyspace;
use crate::storage::sled::open;
use crate::storage::sled::ops::Ops;
use crate::storage::sled::record::BadRecord;
use crate::storage::sled::shared::Shared;

/// There is a pause after this many bytes of frames, so reading an archive takes only a part of a processor.
const PAUSE_EVERY_BYTES: usize = 1 << 20;
const PAUSE: Duration = Duration::from_millis(5);
/// How often to check whether something is done.
const POLL: Duration = Duration::from_millis(50);
/// How often it is requested again.
const ASK_EVERY: Duration = Duration::from_secs(2);
/// The delay of the next attempt after a failure.
const AGAIN_AFTER: Duration = Duration::from_secs(60);
/// A key of the records that never exists. Removing it writes a frame that changes nothing.
const NO_KEY: &str = "scrub";

/// Why the work stopped.
#[derive(Debug, thiserror::Error)]
pub(super) enum Stop {
    /// The database is closed.
    #[error("the database is closed")]
    End,
    #[error("{0}")]
    Failed(String),
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error(transparent)]
    Record(#[from] BadRecord),
}

impl From<std::io::Error> for Stop {
    fn from(error: std::io::Error) -> Self {
        Self::Archive(error.into())
    }
}

/// Removes the erased content.
pub(in crate::storage::sled) struct Scrubber {
    shared: Arc<Shared>,
    log: LogFiles,
    archive: Option<Archive>,
    /// Bytes that were read since the last pause.
    read: usize,
}

impl Scrubber {
    /// Starts the thread. It ends when `Scrub::end` is called.
    pub(in crate::storage::sled) fn start(
        shared: Arc<Shared>,
        log: LogFiles,
        archive: Option<Archive>,
    ) -> std::io::Result<JoinHandle<()>> {
        shared.scrub.load(&shared.files)?;
        let mut scrubber = Self { shared, log, archive, read: 0 };
        std::thread::Builder::new().name("scrub".to_owned()).spawn(move || scrubber.run())
    }

    fn run(&mut self) {
        let shared = self.shared.clone();
        let (mut again, options) = (None, &shared.options.scrub);
        let times = (options.after, options.kept_aside);
        while let Some(count) = shared.scrub.wait(times, again.take()) {
            let standing = shared.scrub.standing();
            if standing.note.is_some_and(|note| note.clean_millis.is_none()) {
                let begun = Instant::now();
                log::info!("the files are being cleaned of erased content");
                let failure = match self.all() {
                    Ok(()) => None,
                    Err(Stop::End) => return,
                    Err(stop) => Some(stop.to_string()),
                };
                match &failure {
                    None => {
                        let seconds = begun.elapsed().as_secs_f64();
                        log::info!(
                            "the files are clean of erased content, which took {seconds:.1} s"
                        );
                    }
                    Some(why) => {
                        again = Some(Instant::now() + AGAIN_AFTER);
                        log::error!(
                            "files may still have what was erased; tried again in a minute: {why}"
                        );
                    }
                }
                if let Err(error) = shared.scrub.ended(&shared.files, count, failure) {
                    log::error!("noting that the files are clean of erased content: {error}");
                }
                if let Err(error) = erasures::settle(&shared) {
                    log::warn!("noting which erasures are made: {error}");
                }
            }
            if let Err(error) = self.remove_kept() {
                log::error!("removing what was kept aside before an erasure: {error}");
            }
        }
    }

    fn all(&mut self) -> Result<(), Stop> {
        self.turn_log_over()?;
        self.compact()?;
        self.archive()
    }

    /// Archives and removes every file that the log has now. This is done when it returns.
    fn turn_log_over(&self) -> Result<(), Stop> {
        let shared = &self.shared;
        let before = self.log.stop_reuse()?;
        let mut asked: Option<Instant> = None;
        let done = loop {
            if !self.log.has_before(before)? {
                break Ok(());
            }
            if asked.is_none_or(|asked| asked.elapsed() >= ASK_EVERY) {
                asked = Some(Instant::now());
                let failed = shared.health.archive_fails.load(std::sync::atomic::Ordering::Relaxed);
                if let Err(error) = shared.queue.ready() {
                    break Err(Stop::Failed(error.to_string()));
                }
                if !failed {
                    self.write_nothing();
                }
                shared.signal.ask_at_once();
                shared.upkeep.look_again();
            }
            if shared.scrub.pause(POLL) {
                break Err(Stop::End);
            }
        };
        self.log.allow_reuse();
        done
    }

    /// Writes an empty change, so that the current file can be finished, and finishes it.
    fn write_nothing(&self) {
        let mut ops = Ops::default();
        ops.remove(NO_KEY.as_bytes());
        // Nobody waits for it.
        let (answer, _) = tokio::sync::oneshot::channel();
        self.shared.queue.enqueue(Job::Table { table: Keyspace::Records, ops, answer });
        self.shared.queue.enqueue(Job::FinishFile);
    }

    /// Removes the free space from sled's files. This is done when it returns.
    fn compact(&self) -> Result<(), Stop> {
        let shared = &self.shared;
        // A compaction that was already in progress may have copied a part of it before.
        for _ in 0..2 {
            let is_mine = {
                let mut state = shared.compacting.lock();
                let is_mine = !state.running;
                if is_mine {
                    (state.running, state.failure) = (true, None);
                    shared.signal.ask_to_compact();
                }
                is_mine
            };
            while shared.compacting.lock().running || shared.access.ready().is_err() {
                if shared.scrub.pause(POLL) {
                    return Err(Stop::End);
                }
                shared.queue.ready().map_err(|error| Stop::Failed(error.to_string()))?;
            }
            if let Some(failure) = shared.compacting.lock().failure.clone() {
                return Err(Stop::Failed(format!("the database cannot be compacted: {failure}")));
            }
            if is_mine {
                break;
            }
        }
        Ok(())
    }

    /// Rewrites each file of the archive that has some of it.
    fn archive(&mut self) -> Result<(), Stop> {
        let Some(archive) = self.archive.clone() else { return Ok(()) };
        archive.remove_superseded()?;
        self.wait_for_base(&archive)?;
        let listing = archive.files()?;
        if let Some(file) = listing.unreadable.first() {
            let path = file.path.display();
            return Err(Stop::Failed(format!("{path} cannot be read, and may have some of it")));
        }
        let (files, options) = (&self.shared.files, &self.shared.options);
        let ledger = open::ledger(files, options)?;
        let mut gone = Gone::of_ledger(ledger, !options.archive.enabled)?;
        for file in &listing.files {
            file.each(|frame| {
                self.breathe(&frame)?;
                Ok::<(), Stop>(gone.note(frame.position, frame.body)?)
            })?;
        }
        gone.sort();
        let mut rewritten = 0;
        for file in &listing.files {
            rewritten += u64::from(self.rewrite(&archive, file, &gone)?);
        }
        log::info!(
            "{rewritten} of {} files of the archive are written again, for {} erased entries",
            listing.files.len(),
            gone.entries()
        );
        Ok(())
    }

    /// A base that is being written may have been begun before. What nobody writes any more is removed.
    fn wait_for_base(&self, archive: &Archive) -> Result<(), Stop> {
        loop {
            {
                let is_written = self.shared.writes_base.lock();
                if !*is_written {
                    let nobody_writes = !self.shared.options.archive.enabled;
                    return Ok(archive.remove_unfinished(nobody_writes)?);
                }
            }
            if self.shared.scrub.pause(POLL) {
                return Err(Stop::End);
            }
        }
    }

    fn rewrite(
        &mut self,
        archive: &Archive,
        file: &ArchivedFile,
        gone: &Gone,
    ) -> Result<bool, Stop> {
        let (kind, last) = (file.kind, file.last);
        let written = archive.rewrite(file, &mut |frame: &FoundFrame<'_>| {
            self.breathe(frame)?;
            let position = if kind == Kind::Base { last } else { frame.position };
            Ok::<_, Stop>(frame::without(gone, (kind, position), frame.body)?)
        });
        match written {
            Ok(written) => {
                if written.is_some() {
                    self.shared.scrub.rewritten();
                }
                Ok(written.is_some())
            }
            // The retention removed it.
            Err(Stop::Archive(ArchiveError::Unavailable(error)))
                if error.kind() == std::io::ErrorKind::NotFound =>
            {
                Ok(false)
            }
            Err(stop) => Err(stop),
        }
    }

    /// Leaves some processor time to others. Fails if the thread must end.
    fn breathe(&mut self, frame: &FoundFrame<'_>) -> Result<(), Stop> {
        self.read += frame.body.len();
        if self.read >= PAUSE_EVERY_BYTES {
            self.read = 0;
            if self.shared.scrub.pause(PAUSE) {
                return Err(Stop::End);
            }
        }
        Ok(())
    }

    /// Removes what was kept aside before files were clean, once the first erasure since then is old enough.
    fn remove_kept(&self) -> std::io::Result<()> {
        let shared = &self.shared;
        let Some(note) = shared.scrub.standing().note else { return Ok(()) };
        let (Some(clean), Some(aside)) = (note.clean_millis, note.aside_millis) else {
            return Ok(());
        };
        let kept = kept::before(&shared.kept_folders(), clean)?;
        let age = Duration::from_millis(now_ms().saturating_sub(aside));
        if !kept.is_empty() && age < shared.options.scrub.kept_aside {
            return Ok(());
        }
        for kept in kept {
            let path = kept.path.display();
            log::warn!("{path} is removed: it was kept aside before entries were erased");
            kept::remove(&kept)?;
        }
        shared.scrub.aside_is_gone(&shared.files)
    }
}
