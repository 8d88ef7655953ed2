//! Finished files of the commit log, compressed and kept: what a database can be built from again.
//!
//! Keeps: a file that has its name is whole and was read back from the disk; it never changes, a rewritten one gets a version in its
//! name; what was changed or lost on disk is told with the frames that it took, and never given. Leaves out: what is in a
//! frame (`storage::sled`), when a file is finished (`commit_log`), and when to keep fewer ([`Retention`] says which).
//!
//! ```text
//! archive/00000016.log.zst     the frames of log/00000016.log
//! archive/00000016.2.log.zst   the same, rewritten once
//! archive/00000017.base.zst    what was before the frames of log file 17: the archive begins with one
//! archive/directory            whose archive it is, JSON in a line: see `DirectoryNote`
//! archive/*.new                one that is being written
//! ```
//!
//! Each is a series of zstd frames, so that `zstd -dc` reads it as well: `head` has its first bytes, `chunk` the rest.

mod chunk;
mod damage;
mod head;
mod names;
mod read;
mod retention;
#[cfg(test)]
mod tests;
mod whole;
mod write;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

pub(crate) use damage::{ArchiveDamage, ArchiveDamageKind, ArchiveError};
pub(crate) use names::Kind;
pub(crate) use read::Archived;
pub(crate) use retention::Retention;

use crate::storage::commit_log::{Generation, Position};

/// Numbers of tails are above those of all files of a log: this and the number of their first frame. Persisted.
pub(crate) const TAILS_FROM: u64 = 1_000_000_000_000_000;

/// An archive. Clones are handles to the same folder; one at a time writes.
#[derive(Clone)]
pub(crate) struct Archive {
    folder: PathBuf,
    generation: Generation,
}

/// A file of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ArchivedFile {
    /// Its path.
    pub(crate) path: PathBuf,
    /// What it holds.
    pub(crate) kind: Kind,
    /// The number of the log file whose frames it has; of a base, of the one whose frames follow.
    pub(crate) number: u64,
    /// How often it was written: 1, 2, 3 and so on.
    pub(crate) version: u32,
    /// The number of its first frame; of a base, as `last`.
    pub(crate) first: Position,
    /// The number of its last frame; of a base, the last frame that it stands for.
    pub(crate) last: Position,
    /// The time of its last frame: milliseconds since 1970.
    pub(crate) time_ms: u64,
    /// How many frames it has; of a base, how many parts.
    pub(crate) frames: u64,
    /// How many bytes it has on disk.
    pub(crate) bytes: u64,
}

/// The files of an archive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Listing {
    /// Those that say what they are.
    pub(crate) files: Vec<ArchivedFile>,
    /// The others.
    pub(crate) unreadable: Vec<Unreadable>,
}

/// A file of an archive that does not say what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unreadable {
    /// Its path.
    pub(crate) path: PathBuf,
    /// What it should hold, by its name.
    pub(crate) kind: Kind,
    /// Its number, by its name.
    pub(crate) number: u64,
    /// What is wrong.
    pub(crate) fault: ArchiveDamageKind,
}

/// What is called so in the folder says whose archive it is: without it a copy of the folder could not be restored.
pub(crate) const NOTE: &str = "directory";

impl Archive {
    /// The archive in `folder`, which is made if it is not there. What was left of a file that was being written is
    /// removed, and so is one that was rewritten.
    pub(crate) fn open(folder: PathBuf, generation: Generation) -> io::Result<Self> {
        std::fs::create_dir_all(&folder)?;
        let newest = names::list(&folder)?;
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            if names::is_unfinished(&path) || names::is_superseded(&path, &newest) {
                std::fs::remove_file(path)?;
            }
        }
        Ok(Self { folder, generation })
    }

    /// Has the file [`NOTE`] say this of the directory that the archive is of.
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

    /// The archive in `folder`, to be read while somebody else writes to it.
    pub(crate) const fn to_read(folder: PathBuf, generation: Generation) -> Self {
        Self { folder, generation }
    }

    /// The files, of each the version that was written last: by number, a base before the log file with its number.
    pub(crate) fn files(&self) -> io::Result<Listing> {
        loop {
            match self.list() {
                // Removed since its name was read, and what it is no longer needed for may have come since too: look at the names again. This ends, as
                // files are removed more seldom than a folder is read.
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

    /// The file with this number, if it says what it is.
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

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
