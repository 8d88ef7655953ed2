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
use super::drafts::Collector;
use super::ends::End;
use super::key::Ordinal;
use super::shared::Shared;
use crate::storage::AppendError;
use crate::storage::commit_log::LogWriter;

/// How long writers wait for checkpoints that fail before they are refused.
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
        let (untried, held_since, group) = (VecDeque::new(), None, Group::new(next_ordinal));
        let collector = Collector::new(shared.clone());
        Committer { shared, writer, file, untried, held_since, group, collector }.run()
    })
}

struct Committer {
    shared: Arc<Shared>,
    writer: LogWriter,
    /// The file of the log that contains the last frame.
    file: u64,
    /// The jobs that follow the group.
    untried: VecDeque<Job>,
    /// Since when there has been no space in memory for some of them.
    held_since: Option<Instant>,
    group: Group,
    /// Passes what was written on to the archive.
    collector: Collector,
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
            let held = self.hold_back();
            self.group.fill(&mut self.untried);
            self.untried.extend(held);
            self.commit()?;
            if self.group.takes_finish_file() {
                self.collector.hand_over();
                self.writer.finish_file()?;
                self.shared.upkeep.file_is_finished();
            }
        }
        Ok(())
    }

    fn commit(&mut self) -> io::Result<()> {
        let shared = &self.shared;
        let (mut position, mut appended, now) = (self.writer.last(), None, now_ms());
        if self.group.bytes() > 0 {
            let mut frame = self.writer.frame(self.group.bytes() as u64)?;
            self.group.write(&mut frame, &shared.ends);
            // The first file is small, but enough for many directories.
            if self.file != 0 && self.file != frame.file() {
                shared.upkeep.ask_for_file();
            }
            self.file = frame.file();
            let began = Instant::now();
            let appended = appended.insert(self.writer.append(frame, now)?);
            position = appended.position;
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
        // After the answers: nobody waits for it.
        if let Some(appended) = appended {
            self.collector.add(&appended);
            self.writer.reuse(appended);
        }
        Ok(())
    }

    /// Waits while there is no space in memory for any job. Returns false if there is none any more: they were refused,
    /// because checkpoints fail.
    fn wait_for_room(&mut self) -> bool {
        loop {
            self.refuse_late();
            if self.untried.is_empty() || self.untried.iter().any(|job| self.has_room(job)) {
                return !self.untried.is_empty();
            }
            self.held_since.get_or_insert_with(Instant::now);
            let is_ready = || {
                !self.shared.queue.is_empty() || self.untried.iter().any(|job| self.has_room(job))
            };
            self.shared.budget.wait(STALL_POLL, is_ready);
            self.shared.queue.take(&mut self.untried);
        }
    }

    /// Whether there is space in memory for `job`. Whoever has much there waits first.
    fn has_room(&self, job: &Job) -> bool {
        self.shared.budget.has_room(job.held_bytes())
    }

    /// Takes those out of `untried` for which there is no space.
    fn hold_back(&mut self) -> VecDeque<Job> {
        let (untried, held) = if self.shared.budget.is_crowded() {
            let untried = std::mem::take(&mut self.untried).into_iter();
            untried.partition(|job| self.has_room(job))
        } else {
            (std::mem::take(&mut self.untried), VecDeque::new())
        };
        self.untried = untried;
        self.held_since =
            if held.is_empty() { None } else { self.held_since.or_else(|| Some(Instant::now())) };
        held
    }

    /// Refuses everything, until there is space, once somebody has waited for too long for it while checkpoints fail.
    fn refuse_late(&mut self) {
        let Some(since) = self.held_since else { return };
        if since.elapsed() < STALL_WAIT_MAX && !self.shared.queue.is_closing() {
            return;
        }
        let Some(failure) = self.shared.checkpoint_failure.lock().clone() else { return };
        let why = format!("too much waits for the database, which cannot be written: {failure}");
        log::error!("writes are refused: {why}");
        let queued = self.shared.queue.stall(why.as_str().into());
        let refusal = AppendError::Definite(why.into());
        self.untried.drain(..).chain(queued).for_each(|job| job.refuse(&refusal));
        self.held_since = None;
        let Shared { budget, queue, .. } = &*self.shared;
        while budget.is_crowded() && !queue.is_closing() {
            budget.wait(STALL_POLL, || !budget.is_crowded());
        }
        queue.go_on();
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
