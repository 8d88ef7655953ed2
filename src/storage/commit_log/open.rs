//! Begins a log, or continues one: returns what it holds, decides where it ends, and begins a new file.
//!
//! Keeps: everything that is returned is on disk before `open` returns, so that it can be shown or answered; the last
//! file is read from the disk, not from a cache that a failed sync has made wrong. A log ends where a crash can have
//! cut it off: after its last whole frame there is at most a part of the next one, all files are there, and the last
//! note does not say that it reached further. Anything else is damage, which the caller accepts or not. Leaves out:
//! getting lost frames from elsewhere.

use std::io;
use std::path::Path;

use super::acked::Acked;
use super::files::LogFiles;
use super::walk::{Purpose, walk};
use super::{LogDamage, LogError, LogOptions, LogWriter, Position, folder};

/// A log that is open.
pub(crate) struct Log {
    /// For the thread that commits.
    pub(crate) writer: LogWriter,
    /// For the thread that cleans up.
    pub(crate) files: LogFiles,
    /// The last existing frame; the next one gets the number after it.
    pub(crate) last: Position,
    /// How many blocks had one changed bit, and were repaired.
    pub(crate) repaired: u64,
}

/// What an opening finds, in order.
#[derive(Debug)]
pub(crate) enum Found<'a> {
    /// A frame.
    Frame(FoundFrame<'a>),
    /// Frames that are missing. With `Ok` the caller accepts that, because it got them from elsewhere or gives them up;
    /// what comes after them follows.
    Damage(&'a LogDamage),
}

/// A frame as it was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FoundFrame<'a> {
    /// Its number.
    pub(crate) position: Position,
    /// When it was appended: milliseconds since 1970, never less than that of the previous frame.
    pub(crate) time_ms: u64,
    /// What was written to it.
    pub(crate) body: &'a [u8],
}

/// Whether there is a log in `folder`.
pub(crate) fn exists(folder: &Path) -> io::Result<bool> {
    match folder::list(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        names => Ok(!names?.files.is_empty()),
    }
}

/// Begins a log in a folder that has none, creating the folder; its first frame will be the one after `last`, which is
/// zero for a new directory. On disk when this returns.
pub(crate) fn create(options: LogOptions, last: Position) -> Result<Log, LogError> {
    std::fs::create_dir_all(&options.folder)?;
    if !folder::list(&options.folder)?.files.is_empty() {
        return Err(LogError::Exists(options.folder));
    }
    if let Some(parent) = options.folder.parent() {
        // An empty path means the current directory.
        folder::sync(if parent.as_os_str().is_empty() { Path::new(".") } else { parent })?;
    }
    let files = LogFiles::new(options, [], Vec::new(), 1)?;
    begin(files, last, 0, 0)
}

/// Opens a log, and passes to `visit` every frame after `from`, in order, and all damage that affects one of those.
///
/// `seen` is the last frame that is known from elsewhere to have been acknowledged: a log that ends before it is
/// damaged. An error from `visit` stops it. Nothing is changed then, except for repaired bits.
pub(crate) fn open<E: From<LogError>>(
    options: LogOptions,
    from: Position,
    seen: Position,
    visit: impl FnMut(Found<'_>) -> Result<(), E>,
) -> Result<Log, E> {
    let walked = walk(&options, from, seen, Purpose::Open, visit)?;
    let log = LogFiles::new(options, walked.files, walked.ahead, walked.next_file)
        .map_err(LogError::from)
        .and_then(|files| begin(files, walked.last, walked.time, walked.repaired));
    Ok(log?)
}

fn begin(files: LogFiles, last: Position, time: u64, repaired: u64) -> Result<Log, LogError> {
    let begun = files.begin(last.next(), time, 1)?;
    let options = files.options();
    let (generation, seam) = (options.generation, options.seam.clone());
    let acked = Acked::start(&options.folder, generation, seam, begun.header.file, last)?;
    files.note_with(acked.files(), begun.header.file);
    let writer = LogWriter::new(files.clone(), acked, begun);
    Ok(Log { writer, files, last, repaired })
}

impl From<LogDamage> for LogError {
    fn from(damage: LogDamage) -> Self {
        Self::Damaged(damage)
    }
}
