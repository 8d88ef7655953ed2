//! What the commit thread and everybody who uses the database have in common: the queue, and sled itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::database::DatabaseOptions;
use super::files::Files;
use super::group::Group;
use super::keyspace::Keyspace;
use super::ops::Ops;
use super::steps::Faults;
use super::trees::{Tree, Trees};
use crate::storage::{AppendError, StorageError};

/// How long a reader waits for the database while it is being reopened.
const REOPEN_WAIT_MAX: Duration = Duration::from_secs(2);

/// Something to commit.
pub(super) enum Job {
    /// Changes to one tree.
    Ops { keyspace: Keyspace, ops: Ops, answer: oneshot::Sender<Result<(), AppendError>> },
    /// Changes that take shape only when the group is formed.
    Work(Arc<dyn Work>),
}

impl Job {
    pub(super) fn settle(self, outcome: Result<(), AppendError>) {
        match self {
            // Nobody may be waiting any more.
            Self::Ops { answer, .. } => drop(answer.send(outcome)),
            Self::Work(work) => work.settle(outcome),
        }
    }
}

/// Changes that take shape only when the group is formed. Called on the commit thread alone.
pub(super) trait Work: Send + Sync {
    /// The generation of the database that it was prepared for; another one refuses it.
    fn generation(&self) -> u64;

    /// Adds what it has to the group.
    fn stage(&self, group: &mut Group<'_>);

    /// What was staged is durable, or that failed; or it was refused before anything was staged.
    fn settle(self: Arc<Self>, outcome: Result<(), AppendError>);
}

pub(super) struct Shared {
    pub(super) files: Files,
    pub(super) options: DatabaseOptions,
    faults: Option<Arc<dyn Faults>>,
    queue: Mutex<Queue>,
    /// Something was queued, or the database is to be closed.
    wake: Condvar,
    phase: Mutex<Phase>,
    /// The phase is another one.
    changed: Condvar,
}

struct Queue {
    jobs: Vec<Job>,
    /// Why nothing is taken, if so.
    refusal: Option<Arc<str>>,
    closing: bool,
    generation: u64,
}

enum Phase {
    Open(Arc<Trees>),
    /// A write failed. What was durable before can still be read, until sled is closed.
    Failed {
        before: Option<Arc<Trees>>,
        cause: Arc<str>,
    },
    Closed,
}

/// What the commit thread is to do next.
pub(super) enum Next {
    /// Commit these.
    Commit(Vec<Job>),
    /// The deadline has passed.
    Deadline,
    /// Everything is done: close.
    Close,
}

impl Shared {
    pub(super) fn new(
        files: Files,
        options: DatabaseOptions,
        faults: Option<Arc<dyn Faults>>,
        trees: Trees,
    ) -> Self {
        let generation = trees.generation;
        let queue = Queue { jobs: Vec::new(), refusal: None, closing: false, generation };
        Self {
            files,
            options,
            faults,
            queue: Mutex::new(queue),
            wake: Condvar::new(),
            phase: Mutex::new(Phase::Open(Arc::new(trees))),
            changed: Condvar::new(),
        }
    }

    pub(super) fn faults(&self) -> Option<&dyn Faults> {
        self.faults.as_deref()
    }

    /// Queues `job`, or settles it at once if nothing is taken.
    pub(super) fn enqueue(&self, job: Job) {
        let mut queue = self.queue.lock();
        let stale = match &job {
            Job::Ops { .. } => false,
            Job::Work(work) => work.generation() != queue.generation,
        };
        let refusal = match &queue.refusal {
            Some(refusal) => refusal.clone(),
            None if stale => "the database was reopened since".into(),
            None => {
                queue.jobs.push(job);
                drop(queue);
                self.wake.notify_one();
                return;
            }
        };
        drop(queue);
        job.settle(Err(AppendError::Definite(refusal)));
    }

    /// Waits for jobs, until `deadline` if there is one.
    pub(super) fn next(&self, deadline: Option<Instant>) -> Next {
        let mut queue = self.queue.lock();
        loop {
            if !queue.jobs.is_empty() {
                return Next::Commit(std::mem::take(&mut queue.jobs));
            }
            if queue.closing {
                return Next::Close;
            }
            match deadline {
                None => self.wake.wait(&mut queue),
                Some(deadline) => {
                    if self.wake.wait_until(&mut queue, deadline).timed_out() {
                        return Next::Deadline;
                    }
                }
            }
        }
    }

    /// Refuses what comes from now on and has the commit thread close once the rest is done.
    pub(super) fn refuse_from_now_on(&self, refusal: &str) {
        let mut queue = self.queue.lock();
        queue.closing = true;
        queue.refusal.get_or_insert_with(|| refusal.into());
        drop(queue);
        self.wake.notify_all();
    }

    /// Waits out `delay`; true at once if the database is to be closed.
    pub(super) fn wait_for_closing(&self, delay: Duration) -> bool {
        let deadline = Instant::now() + delay;
        let mut queue = self.queue.lock();
        while !queue.closing {
            if self.wake.wait_until(&mut queue, deadline).timed_out() {
                break;
            }
        }
        queue.closing
    }

    /// A write failed: refuses everything, and gives back what was queued.
    pub(super) fn fail(&self, cause: &str) -> Vec<Job> {
        let cause: Arc<str> = cause.into();
        let jobs = {
            let mut queue = self.queue.lock();
            queue.refusal = Some(format!("the database is being reopened after: {cause}").into());
            std::mem::take(&mut queue.jobs)
        };
        let mut phase = self.phase.lock();
        let before = match &*phase {
            Phase::Open(trees) => Some(trees.clone()),
            Phase::Failed { before, .. } => before.clone(),
            Phase::Closed => None,
        };
        *phase = Phase::Failed { before, cause };
        jobs
    }

    /// Whether sled is open.
    pub(super) fn is_open(&self) -> bool {
        matches!(&*self.phase.lock(), Phase::Open(_))
    }

    /// Takes sled away from readers, to close it.
    pub(super) fn take_trees(&self) -> Option<Arc<Trees>> {
        let mut phase = self.phase.lock();
        match &mut *phase {
            Phase::Open(_) => match std::mem::replace(&mut *phase, Phase::Closed) {
                Phase::Open(trees) => Some(trees),
                Phase::Failed { .. } | Phase::Closed => None,
            },
            Phase::Failed { before, .. } => before.take(),
            Phase::Closed => None,
        }
    }

    /// Sled is open again: reads go on.
    pub(super) fn reopened(&self, trees: Trees) {
        self.queue.lock().generation = trees.generation;
        *self.phase.lock() = Phase::Open(Arc::new(trees));
        self.changed.notify_all();
    }

    /// Writes go on as well.
    pub(super) fn take_writes(&self) {
        let mut queue = self.queue.lock();
        if !queue.closing {
            queue.refusal = None;
        }
    }

    /// Nothing is read or written any more.
    pub(super) fn closed(&self) {
        *self.phase.lock() = Phase::Closed;
        self.changed.notify_all();
        self.refuse_from_now_on("the database is closed");
        self.files.unlock();
    }

    pub(super) fn ready(&self) -> Result<(), StorageError> {
        self.queue.lock().refusal.clone().map_or(Ok(()), |why| Err(StorageError::Unavailable(why)))
    }

    pub(super) fn tree(&self, keyspace: Keyspace) -> Result<Tree, StorageError> {
        self.trees().map(|trees| Tree::new(trees, keyspace))
    }

    /// Sled, once it is open.
    pub(super) fn trees(&self) -> Result<Arc<Trees>, StorageError> {
        let deadline = Instant::now() + REOPEN_WAIT_MAX;
        let mut phase = self.phase.lock();
        loop {
            let cause = match &*phase {
                Phase::Open(trees) => return Ok(trees.clone()),
                Phase::Closed => return Err(StorageError::unavailable("the database is closed")),
                Phase::Failed { cause, .. } => cause.clone(),
            };
            if self.changed.wait_until(&mut phase, deadline).timed_out() {
                return Err(StorageError::Unavailable(cause));
            }
        }
    }

    /// Sled for reads that show only what is known to be durable: also after a failed write, while it is there.
    pub(super) fn trees_before_failure(&self) -> Result<Arc<Trees>, StorageError> {
        if let Phase::Failed { before: Some(trees), .. } = &*self.phase.lock() {
            return Ok(trees.clone());
        }
        self.trees()
    }
}
