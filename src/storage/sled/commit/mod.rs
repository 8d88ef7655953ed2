//! The one thread that writes to the commit log: it takes whatever is queued as a group, appends it as one frame, and
//! settles it in memory.
//!
//! Keeps: nothing is shown or answered well before it is on disk; after a failure nothing is written until the log was begun
//! again. Leaves out: how it comes into sled (`checkpoint`).

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

/// Starts the thread; `next_ordinal` is for the next new store. It ends when the queue is closed, and gives the log back if
/// that takes frames.
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
    /// The file of the log that the last frame went to.
    file: u64,
    /// What comes after the group.
    untried: VecDeque<Job>,
    group: Group,
}

impl Committer {
    fn run(mut self) -> Option<LogWriter> {
        // A panic is an error of ours. It ends the thread, but nobody waits for ever because of it.
        let takes_frames = catch_unwind(AssertUnwindSafe(|| self.commit_until_end()));
        if takes_frames.is_err() {
            log::error!("the commit thread panicked: nothing more is written");
            self.shared.queue.close("the commit thread panicked");
            let tried = AppendError::Indefinite("the commit thread panicked".into());
            self.refuse(&tried, Vec::new());
        }
        // Nothing is queued any more: it was closed.
        while let Next::Commit(jobs) = self.shared.queue.next(Vec::new()) {
            let refusal = AppendError::Definite("the commit thread has ended".into());
            jobs.into_iter().for_each(|job| job.refuse(&refusal));
        }
        takes_frames.unwrap_or(false).then_some(self.writer)
    }

    /// True in the end if the log takes frames.
    fn commit_until_end(&mut self) -> bool {
        let mut used = Vec::new();
        while let Next::Commit(mut jobs) = self.shared.queue.next(used) {
            self.untried.extend(jobs.drain(..));
            used = jobs;
            if let Err(error) = self.commit_all() {
                log::error!("writing to the commit log failed, it will be begun again: {error}");
                // Before anybody hears of it: whoever then opens a store waits until it is known what became of this.
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

    /// Commits what is in `untried`, in groups of bounded size. After an error the group is not settled.
    fn commit_all(&mut self) -> io::Result<()> {
        while !self.untried.is_empty() && self.wait_for_room() {
            // What came while the group before was written: it may be small.
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
            // The first file is a small one, and enough for many.
            if self.file != 0 && self.file != frame.file() {
                shared.upkeep.ask_for_file();
            }
            self.file = frame.file();
            position = self.writer.append(frame, now)?;
        }
        let again = |job| shared.queue.enqueue(job);
        self.group.settle((position, now), &shared.ends, &shared.tables, again);
        shared.set_settled(position);
        if shared.budget.bytes() >= shared.options.checkpoint_bytes {
            shared.signal.ask_for_checkpoint();
        }
        Ok(())
    }

    /// Waits while memory has no room. False if checkpoints fail meanwhile: then everything was refused.
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

    /// Refuses everything until there is room.
    fn stall(&mut self, failure: &str) {
        let why = format!("too much waits for the database, which cannot be written: {failure}");
        log::error!("writes are refused: {why}");
        let queued = self.shared.queue.stall(why.as_str().into());
        let refusal = AppendError::Definite(why.into());
        self.untried.drain(..).chain(queued).for_each(|job| job.refuse(&refusal));
        while !self.shared.budget.wait(STALL_POLL) && !self.shared.queue.is_closing() {}
        self.shared.queue.go_on();
    }

    /// Refuses what was tried when a write failed, and what was not come to. Gives the ends of the stores that were tried.
    fn refuse(&mut self, tried: &AppendError, queued: Vec<Job>) -> Vec<Arc<End>> {
        let ends = self.group.fail(tried);
        let untried = AppendError::Definite("an earlier write failed: nothing was tried".into());
        self.untried.drain(..).chain(queued).for_each(|job| job.refuse(&untried));
        ends
    }
}

/// Milliseconds since 1970.
pub(super) fn now_ms() -> u64 {
    // A clock before 1970 is as good as none: frames then get the time of the one before.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
