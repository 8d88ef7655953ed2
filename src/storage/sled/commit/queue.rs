//! The jobs that wait for the commit thread, and whether it accepts new ones.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::writes::Writes;
use crate::model::Sequence;
use crate::storage::sled::budget::Budget;
use crate::storage::sled::keyspace::Keyspace;
use crate::storage::sled::ops::Ops;
use crate::storage::sled::scrub::Noted;
use crate::storage::{AppendError, StorageError};

/// How long somebody who opens a store waits while the commit log is begun again.
const RECOVERY_WAIT_MAX: Duration = Duration::from_secs(2);

/// Gets the outcome of a job.
pub(crate) type Answer = oneshot::Sender<Result<(), AppendError>>;

/// Something to commit.
pub(crate) enum Job {
    /// Changes to one table.
    Table { table: Keyspace, ops: Ops, answer: Answer },
    /// What was handed in for a store.
    Store(Arc<Writes>),
    /// The entries of a store up to this one are trimmed.
    Trim { writes: Arc<Writes>, last: Sequence, answer: Answer },
    /// These entries of a store, ascending, are erased.
    Erase { writes: Arc<Writes>, sequences: Arc<[Sequence]>, answer: Answer, noted: Noted },
    /// A further file of the commit log is to be begun, so that this one can be archived.
    FinishFile,
}

impl Job {
    /// Bytes that wait to be committed for a store.
    pub(crate) fn store_bytes(&self) -> usize {
        match self {
            Self::Store(writes) => writes.pending_bytes(),
            Self::Table { .. } | Self::Trim { .. } | Self::Erase { .. } | Self::FinishFile => 0,
        }
    }

    /// Bytes that the store has in memory until a checkpoint.
    pub(super) fn held_bytes(&self) -> u64 {
        match self {
            Self::Store(writes) => writes.end.get().map_or(0, |end| end.bytes()),
            Self::Table { .. } | Self::Trim { .. } | Self::Erase { .. } | Self::FinishFile => 0,
        }
    }

    /// Reports that the job will not be committed.
    pub(crate) fn refuse(self, error: &AppendError) {
        match self {
            // The caller may be gone.
            Self::Table { answer, .. } | Self::Trim { answer, .. } | Self::Erase { answer, .. } => {
                drop(answer.send(Err(error.clone())));
            }
            Self::Store(writes) => writes.fail(std::iter::empty(), error),
            Self::FinishFile => {}
        }
    }
}

/// The jobs that wait.
pub(crate) struct Queue {
    state: Mutex<State>,
    /// Where the commit thread waits when there is no space for what it has.
    budget: Arc<Budget>,
    /// Something was queued, or the thread must end.
    wake: Condvar,
    /// Writes are accepted again, or never.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    jobs: Vec<Job>,
    phase: Phase,
    /// Why nothing is accepted without a failure, if so.
    stalled: Option<Arc<str>>,
    /// Counts failures. Logs that were opened before a failure accept nothing.
    generation: u64,
}

#[derive(Default)]
enum Phase {
    #[default]
    Open,
    /// A write to the commit log failed, for this reason.
    Failed(Arc<str>),
    /// Nothing is accepted any more, for this reason.
    Closing(Arc<str>),
}

/// What the commit thread does next.
pub(crate) enum Next {
    /// Commit these.
    Commit(Vec<Job>),
    /// Everything is done, so the thread ends.
    End,
}

impl State {
    fn refusal(&self) -> Option<Arc<str>> {
        match &self.phase {
            Phase::Open => self.stalled.clone(),
            Phase::Failed(why) | Phase::Closing(why) => Some(why.clone()),
        }
    }
}

impl Queue {
    /// An empty one. The commit thread waits for it and for `budget`.
    pub(crate) fn new(budget: Arc<Budget>) -> Self {
        let (wake, changed) = (Condvar::new(), Condvar::new());
        Self { state: Mutex::default(), budget, wake, changed }
    }

    /// Queues `job`, or refuses it at once if nothing is accepted.
    pub(crate) fn enqueue(&self, job: Job) {
        let mut state = self.state.lock();
        let stale = match &job {
            Job::Table { .. } | Job::Trim { .. } | Job::Erase { .. } | Job::FinishFile => false,
            Job::Store(writes) => writes.generation != state.generation,
        };
        let refusal = match state.refusal() {
            Some(refusal) => refusal,
            None if stale => "an earlier write failed since the store was opened".into(),
            None => {
                state.jobs.push(job);
                // A thread that already has jobs looks here before it sleeps.
                let first = state.jobs.len() == 1;
                drop(state);
                if first {
                    self.wake.notify_one();
                    self.budget.look_again();
                }
                return;
            }
        };
        drop(state);
        job.refuse(&AppendError::Definite(refusal));
    }

    /// Waits for jobs. `used` is an empty vector whose memory is reused for them.
    pub(crate) fn next(&self, used: Vec<Job>) -> Next {
        let mut state = self.state.lock();
        loop {
            if !state.jobs.is_empty() {
                return Next::Commit(std::mem::replace(&mut state.jobs, used));
            }
            if matches!(state.phase, Phase::Closing(_)) {
                return Next::End;
            }
            self.wake.wait(&mut state);
        }
    }

    /// Moves the waiting jobs to the end of `into`.
    pub(crate) fn take(&self, into: &mut VecDeque<Job>) {
        into.extend(self.state.lock().jobs.drain(..));
    }

    /// Whether no job waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.state.lock().jobs.is_empty()
    }

    /// Whether the commit thread must end.
    pub(crate) fn is_closing(&self) -> bool {
        matches!(self.state.lock().phase, Phase::Closing(_))
    }

    /// Refuses new jobs, and ends the commit thread when the others are done.
    pub(crate) fn close(&self, why: &str) {
        let mut state = self.state.lock();
        if !matches!(state.phase, Phase::Closing(_)) {
            state.phase = Phase::Closing(why.into());
        }
        drop(state);
        self.wake.notify_all();
        self.changed.notify_all();
    }

    /// Waits for `delay`. Returns true at once if the thread must end.
    pub(crate) fn wait_for_closing(&self, delay: Duration) -> bool {
        let deadline = Instant::now() + delay;
        let mut state = self.state.lock();
        while !matches!(state.phase, Phase::Closing(_)) {
            if self.wake.wait_until(&mut state, deadline).timed_out() {
                break;
            }
        }
        matches!(state.phase, Phase::Closing(_))
    }

    /// A write failed. Refuses everything and returns what was queued.
    pub(crate) fn fail(&self, cause: &str) -> Vec<Job> {
        let mut state = self.state.lock();
        state.generation += 1;
        if matches!(state.phase, Phase::Open) {
            let why = format!("the database is being made writable again after: {cause}");
            state.phase = Phase::Failed(why.into());
        }
        std::mem::take(&mut state.jobs)
    }

    /// Writes are accepted again.
    pub(crate) fn recovered(&self) {
        let mut state = self.state.lock();
        if matches!(state.phase, Phase::Failed(_)) {
            state.phase = Phase::Open;
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Accepts nothing until [`Queue::go_on`], for this reason. Returns what was queued.
    pub(crate) fn stall(&self, why: Arc<str>) -> Vec<Job> {
        let mut state = self.state.lock();
        state.stalled = Some(why);
        std::mem::take(&mut state.jobs)
    }

    /// Ends what [`Queue::stall`] began.
    pub(crate) fn go_on(&self) {
        self.state.lock().stalled = None;
    }

    /// Whether writes are accepted. `Err` says why not.
    pub(crate) fn ready(&self) -> Result<(), StorageError> {
        self.state.lock().refusal().map_or(Ok(()), |why| Err(StorageError::Unavailable(why)))
    }

    /// The value that a store which is opened now must show with its writes. After a failure, this waits for at most
    /// two seconds: until then, the outcome of the last group is unknown.
    pub(crate) fn generation(&self) -> Result<u64, StorageError> {
        let deadline = Instant::now() + RECOVERY_WAIT_MAX;
        let mut state = self.state.lock();
        loop {
            let why = match &state.phase {
                Phase::Open => return Ok(state.generation),
                Phase::Closing(why) => return Err(StorageError::Unavailable(why.clone())),
                Phase::Failed(why) => why.clone(),
            };
            if self.changed.wait_until(&mut state, deadline).timed_out() {
                return Err(StorageError::Unavailable(why));
            }
        }
    }
}
