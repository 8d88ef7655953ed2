//! The steps in which the database touches the disk, and the seam at which tests make them fail.

use std::io;

/// A step that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    /// Make empty slots, ahead of the data that goes there.
    Place,
    /// Apply one group's changes to one tree, in memory.
    Apply,
    /// Hand sled's buffers to the kernel.
    Flush,
    /// Have the kernel hand them to the disk.
    Sync,
    /// Find out whether the disk works again.
    Probe,
    /// Open sled again.
    Reopen,
}

/// Decides in tests which steps fail; a server has none.
pub(crate) trait Faults: Send + Sync {
    /// What happens to this step.
    fn fault(&self, step: Step) -> Fault;
}

/// What happens to a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(test), expect(dead_code, reason = "faults are made in tests alone"))]
pub(crate) enum Fault {
    /// Nothing: it is done.
    None,
    /// It is not done, and fails.
    NotDone,
    /// It is done, and fails all the same.
    DoneAnyway,
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
