//! What is sent elsewhere as it is written: files of the archive, and what the commit log has after them; and a backup
//! made from that.
//!
//! ```text
//! 00000016.log.zst               a file of the archive, as it is there
//! 1000000000000120.log.zst       a tail: frames 120 and on, which no file of the archive had yet
//! ```
//!
//! Keeps: a tail has frames that were synced, and all of them from its first to its last one. Leaves out: where they
//! are sent.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::copy::digest;
use super::folder::{BackupError, Backups};
use super::manifest::{Manifest, ManifestFile, hex, unhex};
use super::take::{Origin, archive_of, last_of, snapshot};
use crate::model::{RemoteId, Sequence};
use crate::storage::archive::{Archive, ArchiveError, NOTE};
use crate::storage::commit_log::{Found, Generation, LogError, LogOptions, Position, read_running};
use crate::storage::sled::shared::Shared;
use crate::storage::sled::tree::Facts;
use crate::storage::{Snapshot, StorageError};

const VERSION: u32 = 1;

/// A file may be released while it is read, if the archive has just got it: how often that is tried again.
const TRIES: usize = 3;

/// What the commit log has and the archive does not have yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tail {
    /// The file's name in its folder.
    pub name: String,
    /// The number of the first change in it.
    pub first: u64,
    /// The number of the last change in it.
    pub last: u64,
    /// The time of the last change: milliseconds since 1970.
    pub time_ms: u64,
    /// Its size in bytes.
    pub bytes: u64,
}

/// What must be known about a data directory besides its files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DirectoryNote {
    version: u32,
    remote_id: String,
    generation: String,
    floor: u64,
    complete: bool,
}

impl DirectoryNote {
    /// The name of the file that contains it, in the folder of an archive: a copy of such a folder can be restored
    /// because of it.
    pub const FILE: &str = NOTE;

    /// The note of the directory that `snapshot` comes from.
    pub fn of(snapshot: &Snapshot) -> Self {
        Self {
            version: VERSION,
            remote_id: hex(snapshot.remote_id.as_bytes()),
            generation: hex(&snapshot.generation),
            floor: snapshot.floor.get(),
            complete: snapshot.complete,
        }
    }

    /// The note of a directory with these facts. `complete` says whether its commit log began with an empty database.
    pub(in crate::storage::sled) fn new(facts: &Facts, complete: bool) -> Self {
        Self {
            version: VERSION,
            remote_id: hex(facts.remote_id.as_bytes()),
            generation: hex(&facts.generation),
            floor: facts.floor.get(),
            complete,
        }
    }

    /// The generation, in hexadecimal digits.
    pub fn generation(&self) -> &str {
        &self.generation
    }

    /// Reads the note from this line of JSON. `None` if this version does not know it.
    pub fn decode(text: &[u8]) -> Option<Self> {
        serde_json::from_slice(text).ok().filter(|note: &Self| note.version == VERSION)
    }

    /// The note as a line of JSON.
    pub fn encode(&self) -> String {
        // It consists only of texts and numbers.
        serde_json::to_string(self).unwrap_or_default()
    }

    fn origin(&self) -> Option<(Origin, Sequence)> {
        let remote_id = RemoteId::from_slice(&unhex(&self.remote_id)?)?;
        let generation = Generation(unhex(&self.generation)?);
        let origin = Origin { remote_id, generation, complete: self.complete };
        Some((origin, Sequence::new(self.floor).ok()?))
    }
}

impl Tail {
    /// The name of a tail whose first change has this number.
    pub fn name_of(first: u64) -> String {
        format!("{:08}.log.zst", crate::storage::archive::TAILS_FROM + first)
    }
}

/// Writes what comes after the change `behind` and after the archive to a file in `folder`.
pub(in crate::storage::sled) fn tail(
    shared: &Shared,
    origin: &Origin,
    behind: u64,
    folder: &Path,
) -> Result<Option<Tail>, StorageError> {
    let archive = archive_of(shared, origin)?;
    let tails = Archive::to_read(folder.to_owned(), origin.generation);
    std::fs::create_dir_all(folder).map_err(StorageError::unavailable)?;
    let mut tries = TRIES;
    loop {
        tries -= 1;
        let listing = archive.files().map_err(StorageError::unavailable)?;
        let from = last_of(&listing).max(Position(behind));
        let last = shared.settled();
        if last <= from {
            return Ok(None);
        }
        let options = LogOptions::new(shared.files.log(), origin.generation);
        let written = tails.write_tail((from.next(), last), |write| {
            let read = read_running(&options, from, last, |found| match found {
                Found::Frame(frame) => write(frame).map_err(Unread::Write),
                Found::Damage(damage) => Err(Unread::Lost(damage.to_string())),
            });
            read.map(drop).map_err(Unread::into_error)
        });
        match written {
            Ok(file) => {
                return Ok(Some(Tail {
                    name: Tail::name_of(file.first.0),
                    first: file.first.0,
                    last: file.last.0,
                    time_ms: file.time_ms,
                    bytes: file.bytes,
                }));
            }
            Err(error) if tries == 0 => return Err(StorageError::unavailable(error)),
            Err(_) => {}
        }
    }
}

/// Why a frame is not written to a tail.
enum Unread {
    Log(LogError),
    Lost(String),
    Write(ArchiveError),
}

impl From<LogError> for Unread {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

impl Unread {
    fn into_error(self) -> ArchiveError {
        match self {
            Self::Log(error) => std::io::Error::other(error.to_string()).into(),
            Self::Lost(what) => std::io::Error::other(what).into(),
            Self::Write(error) => error,
        }
    }
}

impl Backups {
    /// Turns the files in the folder of the generation in `note` into a backup, including tails; the caller has sent
    /// them there. Fails if some are missing.
    pub fn adopt(&self, note: &DirectoryNote, now_millis: u64) -> Result<Manifest, BackupError> {
        let folder = self.path().join(note.generation());
        let damaged = |finding: &str| BackupError::damaged(&folder, finding);
        let (origin, floor) = note.origin().ok_or_else(|| damaged("it has no good note"))?;
        let archive = Archive::to_read(folder.clone(), origin.generation);
        let listing = archive.files().map_err(|cause| BackupError::io(&folder, cause))?;
        if let Some(file) = listing.unreadable.first() {
            return Err(BackupError::damaged(&file.path, &format!("{:?}", file.fault)));
        }
        let snapshot = snapshot(&origin, floor, &listing)
            .map_err(|_| damaged("files are missing between its first and its last change"))?;
        let mut files = Vec::new();
        for file in &snapshot.files {
            let opened = file.open().map_err(|cause| BackupError::io(&file.path, cause))?;
            let (bytes, sha256) =
                digest(opened, |_| Ok(())).map_err(|cause| BackupError::io(&file.path, cause))?;
            files.push(ManifestFile { name: file.name.clone(), bytes, sha256 });
        }
        let manifest = Manifest::new(&snapshot, now_millis, files);
        let path = folder.join(manifest.name());
        let encoded = manifest.encode().map_err(|cause| BackupError::io(&path, cause))?;
        std::fs::write(&path, encoded).map_err(|cause| BackupError::io(&path, cause))?;
        Ok(manifest)
    }
}
