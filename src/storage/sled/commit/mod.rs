//! The only thread that writes to the commit log. It takes all queued jobs as a group, appends the group as one frame,
//! and then updates memory.
//!
//! Keeps: nothing is shown or answered with success before it is on disk; after a failure, nothing is written until the
//! log was started again. Leaves out: how it gets into sled (`checkpoint`).

mod group;
mod order;
mod queue;
mod recovery;
mod writes;

pub(super) use queue::{Answer, Job, Queue};
pub(super) use writes::Writes;

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use self::group::Group;
use self::queue::Next;
use super::ends::End;
use super::key::Ordinal;
use super::shared::Shared;
use crate::storage::AppendError;
use crate::storage::commit_log::LogWriter;

/// How long writers wait for a checkpoint that fails before they are refused.
const STALL_WAIT_MAX: Duration = Duration::from_secs(10);
const STALL_POLL: Duration = Duration::from_millis(100);

/// Starts the thread. `next_ordinal` is for the next new store. The thread ends when the queue is closed, and returns
/// the log if it accepts frames.
pub(super) fn start(
    shared: Arc<Shared>,
    writer: LogWriter,
    next_ordinal: Ordinal,
) -> io::Result<JoinHandle<Option<LogWriter>>> {
    std::thread::Builder::new().name("commit".to_owned()).spawn(move || {
        let file = 0;
        let (untried, group) = (VecDeque::new(), Group::new(next_ordinal));
        Committer { shared, writer, file, untried, group }.run()
    })
}

struct Committer {
    shared: Arc<Shared>,
    writer: LogWriter,
    /// The file of the log that contains the last frame.
    file: u64,
    /// The jobs that follow the group.
    untried: VecDeque<Job>,
    group: Group,
}

impl Committer {
    fn run(mut self) -> Option<LogWriter> {
        // A panic is an error in this program. It ends the thread, but nobody waits forever because of it.
        let takes_frames = catch_unwind(AssertUnwindSafe(|| self.commit_until_end()));
        if takes_frames.is_err() {
            log::error!("the commit thread panicked: nothing more is written");
            self.shared.queue.close("the commit thread panicked");
            let tried = AppendError::Indefinite("the commit thread panicked".into());
            self.refuse(&tried, Vec::new());
        }
        // The queue was closed, so nothing new is queued.
        while let Next::Commit(jobs) = self.shared.queue.next(Vec::new()) {
            let refusal = AppendError::Definite("the commit thread has ended".into());
            jobs.into_iter().for_each(|job| job.refuse(&refusal));
        }
        takes_frames.unwrap_or(false).then_some(self.writer)
    }

    /// At the end, returns whether the log accepts frames.
    fn commit_until_end(&mut self) -> bool {
        let mut used = Vec::new();
        while let Next::Commit(mut jobs) = self.shared.queue.next(used) {
            self.untried.extend(jobs.drain(..));
            used = jobs;
            if let Err(error) = self.commit_all() {
                log::error!("writing to the commit log failed, it will be begun again: {error}");
                // This comes before anybody is told: a caller that then opens a store waits until the outcome is known.
                let queued = self.shared.queue.fail(&error.to_string());
                let tried = AppendError::Indefinite(error.to_string().into());
                let _ends = self.refuse(&tried, queued);
                if !recovery::recover(&self.shared, &mut self.writer, &error) {
                    return false;
                }
            }
        }
        true
    }

    /// Commits what is in `untried`, in groups of limited size. After an error, the group is not settled.
    fn commit_all(&mut self) -> io::Result<()> {
        while !self.untried.is_empty() && self.wait_for_room() {
            // Adds the jobs that arrived while the previous group was written. That group may have been small.
            self.shared.queue.take(&mut self.untried);
            self.group.fill(&mut self.untried);
            self.commit()?;
            if self.group.takes_finish_file() {
                self.writer.finish_file()?;
                self.shared.upkeep.file_is_finished();
            }
        }
        Ok(())
    }

    fn commit(&mut self) -> io::Result<()> {
        let shared = &self.shared;
        let (mut position, now) = (self.writer.last(), now_ms());
        if self.group.bytes() > 0 {
            let mut frame = self.writer.frame(self.group.bytes() as u64)?;
            self.group.write(&mut frame, &shared.ends);
            // The first file is small, but enough for many directories.
            if self.file != 0 && self.file != frame.file() {
                shared.upkeep.ask_for_file();
            }
            self.file = frame.file();
            let began = Instant::now();
            position = self.writer.append(frame, now)?;
            shared.syncs.took(began.elapsed());
            shared.set_synced(position);
            #[cfg(feature = "otel")]
            self.group.synced(began, Instant::now());
        }
        let again = |job| shared.queue.enqueue(job);
        self.group.settle((position, now), &shared.ends, &shared.tables, again);
        shared.set_settled(position);
        if shared.budget.bytes() >= shared.options.checkpoint_bytes {
            shared.signal.ask_for_checkpoint();
        }
        Ok(())
    }

    /// Waits while there is no space in memory. Returns false if checkpoints fail meanwhile: then everything was
    /// refused.
    fn wait_for_room(&mut self) -> bool {
        let deadline = Instant::now() + STALL_WAIT_MAX;
        while !self.shared.budget.wait(STALL_POLL) {
            let late = Instant::now() > deadline || self.shared.queue.is_closing();
            let failure = self.shared.checkpoint_failure.lock().clone();
            if let (true, Some(failure)) = (late, failure) {
                self.stall(&failure);
                return false;
            }
        }
        true
    }

    /// Refuses everything until there is space.
    fn stall(&mut self, failure: &str) {
        let why = format!("too much waits for the database, which cannot be written: {failure}");
        log::error!("writes are refused: {why}");
        let queued = self.shared.queue.stall(why.as_str().into());
        let refusal = AppendError::Definite(why.into());
        self.untried.drain(..).chain(queued).for_each(|job| job.refuse(&refusal));
        while !self.shared.budget.wait(STALL_POLL) && !self.shared.queue.is_closing() {}
        self.shared.queue.go_on();
    }

    /// Refuses what was tried when a write failed, and what was not tried. Returns the ends of the stores that were
    /// tried.
    fn refuse(&mut self, tried: &AppendError, queued: Vec<Job>) -> Vec<Arc<End>> {
        let ends = self.group.fail(tried);
        let untried = AppendError::Definite("an earlier write failed: nothing was tried".into());
        self.untried.drain(..).chain(queued).for_each(|job| job.refuse(&untried));
        ends
    }
}

/// Milliseconds since 1970.
pub(super) fn now_ms() -> u64 {
    // A clock before 1970 is the same as no clock: frames then get the time of the previous frame.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
