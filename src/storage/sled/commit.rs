//! The one thread that writes: it takes whatever is queued as a group, applies it, makes it durable with one sync,
//! and settles it.
//!
//! Keeps: nothing is settled well before it is on disk (or applied, with [`Durability::Interval`]); after a failure
//! nothing is applied until sled was opened again.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use super::database::Durability;
use super::ends::HeldEnd;
use super::group::{Changes, Group, Position};
use super::keyspace::Keyspace;
use super::ops::Ops;
use super::recovery;
use super::shared::{Job, Next, Shared};
use super::steps::{self, Step};
use super::trees::Trees;
use super::watch::FlushWatch;
use crate::storage::{AppendError, StorageError};

/// Starts the thread. It ends when the database is closed, with how that went.
pub(super) fn start(shared: Arc<Shared>) -> io::Result<JoinHandle<Result<(), StorageError>>> {
    let writer = Writer::open(&shared)?;
    std::thread::Builder::new().name("commit".to_owned()).spawn(move || {
        let _guard = EndGuard(&shared);
        run(&shared, writer)
    })
}

/// If the thread ends, however that comes, nothing is queued for it any more.
struct EndGuard<'a>(&'a Shared);

impl Drop for EndGuard<'_> {
    fn drop(&mut self) {
        self.0.closed();
        let refusal = AppendError::Definite("the commit thread has ended".into());
        while let Next::Commit(jobs) = self.0.next(None) {
            jobs.into_iter().for_each(|job| job.settle(Err(refusal.clone())));
        }
    }
}

fn run(shared: &Arc<Shared>, mut writer: Writer) -> Result<(), StorageError> {
    loop {
        // A panic is an error of ours. It ends the thread, but nobody waits for ever because of it.
        let outcome = catch_unwind(AssertUnwindSafe(|| match shared.next(writer.sync_by) {
            Next::Commit(jobs) => writer.commit_all(jobs).map(|()| true),
            Next::Deadline => writer.sync().map(|()| true),
            Next::Close => Ok(false),
        }));
        let (tried, untried) =
            (std::mem::take(&mut writer.tried), std::mem::take(&mut writer.untried));
        let error = match outcome {
            Ok(Ok(true)) => continue,
            Ok(Ok(false)) => {
                let synced = writer.sync();
                drop(writer);
                return synced.and(recovery::close(shared)).map_err(StorageError::unavailable);
            }
            Ok(Err(error)) => error,
            Err(panic) => {
                log::error!("the commit thread panicked: the database is closed");
                shared.closed();
                refuse(tried, untried, Vec::new(), "the commit thread panicked");
                resume_unwind(panic);
            }
        };
        log::error!("writing to the database failed, it will be reopened: {error}");
        drop(writer);
        // Before anybody hears of it: whoever then opens a store must not find what only memory holds.
        let queued = shared.fail(&error.to_string());
        refuse(tried, untried, queued, &error.to_string());
        match recovery::reopen(shared, &error) {
            Some(reopened) => writer = reopened,
            None => return Err(StorageError::unavailable("closed while the disk was failing")),
        }
    }
}

/// Settles what was tried when a write failed, and what was not come to.
fn refuse(tried: VecDeque<Job>, untried: VecDeque<Job>, queued: Vec<Job>, cause: &str) {
    let indefinite = AppendError::Indefinite(cause.into());
    tried.into_iter().for_each(|job| job.settle(Err(indefinite.clone())));
    let definite = AppendError::Definite("an earlier write failed: nothing was tried".into());
    untried.into_iter().chain(queued).for_each(|job| job.settle(Err(definite.clone())));
}

/// What writing needs while sled is open.
pub(super) struct Writer {
    shared: Arc<Shared>,
    trees: Arc<Trees>,
    position: Position,
    log_file: File,
    watch: FlushWatch,
    /// When what is applied but not synced must be synced.
    sync_by: Option<Instant>,
    /// The group that is being committed.
    tried: VecDeque<Job>,
    /// What comes after it.
    untried: VecDeque<Job>,
}

impl Writer {
    /// Finds out where to go on writing.
    pub(super) fn open(shared: &Arc<Shared>) -> io::Result<Self> {
        let shared = shared.clone();
        let trees = shared.trees().map_err(io::Error::other)?;
        let position = Position::open(&trees, shared.options.packs_bytes)?;
        let log_file = File::options().read(true).write(true).open(shared.files.database_log())?;
        let watch = FlushWatch::start()?;
        let (tried, untried) = (VecDeque::new(), VecDeque::new());
        Ok(Self { shared, trees, position, log_file, watch, sync_by: None, tried, untried })
    }

    /// Commits `jobs` in groups of bounded size. What is not settled when that fails is in `tried` and `untried`.
    fn commit_all(&mut self, jobs: Vec<Job>) -> io::Result<()> {
        self.untried = jobs.into();
        while !self.untried.is_empty() {
            let mut group = Group::new(&mut self.position, &self.trees);
            while !group.is_full()
                && let Some(job) = self.untried.pop_front()
            {
                self.tried.push_back(job);
                self.tried.back_mut().into_iter().for_each(|job| stage(&mut group, job));
            }
            let Changes { ops, written_out } = group.finish();
            self.write(ops)?;
            written_out.iter().for_each(HeldEnd::moved);
            while let Some(job) = self.tried.pop_front() {
                job.settle(Ok(()));
            }
        }
        Ok(())
    }

    fn write(&mut self, ops: Vec<(Keyspace, Ops)>) -> io::Result<()> {
        let shared = self.shared.clone();
        let (faults, trees) = (shared.faults(), &self.trees);
        steps::take(faults, Step::Place, || self.position.place_slots(trees.log()))?;
        for (keyspace, ops) in ops.into_iter().filter(|(_, ops)| !ops.is_empty()) {
            steps::take(faults, Step::Apply, || Ok(ops.apply(trees.get(keyspace))?))?;
        }
        match shared.options.durability {
            Durability::Sync => self.sync(),
            Durability::Interval(interval) => {
                self.sync_by.get_or_insert_with(|| Instant::now() + interval);
                Ok(())
            }
        }
    }

    /// Makes everything that is applied durable.
    fn sync(&mut self) -> io::Result<()> {
        self.sync_by = None;
        let faults = self.shared.faults();
        steps::take(faults, Step::Flush, || self.watch.flush(&self.trees))?;
        steps::take(faults, Step::Sync, || self.shared.files.sync_log(&self.log_file))
    }
}

fn stage(group: &mut Group<'_>, job: &mut Job) {
    match job {
        Job::Ops { keyspace, ops, .. } => group.add(*keyspace, std::mem::take(ops)),
        Job::Work(work) => work.stage(group),
    }
}
