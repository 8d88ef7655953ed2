//! Finished files of the commit log, compressed and kept. A database can be rebuilt from them.
//!
//! Keeps: a file that has its name is complete and was read back from disk; it never changes, and a rewritten file has
//! a version in its name; data that was changed or lost on disk is reported with the frames that it affects, and never
//! returned. Leaves out: what is in a frame (`storage::sled`), when a file is finished (`commit_log`), and when to keep
//! fewer files ([`Retention`] says which).
//!
//! ```text
//! archive/00000016.log.zst     the frames of log/00000016.log
//! archive/00000016.2.log.zst   the same, rewritten once
//! archive/00000017.base.zst    everything before the frames of log file 17: the archive begins with one
//! archive/directory            identifies the directory of the archive, JSON in a line: see `DirectoryNote`
//! archive/*.new                an unfinished file
//! ```
//!
//! Each file is a series of zstd frames, so `zstd -dc` can read it too. `head` describes its first bytes, and `chunk`
//! the rest.

mod chunk;
mod damage;
mod draft;
mod head;
mod names;
mod read;
mod retention;
mod rewrite;
#[cfg(test)]
mod tests;
mod whole;
mod write;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

pub(crate) use chunk::{Plain, Press};
pub(crate) use damage::{ArchiveDamage, ArchiveDamageKind, ArchiveError};
pub(crate) use draft::Draft;
pub(crate) use names::Kind;
pub(crate) use read::Archived;
pub(crate) use retention::Retention;

use crate::storage::Work;
use crate::storage::commit_log::{Generation, Position};

/// The numbers of tails are above those of all files of a log. A tail's number is this plus the number of its first
/// frame. Persisted.
pub(crate) const TAILS_FROM: u64 = 1_000_000_000_000_000;

/// An archive. Clones are handles to the same folder. Only one may write at a time.
#[derive(Clone)]
pub(crate) struct Archive {
    folder: PathBuf,
    generation: Generation,
    /// What is read counts here.
    work: Work,
}

/// A file of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ArchivedFile {
    /// Its path.
    pub(crate) path: PathBuf,
    /// What it holds.
    pub(crate) kind: Kind,
    /// The number of the log file whose frames it has. For a base, the number of the log file that follows.
    pub(crate) number: u64,
    /// How often it was written: 1, 2, 3 and so on.
    pub(crate) version: u32,
    /// The number of its first frame. For a base, the same as `last`.
    pub(crate) first: Position,
    /// The number of its last frame. For a base, the last frame that it includes.
    pub(crate) last: Position,
    /// The time of its last frame: milliseconds since 1970.
    pub(crate) time_ms: u64,
    /// The number of its frames. For a base, the number of its parts.
    pub(crate) frames: u64,
    /// Its size on disk in bytes.
    pub(crate) bytes: u64,
}

/// The files of an archive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Listing {
    /// The files that could be identified.
    pub(crate) files: Vec<ArchivedFile>,
    /// The others.
    pub(crate) unreadable: Vec<Unreadable>,
}

/// A file of an archive that could not be identified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unreadable {
    /// Its path.
    pub(crate) path: PathBuf,
    /// What it should contain, according to its name.
    pub(crate) kind: Kind,
    /// Its number, according to its name.
    pub(crate) number: u64,
    /// What is wrong.
    pub(crate) fault: ArchiveDamageKind,
}

/// The file of this name in the folder identifies the directory of the archive. Without it, a copy of the folder could
/// not be restored.
pub(crate) const NOTE: &str = "directory";

impl Archive {
    /// The archive in `folder`, which is created if necessary. Removes unfinished files, and files that were replaced
    /// by rewritten ones.
    pub(crate) fn open(folder: PathBuf, generation: Generation) -> io::Result<Self> {
        std::fs::create_dir_all(&folder)?;
        let newest = names::list(&folder)?;
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            if names::is_unfinished(&path) || names::is_superseded(&path, &newest) {
                std::fs::remove_file(path)?;
            }
        }
        Ok(Self { folder, generation, work: Work::default() })
    }

    /// Writes this text about the archive's directory to the file [`NOTE`].
    pub(crate) fn note(&self, text: &[u8]) -> io::Result<()> {
        let path = self.folder.join(NOTE);
        if std::fs::read(&path).is_ok_and(|found| found == text) {
            return Ok(());
        }
        let new = path.with_extension("new");
        std::fs::write(&new, text)?;
        File::open(&new)?.sync_all()?;
        std::fs::rename(new, path)?;
        sync_folder(&self.folder)
    }

    /// The archive in `folder`, for reading while another process writes to it.
    pub(crate) fn to_read(folder: PathBuf, generation: Generation) -> Self {
        Self { folder, generation, work: Work::default() }
    }

    /// What is read of it counts there.
    pub(crate) fn counting(self, work: &Work) -> Self {
        Self { work: work.clone(), ..self }
    }

    /// The files, each in its latest version: by number, with a base before the log file of the same number.
    pub(crate) fn files(&self) -> io::Result<Listing> {
        loop {
            match self.list() {
                // The file was removed after its name was read. Its replacement may also be new, so the names are read
                // again. This ends, since files are removed less often than a folder is read.
                Err(error) if error.kind() == io::ErrorKind::NotFound && self.folder.is_dir() => {}
                listed => return listed,
            }
        }
    }

    fn list(&self) -> io::Result<Listing> {
        let mut listing = Listing::default();
        for name in names::list(&self.folder)? {
            match head::read(&self.folder, &name, self.generation)? {
                Ok(file) => listing.files.push(file),
                Err(fault) => {
                    let (path, kind, number) = (name.path(&self.folder), name.kind, name.number);
                    listing.unreadable.push(Unreadable { path, kind, number, fault });
                }
            }
        }
        Ok(listing)
    }

    /// The file with this number, if it could be identified.
    fn find(&self, kind: Kind, number: u64) -> io::Result<Option<ArchivedFile>> {
        let names = names::list(&self.folder)?;
        let name = names.iter().find(|name| (name.kind, name.number) == (kind, number));
        name.map_or(Ok(None), |name| Ok(head::read(&self.folder, name, self.generation)?.ok()))
    }

    /// Removes `files`, oldest first.
    pub(crate) fn remove(&self, files: &[ArchivedFile]) -> io::Result<()> {
        for file in files {
            match std::fs::remove_file(&file.path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => removed?,
            }
        }
        sync_folder(&self.folder)
    }
}

/// Whether `folder` has files of an archive.
pub(crate) fn has_files(folder: &Path) -> bool {
    names::list(folder).is_ok_and(|names| !names.is_empty())
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
