//! The steps in which the log uses the disk, and the seam where tests make them fail.

use std::io;
use std::sync::Arc;

/// A step that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum LogStep {
    /// Hand a frame to the kernel.
    Write,
    /// Make the kernel hand it to the disk.
    Sync,
    /// Begin a file.
    Begin,
    /// Note how far the log reaches.
    Acked,
    /// Make a file ahead of time.
    Prepare,
    /// Read what comes after the last good frame, after a failure.
    Salvage,
}

/// Decides in tests which steps fail; a server has none.
pub(crate) trait Seam: Send + Sync {
    /// What happens to this step.
    fn fault(&self, step: LogStep) -> Fault;
}

/// What happens to a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(test), expect(dead_code, reason = "faults are made in tests alone"))]
pub(crate) enum Fault {
    /// Nothing: it is done.
    None,
    /// It is not done, and fails.
    NotDone,
    /// It is done, but reports a failure.
    DoneAnyway,
}

/// Does `step` unless a fault is to happen.
pub(super) fn take<T>(
    seam: Option<&Arc<dyn Seam>>,
    step: LogStep,
    real: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    let injected = || io::Error::other(format!("injected at {step:?}"));
    match seam.map_or(Fault::None, |seam| seam.fault(step)) {
        Fault::None => real(),
        Fault::NotDone => Err(injected()),
        Fault::DoneAnyway => real().and_then(|_| Err(injected())),
    }
}
