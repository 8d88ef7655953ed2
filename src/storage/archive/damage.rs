//! What can be wrong with an archive, as reported to the caller.

use std::io;
use std::path::PathBuf;

use crate::storage::commit_log::{LogError, Position};

/// Why an archive could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArchiveError {
    /// The disk failed, or is full.
    #[error("the archive is unavailable: {0}")]
    Unavailable(#[from] io::Error),
    /// The log to archive cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// What was read back differs from what was written.
    #[error("{0} was not read back as it was written")]
    ReadBack(PathBuf),
}

/// Frames that the archive had, or should have, and cannot return.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ArchiveDamage {
    /// The file with the fault; the folder if a file is missing.
    pub(crate) path: PathBuf,
    /// What is wrong.
    pub(crate) kind: ArchiveDamageKind,
    /// The first frame that is missing.
    pub(crate) from: Position,
    /// The last one that is missing; `None` if that is not known.
    pub(crate) to: Option<Position>,
}

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ArchiveDamageKind {
    /// There is no file with these frames.
    Missing,
    /// The file does not say what it is, or says that it is another one.
    Head,
    /// The file belongs to another directory's archive.
    Foreign,
    /// The file was written by a later version.
    Version,
    /// A part of the file has changed.
    Chunk,
    /// The log had lost these frames when it was archived.
    Gap,
}

impl ArchiveDamage {
    /// What is wrong, without the file.
    pub(crate) fn finding(&self) -> String {
        let what = match self.kind {
            ArchiveDamageKind::Missing => "a file is missing",
            ArchiveDamageKind::Head => "its header is wrong",
            ArchiveDamageKind::Foreign => "it belongs to another directory",
            ArchiveDamageKind::Version => "a later version wrote it",
            ArchiveDamageKind::Chunk => "a part was changed",
            ArchiveDamageKind::Gap => "frames were lost before they came here",
        };
        match self.to {
            Some(to) if to == self.from => format!("{what}; frame {to} is lost"),
            Some(to) => format!("{what}; frames {} to {to} are lost", self.from),
            None => format!("{what}; frames from {} on are lost", self.from),
        }
    }
}

impl std::fmt::Display for ArchiveDamage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.finding())
    }
}
