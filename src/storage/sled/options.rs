//! How a [`Database`](super::Database) is opened, and why that can fail.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::storage::StorageError;
use crate::storage::archive::{ArchiveError, Retention};
use crate::storage::commit_log::LogError;

/// How a [`Database`](super::Database) is opened. The defaults suit a server.
#[derive(Clone, Debug)]
pub struct DatabaseOptions {
    /// What sled may keep of its pages in memory, in bytes; 64 MiB by default. It takes somewhat more than it is told.
    pub cache_bytes: u64,
    /// Disk space set aside so that the database can still be opened when the disk is full, in bytes; 32 MiB by
    /// default.
    pub ballast_bytes: u64,
    /// A checkpoint begins once so much is in the commit log and not in sled, in bytes of memory; 32 MiB by default. Kept
    /// in memory until then; after a kill so much is read again.
    pub checkpoint_bytes: u64,
    /// A checkpoint begins at the latest so long after the one before, if anything was written; a minute by default. A file of
    /// the commit log is finished at the latest so long after something was written to it.
    pub checkpoint_every: Duration,
    /// Writers wait while so much is in the commit log and not in sled, in bytes of memory; 128 MiB by default.
    pub unapplied_bytes_max: u64,
    /// With less room than this on the disk there are warnings, in bytes; 1 GiB by default.
    pub disk_low_bytes: u64,
    /// With less room than this on the disk no entries are taken, in bytes; 256 MiB by default. What is there can be read, and everything
    /// else goes on: trimming, removing and revoking, which need little room. 0: entries are taken until the disk is full.
    pub disk_full_bytes: u64,
    /// Length of a file of the commit log, in bytes; 64 MiB by default. The first ones of a directory are smaller.
    pub log_file_bytes: u64,
    /// How exactly it is kept when the entries of a store were committed: what was committed within so long may count as committed at the end
    /// of it; ten minutes by default.
    pub times_apart: Duration,
    /// What becomes of finished files of the commit log.
    pub archive: ArchiveOptions,
}

/// What becomes of finished files of the commit log. By default all of them are kept, compressed, in `archive` in the data
/// directory: with them a damaged database is built again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveOptions {
    /// Whether they are kept.
    pub enabled: bool,
    /// Where, if not in the data directory.
    pub dir: Option<PathBuf>,
    /// At most so many bytes of them.
    pub bytes_max: Option<u64>,
    /// None that are older.
    pub age_max: Option<Duration>,
    /// How many bytes of finished files wait while the archive cannot be written; 4 GiB by default. Then the oldest are let go of,
    /// and it gets a new base once it can be written.
    pub waiting_bytes_max: u64,
}

impl Default for ArchiveOptions {
    fn default() -> Self {
        let waiting_bytes_max = 4 << 30;
        Self { enabled: true, dir: None, bytes_max: None, age_max: None, waiting_bytes_max }
    }
}

impl ArchiveOptions {
    pub(super) fn retention(&self) -> Retention {
        let milliseconds = |age: Duration| u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        Retention { bytes_max: self.bytes_max, age_max_ms: self.age_max.map(milliseconds) }
    }
}

impl Default for DatabaseOptions {
    fn default() -> Self {
        Self {
            cache_bytes: 64 << 20,
            ballast_bytes: 32 << 20,
            checkpoint_bytes: 32 << 20,
            checkpoint_every: Duration::from_secs(60),
            unapplied_bytes_max: 128 << 20,
            disk_low_bytes: 1 << 30,
            disk_full_bytes: 256 << 20,
            log_file_bytes: 64 << 20,
            times_apart: Duration::from_secs(10 * 60),
            archive: ArchiveOptions::default(),
        }
    }
}

/// A data directory could not be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open, or this one has already.
    #[error("the data directory {path:?} is in use by another process")]
    InUse {
        /// The data directory.
        path: PathBuf,
    },
    /// It holds files, but none that says that it is a data directory.
    #[error("{path:?} is not a data directory: it has other files, and no file `format`")]
    Foreign {
        /// The directory.
        path: PathBuf,
    },
    /// It is to be made of a backup, and there is none, or a damaged one. Nothing was made.
    #[error("nothing was restored: {cause}")]
    Backup {
        /// What is wrong with it.
        cause: Arc<str>,
    },
    /// A restore into it did not finish.
    #[error(
        "a restore into {path:?} is under way, or did not finish: run it again, or remove the directory"
    )]
    Unfinished {
        /// The directory.
        path: PathBuf,
    },
    /// Another version of the server wrote it.
    #[error("the data directory {path:?} has a format that this version does not know: {found:?}")]
    UnknownFormat {
        /// The data directory.
        path: PathBuf,
        /// What its file `format` says.
        found: String,
    },
    /// The disk failed.
    #[error("the data directory {path:?} cannot be opened: {cause}")]
    Unavailable {
        /// The data directory.
        path: PathBuf,
        /// What went wrong.
        cause: Arc<str>,
    },
    /// What it holds is not what was written.
    #[error("the data directory {path:?} is corrupt: {finding}")]
    Corrupt {
        /// The data directory.
        path: PathBuf,
        /// What is wrong.
        finding: Arc<str>,
    },
}

impl OpenError {
    pub(crate) fn unavailable(path: &Path, cause: &dyn std::fmt::Display) -> Self {
        Self::Unavailable { path: path.to_owned(), cause: cause.to_string().into() }
    }

    pub(crate) fn corrupt(path: &Path, finding: &dyn std::fmt::Display) -> Self {
        Self::Corrupt { path: path.to_owned(), finding: finding.to_string().into() }
    }
}

/// Why a step of opening failed.
#[derive(Debug)]
pub(crate) enum OpenFailure {
    Io(io::Error),
    /// The database is not what was written: it may be possible to build it again.
    Corrupt(String),
    /// Something is not what was written, and there is nothing to put it right with.
    Refused(String),
}

impl OpenFailure {
    /// What was found is not what was written.
    pub(crate) fn corrupt(finding: impl std::fmt::Display) -> Self {
        Self::Corrupt(finding.to_string())
    }

    /// As the error of opening the data directory `path`.
    pub(crate) fn of(self, path: &Path) -> OpenError {
        match self {
            Self::Io(error) => OpenError::unavailable(path, &error),
            Self::Corrupt(finding) | Self::Refused(finding) => OpenError::corrupt(path, &finding),
        }
    }
}

impl From<OpenFailure> for io::Error {
    fn from(failure: OpenFailure) -> Self {
        match failure {
            OpenFailure::Io(error) => error,
            OpenFailure::Corrupt(finding) | OpenFailure::Refused(finding) => {
                Self::new(io::ErrorKind::InvalidData, finding)
            }
        }
    }
}

impl From<io::Error> for OpenFailure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<sled::Error> for OpenFailure {
    fn from(error: sled::Error) -> Self {
        match error {
            sled::Error::Io(error) => Self::Io(error),
            error @ (sled::Error::Corruption { .. }
            | sled::Error::ReportableBug(_)
            | sled::Error::Unsupported(_)
            | sled::Error::CollectionNotFound(_)) => Self::Corrupt(error.to_string()),
        }
    }
}

impl From<LogError> for OpenFailure {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Unavailable(error) => Self::Io(error),
            LogError::Damaged(damage) => Self::Refused(format!(
                "the commit log is damaged, and nothing else has what it lost: {damage}. Put back what is \
                 missing, or give it up with `eventlog-server accept-loss`"
            )),
            error => Self::Refused(error.to_string()),
        }
    }
}

impl From<ArchiveError> for OpenFailure {
    fn from(error: ArchiveError) -> Self {
        match error {
            ArchiveError::Unavailable(error) => Self::Io(error),
            ArchiveError::Log(error) => error.into(),
            error @ ArchiveError::ReadBack(_) => Self::Refused(error.to_string()),
        }
    }
}

impl From<sled::Error> for StorageError {
    fn from(error: sled::Error) -> Self {
        match OpenFailure::from(error) {
            OpenFailure::Io(error) => Self::unavailable(error),
            OpenFailure::Corrupt(finding) | OpenFailure::Refused(finding) => Self::corrupt(finding),
        }
    }
}

impl From<StorageError> for OpenFailure {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Unavailable(cause) => Self::Io(io::Error::other(cause.to_string())),
            StorageError::Corrupt(finding) => Self::Corrupt(finding.to_string()),
        }
    }
}
