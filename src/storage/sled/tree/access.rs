//! Sled for readers: while it is open, and while it is being opened again.
//!
//! Keeps: what is in sled and not known to be durable is in memory as well, and readers look there first; so after a
//! failed write, sled can still be read until it is closed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::Trees;
use crate::storage::StorageError;

/// How long a reader waits for sled while it is being reopened.
const REOPEN_WAIT_MAX: Duration = Duration::from_secs(2);

/// Hands out sled.
pub(crate) struct Access {
    phase: Mutex<Phase>,
    /// The phase has changed.
    changed: Condvar,
    generation: AtomicU64,
}

enum Phase {
    Open(Arc<Trees>),
    /// A write failed. What it had before can still be read, until it is closed.
    Failed {
        before: Option<Arc<Trees>>,
        cause: Arc<str>,
    },
    Closed,
}

impl Access {
    pub(crate) fn new(trees: Trees) -> Self {
        Self {
            phase: Mutex::new(Phase::Open(Arc::new(trees))),
            changed: Condvar::new(),
            generation: AtomicU64::new(0),
        }
    }

    /// Sled, for reading: even after a failed write, while it exists.
    pub(crate) fn trees(&self) -> Result<Arc<Trees>, StorageError> {
        if let Phase::Failed { before: Some(trees), .. } = &*self.phase.lock() {
            return Ok(trees.clone());
        }
        self.open_trees()
    }

    /// Whether [`Access::trees`] would wait.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(&*self.phase.lock(), Phase::Failed { before: None, .. })
    }

    /// A sled without a failed write: waits for at most two seconds.
    pub(crate) fn open_trees(&self) -> Result<Arc<Trees>, StorageError> {
        let deadline = Instant::now() + REOPEN_WAIT_MAX;
        let mut phase = self.phase.lock();
        loop {
            let cause = match &*phase {
                Phase::Open(trees) => return Ok(trees.clone()),
                Phase::Closed => return Err(closed()),
                Phase::Failed { cause, .. } => cause.clone(),
            };
            if self.changed.wait_until(&mut phase, deadline).timed_out() {
                return Err(StorageError::Unavailable(cause));
            }
        }
    }

    /// Whether everything in sled can be read: `Err` says why not.
    pub(crate) fn ready(&self) -> Result<(), StorageError> {
        match &*self.phase.lock() {
            Phase::Open(_) => Ok(()),
            Phase::Failed { cause, .. } => Err(StorageError::Unavailable(cause.clone())),
            Phase::Closed => Err(closed()),
        }
    }

    /// A write failed.
    pub(crate) fn fail(&self, cause: Arc<str>) {
        let mut phase = self.phase.lock();
        let before = match std::mem::replace(&mut *phase, Phase::Closed) {
            Phase::Open(trees) => Some(trees),
            Phase::Failed { before, .. } => before,
            Phase::Closed => return,
        };
        *phase = Phase::Failed { before, cause };
    }

    /// Takes sled away from readers, to close it.
    pub(crate) fn take(&self) -> Option<Arc<Trees>> {
        let mut phase = self.phase.lock();
        match &mut *phase {
            Phase::Failed { before, .. } => before.take(),
            Phase::Open(_) => match std::mem::replace(&mut *phase, Phase::Closed) {
                Phase::Open(trees) => Some(trees),
                Phase::Failed { .. } | Phase::Closed => None,
            },
            Phase::Closed => None,
        }
    }

    /// The generation of the next sled that is opened.
    pub(crate) fn next_generation(&self) -> u64 {
        self.generation.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Sled is open again.
    pub(crate) fn reopened(&self, trees: Trees) {
        *self.phase.lock() = Phase::Open(Arc::new(trees));
        self.changed.notify_all();
    }

    /// Nothing is read any more.
    pub(crate) fn closed(&self) {
        *self.phase.lock() = Phase::Closed;
        self.changed.notify_all();
    }
}

fn closed() -> StorageError {
    StorageError::unavailable("the database is closed")
}
