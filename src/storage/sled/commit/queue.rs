//! What waits for the commit thread, and whether it takes anything.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::writes::Writes;
use crate::model::Sequence;
use crate::storage::sled::keyspace::Keyspace;
use crate::storage::sled::ops::Ops;
use crate::storage::{AppendError, StorageError};

/// How long somebody who opens a store waits while the commit log is begun again.
const RECOVERY_WAIT_MAX: Duration = Duration::from_secs(2);

/// Who is told what became of a job.
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
    Erase { writes: Arc<Writes>, sequences: Arc<[Sequence]>, answer: Answer },
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

    /// It will not be committed.
    pub(crate) fn refuse(self, error: &AppendError) {
        match self {
            // Nobody may be waiting any more.
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
    /// Something was queued, or the thread is to end.
    wake: Condvar,
    /// Writes are taken again, or never.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    jobs: Vec<Job>,
    phase: Phase,
    /// Why nothing is taken though nothing failed, if so.
    stalled: Option<Arc<str>>,
    /// Counts failures: what was opened before one takes nothing.
    generation: u64,
}

#[derive(Default)]
enum Phase {
    #[default]
    Open,
    /// A write to the commit log failed, for this reason.
    Failed(Arc<str>),
    /// Nothing is taken any more, for this reason.
    Closing(Arc<str>),
}

/// What the commit thread is to do next.
pub(crate) enum Next {
    /// Commit these.
    Commit(Vec<Job>),
    /// Everything is done: end.
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
    pub(crate) fn new() -> Self {
        Self { state: Mutex::default(), wake: Condvar::new(), changed: Condvar::new() }
    }

    /// Queues `job`, or refuses it at once if nothing is taken.
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
                // Whoever has jobs already looks here before it sleeps.
                let first = state.jobs.len() == 1;
                drop(state);
                if first {
                    self.wake.notify_one();
                }
                return;
            }
        };
        drop(state);
        job.refuse(&AppendError::Definite(refusal));
    }

    /// Waits for jobs. `used` is an empty vector whose memory they may have.
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

    /// Moves the jobs that wait by now to `into`, behind what is there.
    pub(crate) fn take(&self, into: &mut VecDeque<Job>) {
        into.extend(self.state.lock().jobs.drain(..));
    }

    /// Whether the commit thread is to end.
    pub(crate) fn is_closing(&self) -> bool {
        matches!(self.state.lock().phase, Phase::Closing(_))
    }

    /// Refuses what comes from now on, and has the commit thread end once the rest is done.
    pub(crate) fn close(&self, why: &str) {
        let mut state = self.state.lock();
        if !matches!(state.phase, Phase::Closing(_)) {
            state.phase = Phase::Closing(why.into());
        }
        drop(state);
        self.wake.notify_all();
        self.changed.notify_all();
    }

    /// Waits out `delay`; true at once if the thread is to end.
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

    /// A write failed: refuses everything, and gives back what was queued.
    pub(crate) fn fail(&self, cause: &str) -> Vec<Job> {
        let mut state = self.state.lock();
        state.generation += 1;
        if matches!(state.phase, Phase::Open) {
            let why = format!("the database is being made writable again after: {cause}");
            state.phase = Phase::Failed(why.into());
        }
        std::mem::take(&mut state.jobs)
    }

    /// Writes are taken again.
    pub(crate) fn recovered(&self) {
        let mut state = self.state.lock();
        if matches!(state.phase, Phase::Failed(_)) {
            state.phase = Phase::Open;
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Nothing is taken until [`Queue::go_on`], for this reason. Gives back what was queued.
    pub(crate) fn stall(&self, why: Arc<str>) -> Vec<Job> {
        let mut state = self.state.lock();
        state.stalled = Some(why);
        std::mem::take(&mut state.jobs)
    }

    /// Ends what [`Queue::stall`] began.
    pub(crate) fn go_on(&self) {
        self.state.lock().stalled = None;
    }

    /// Whether writes are taken: `Err` says why not.
    pub(crate) fn ready(&self) -> Result<(), StorageError> {
        self.state.lock().refusal().map_or(Ok(()), |why| Err(StorageError::Unavailable(why)))
    }

    /// What somebody who opens a store now has to show with its writes. Waits for two seconds at most after a failure:
    /// until then it is not known what became of the last group.
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
