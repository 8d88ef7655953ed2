//! Reads a whole log and says what is wrong with it.

use super::open::Found;
use super::walk::{Purpose, walk};
use super::{LogDamage, LogError, LogOptions, Position};

/// What a log holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verified {
    /// How many frames were read and are whole.
    pub(crate) frames: u64,
    /// The last one.
    pub(crate) last: Position,
    /// Blocks with one changed bit, which the next opening puts right.
    pub(crate) repairable: u64,
    /// What cannot be read.
    pub(crate) damages: Vec<LogDamage>,
}

/// Gives `visit` every frame behind `from`, in order, and every damage that took one of those. Writes nothing; nobody else may write
/// either. Returns the last frame. `seen` is as for [`super::open`].
pub(crate) fn read<E: From<LogError>>(
    options: &LogOptions,
    from: Position,
    seen: Position,
    visit: impl FnMut(Found<'_>) -> Result<(), E>,
) -> Result<Position, E> {
    Ok(walk(options, from, seen, Purpose::Verify, visit)?.last)
}

/// As [`read`], up to `last`, while the writer goes on appending: `last` was appended before the call. What is released meanwhile is
/// given as damaged, or is an error.
pub(crate) fn read_running<E: From<LogError>>(
    options: &LogOptions,
    from: Position,
    last: Position,
    visit: impl FnMut(Found<'_>) -> Result<(), E>,
) -> Result<Position, E> {
    Ok(walk(options, from, last, Purpose::Running(last), visit)?.last)
}

/// Reads every frame behind `from`. Writes nothing; nobody else may write either. `seen` is as for [`super::open`].
pub(crate) fn verify(
    options: &LogOptions,
    from: Position,
    seen: Position,
) -> Result<Verified, LogError> {
    look(options, from, seen, Purpose::Verify)
}

/// Reads every frame behind `from` up to `last`, which is the writer's [`super::LogWriter::last`] from before the call, while
/// it goes on appending. No file may be released meanwhile.
pub(crate) fn verify_running(
    options: &LogOptions,
    from: Position,
    last: Position,
) -> Result<Verified, LogError> {
    look(options, from, last, Purpose::Running(last))
}

fn look(
    options: &LogOptions,
    from: Position,
    seen: Position,
    purpose: Purpose,
) -> Result<Verified, LogError> {
    let mut damages = Vec::new();
    let walked = walk(options, from, seen, purpose, |found| {
        if let Found::Damage(damage) = found {
            damages.push(damage.clone());
        }
        Ok::<(), LogError>(())
    })?;
    let (frames, last, repairable) = (walked.frames, walked.last, walked.repaired);
    Ok(Verified { frames, last, repairable, damages })
}
