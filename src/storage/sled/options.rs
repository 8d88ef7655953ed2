//! How a [`Database`](super::Database) is opened, and why that can fail.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::backup::BackupError;
use crate::storage::archive::{ArchiveError, Retention};
use crate::storage::commit_log::LogError;
use crate::storage::{StorageError, Work};

/// How a [`Database`](super::Database) is opened. The defaults suit a server.
#[derive(Clone, Debug)]
pub struct DatabaseOptions {
    /// How much of its pages sled may keep in memory, in bytes. The default is 64 MiB. Sled takes somewhat more than
    /// this.
    pub cache_bytes: u64,
    /// Disk space that is reserved so that the database can still be opened when the disk is full, in bytes. The
    /// default is 32 MiB.
    pub ballast_bytes: u64,
    /// A checkpoint starts when the commit log has this much that is not in sled, in bytes of memory. The default is 32
    /// MiB. It is kept in memory until then, and is read again after a kill.
    pub checkpoint_bytes: u64,
    /// A checkpoint starts at the latest this long after the previous one, if anything was written. The default is a
    /// minute. A file of the commit log is finished at the latest this long after something was written to it.
    pub checkpoint_every: Duration,
    /// Writers wait while the commit log has this much that is not in sled, in bytes of memory. The default is 128 MiB.
    /// The last eighth is for stores that have little of it: those with more than a 128th of the maximum wait before.
    pub unapplied_bytes_max: u64,
    /// With less free disk space than this, there are warnings, in bytes. The default is 1 GiB.
    pub disk_low_bytes: u64,
    /// With less free disk space than this, no entries are accepted, in bytes. The default is 256 MiB. Entries can
    /// still be read, and everything else continues: trimming, removing and revoking, which need little space. With 0,
    /// entries are accepted until the disk is full.
    pub disk_full_bytes: u64,
    /// The length of a file of the commit log, in bytes. The default is 64 MiB. The first files of a directory are
    /// smaller.
    pub log_file_bytes: u64,
    /// How exactly commit times of entries are kept. Entries committed within this time may count as committed at the end of it. The
    /// default is ten minutes.
    pub times_apart: Duration,
    /// What happens to finished files of the commit log.
    pub archive: ArchiveOptions,
    /// When erased content is removed from files.
    pub scrub: ScrubOptions,
    /// Where a rebuild or a restore says how far it is.
    pub work: Work,
}

/// When the content of erased entries is removed from files: the commit log, free space of the database, the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrubOptions {
    /// The removal begins this long after an erasure, and covers everything erased in that time. The default is 15 minutes. How long it
    /// takes depends on the amount of data: about 50 MiB of entries per second.
    pub after: Duration,
    /// Data that was kept aside before an erasure is removed this long after it: damaged databases, the content before `heal`, a directory of
    /// an earlier format. The default is seven days.
    pub kept_aside: Duration,
}

impl Default for ScrubOptions {
    fn default() -> Self {
        let day = Duration::from_secs(24 * 60 * 60);
        Self { after: Duration::from_secs(15 * 60), kept_aside: day * 7 }
    }
}

/// What happens to finished files of the commit log. By default, all of them are kept, compressed, in `archive` in the data directory.
/// A damaged database can be rebuilt from them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveOptions {
    /// Whether finished files are kept.
    pub enabled: bool,
    /// The folder, if it is not in the data directory.
    pub dir: Option<PathBuf>,
    /// Keep at most this many bytes.
    pub bytes_max: Option<u64>,
    /// Keep no file that is older.
    pub age_max: Option<Duration>,
    /// How many bytes of finished files may wait while the archive cannot be written. The default is 4 GiB. Beyond
    /// that, the oldest files are released, and the archive gets a new base when it can be written again.
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
            scrub: ScrubOptions::default(),
            work: Work::default(),
        }
    }
}

/// A data directory could not be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has it open, or this one already has.
    #[error("the data directory {path:?} is in use by another process; stop that process first")]
    InUse {
        /// The data directory.
        path: PathBuf,
    },
    /// It contains files, but none that identifies a data directory.
    #[error("{path:?} is not a data directory: it has other files, and no file `format`")]
    Foreign {
        /// The directory.
        path: PathBuf,
    },
    /// It should be made from a backup, and there is none, or it is damaged. Nothing was made.
    #[error("nothing was restored: {cause}")]
    Backup {
        /// What is wrong with it.
        cause: BackupError,
    },
    /// A restore into it did not finish.
    #[error(
        "a restore or a move into {path:?} is under way, or did not finish: run it again, or remove the directory"
    )]
    Unfinished {
        /// The directory.
        path: PathBuf,
    },
    /// Everything in it was moved elsewhere, where the server continues.
    #[error(
        "the data directory {path:?} was moved to {to}, where the server continues: `eventlog-server migrate --from URL --to-data-dir NEW` \
         moves it back"
    )]
    Moved {
        /// The data directory.
        path: PathBuf,
        /// Where it was moved to.
        to: String,
    },
    /// Another version of the server wrote it.
    #[error("the data directory {path:?} has a format that this version does not know: {found:?}")]
    UnknownFormat {
        /// The data directory.
        path: PathBuf,
        /// The content of its file `format`.
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
    /// The content is damaged.
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

/// The beginning of a hint at this command.
const ACCEPT_LOSS: &str = "`eventlog-server accept-loss";

/// Why a step of opening failed.
#[derive(Debug)]
pub(crate) enum OpenFailure {
    Io(io::Error),
    /// The database is damaged. It may be possible to rebuild it.
    Corrupt(String),
    /// Something is damaged and cannot be repaired.
    Refused(String),
}

impl OpenFailure {
    /// The data that was found is not the data that was written.
    pub(crate) fn corrupt(finding: impl std::fmt::Display) -> Self {
        Self::Corrupt(finding.to_string())
    }

    /// Converts this to the error of opening the data directory `path`.
    pub(crate) fn of(self, path: &Path) -> OpenError {
        match self {
            Self::Io(error) => OpenError::unavailable(path, &error),
            Self::Corrupt(finding) | Self::Refused(finding) => {
                // Where a log is damaged, nobody knows the directory.
                let named = format!("{ACCEPT_LOSS} --data-dir {}`", path.display());
                OpenError::corrupt(path, &finding.replace(&format!("{ACCEPT_LOSS}`"), &named))
            }
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
                 missing, or give it up with {ACCEPT_LOSS}`"
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
