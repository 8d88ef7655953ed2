//! Reads a log without continuing it.

use super::open::Found;
use super::walk::{Purpose, walk};
use super::{LogError, LogOptions, Position};

/// What was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Read {
    /// The last frame.
    pub(crate) last: Position,
    /// How many blocks have one changed bit, which the next opening repairs.
    pub(crate) repairable: u64,
}

/// Passes to `visit` every frame after `from`, in order, and all damage that affects one of those. Writes nothing;
/// nobody else may write either. `seen` is as for [`super::open`].
pub(crate) fn read<E: From<LogError>>(
    options: &LogOptions,
    from: Position,
    seen: Position,
    visit: impl FnMut(Found<'_>) -> Result<(), E>,
) -> Result<Read, E> {
    let walked = walk(options, from, seen, Purpose::Verify, visit)?;
    Ok(Read { last: walked.last, repairable: walked.repaired })
}

/// Like [`read`], up to `last`, while the writer continues appending: `last` was appended before the call. What is
/// released meanwhile is reported as damaged, or is an error.
pub(crate) fn read_running<E: From<LogError>>(
    options: &LogOptions,
    from: Position,
    last: Position,
    visit: impl FnMut(Found<'_>) -> Result<(), E>,
) -> Result<Read, E> {
    let walked = walk(options, from, last, Purpose::Running(last), visit)?;
    Ok(Read { last: walked.last, repairable: walked.repaired })
}
