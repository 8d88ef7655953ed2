//! The one thread that writes: it takes whatever is queued as a group, applies it, makes it durable with one sync,
//! and settles it.
//!
//! Keeps: nothing is settled well before it is on disk (or applied, with [`Durability::Interval`]); after a failure
//! nothing is applied until sled was opened again.

use std::fs::File;
use std::io;
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
        let outcome = match shared.next(writer.sync_by) {
            Next::Commit(jobs) => writer.commit_all(jobs),
            Next::Deadline => writer.sync().map_err(Failure::of_nobody),
            Next::Close => {
                let synced = writer.sync();
                drop(writer);
                return synced.and(recovery::close(shared)).map_err(StorageError::unavailable);
            }
        };
        let Err(Failure { error, tried, untried }) = outcome else { continue };
        log::error!("writing to the database failed, it will be reopened: {error}");
        drop(writer);
        // Before anybody hears of it: whoever then opens a store must not find what only memory holds.
        let queued = shared.fail(&error.to_string());
        let indefinite = AppendError::Indefinite(error.to_string().into());
        tried.into_iter().for_each(|job| job.settle(Err(indefinite.clone())));
        let definite = AppendError::Definite("an earlier write failed: nothing was tried".into());
        untried.into_iter().chain(queued).for_each(|job| job.settle(Err(definite.clone())));
        match recovery::reopen(shared, &error) {
            Some(reopened) => writer = reopened,
            None => return Err(StorageError::unavailable("closed while the disk was failing")),
        }
    }
}

/// A write failed.
struct Failure {
    error: io::Error,
    /// The group that it was for.
    tried: Vec<Job>,
    /// What was not come to.
    untried: Vec<Job>,
}

impl Failure {
    const fn of_nobody(error: io::Error) -> Self {
        Self { error, tried: Vec::new(), untried: Vec::new() }
    }
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
}

impl Writer {
    /// Finds out where to go on writing.
    pub(super) fn open(shared: &Arc<Shared>) -> io::Result<Self> {
        let shared = shared.clone();
        let trees = shared.trees().map_err(io::Error::other)?;
        let position = Position::open(&trees, shared.options.packs_bytes)?;
        let log_file = File::options().read(true).write(true).open(shared.files.database_log())?;
        let watch = FlushWatch::start()?;
        Ok(Self { shared, trees, position, log_file, watch, sync_by: None })
    }

    /// Commits `jobs` in groups of bounded size.
    fn commit_all(&mut self, jobs: Vec<Job>) -> Result<(), Failure> {
        let mut left = jobs.into_iter();
        while left.len() > 0 {
            let mut group = Group::new(&mut self.position, &self.trees);
            let mut staged = Vec::new();
            for job in left.by_ref() {
                staged.push(stage(&mut group, job));
                if group.is_full() {
                    break;
                }
            }
            let Changes { ops, written_out } = group.finish();
            match self.write(ops) {
                Ok(()) => {
                    written_out.iter().for_each(HeldEnd::moved);
                    staged.into_iter().for_each(|job| job.settle(Ok(())));
                }
                Err(error) => {
                    return Err(Failure { error, tried: staged, untried: left.collect() });
                }
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

fn stage(group: &mut Group<'_>, job: Job) -> Job {
    match job {
        Job::Ops { keyspace, ops, answer } => {
            group.add(keyspace, ops);
            Job::Ops { keyspace, ops: Ops::default(), answer }
        }
        Job::Work(work) => {
            work.stage(group);
            Job::Work(work)
        }
    }
}
