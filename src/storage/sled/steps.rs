//! The steps in which the database uses the disk, and the seam where tests make them fail.

use std::io;
use std::sync::Arc;

pub(crate) use crate::storage::commit_log::{Fault, LogStep};

use crate::storage::commit_log::Seam;

/// A step that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    /// A step of the commit log.
    Log(LogStep),
    /// Apply a portion of a checkpoint to sled, in memory.
    Apply,
    /// Hand sled's buffers to the kernel.
    Flush,
    /// Make the kernel hand them to the disk.
    TableSync,
    /// Find out whether the disk works again.
    Probe,
    /// Open sled again.
    Reopen,
    /// A step of taking over an earlier format.
    TakeOver(TakeOver),
    /// A step of replacing sled by a smaller copy.
    Compact(Compact),
}

/// A step of replacing sled by a smaller copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Compact {
    Begin,
    Copy,
    Complete,
    Remove,
    Rename,
    Clear,
}

#[cfg(test)]
impl Compact {
    /// All of them, in order.
    pub(crate) const ALL: [Self; 6] =
        [Self::Begin, Self::Copy, Self::Complete, Self::Remove, Self::Rename, Self::Clear];
}

/// A step of taking over an earlier format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum TakeOver {
    Copy,
    Change,
    Complete,
    Keep,
    WriteFormat,
    MoveOld,
    MoveSled,
    MoveLog,
    Clear,
}

#[cfg(test)]
impl TakeOver {
    /// All of them, in order.
    pub(crate) const ALL: [Self; 9] = [
        Self::Copy,
        Self::Change,
        Self::Complete,
        Self::Keep,
        Self::WriteFormat,
        Self::MoveOld,
        Self::MoveSled,
        Self::MoveLog,
        Self::Clear,
    ];
}

/// Decides in tests which steps fail; a server has none.
pub(crate) trait Faults: Send + Sync {
    /// What happens to this step.
    fn fault(&self, step: Step) -> Fault;
}

/// The steps of the commit log.
pub(super) struct LogFaults(pub(super) Arc<dyn Faults>);

impl Seam for LogFaults {
    fn fault(&self, step: LogStep) -> Fault {
        self.0.fault(Step::Log(step))
    }
}

/// Does `step` unless a fault is to happen.
pub(super) fn take<T>(
    faults: Option<&dyn Faults>,
    step: Step,
    real: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    let injected = || io::Error::other(format!("injected at {step:?}"));
    match faults.map_or(Fault::None, |faults| faults.fault(step)) {
        Fault::None => real(),
        Fault::NotDone => Err(injected()),
        Fault::DoneAnyway => real().and_then(|_| Err(injected())),
    }
}
