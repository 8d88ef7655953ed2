//! A file of the archive before it is complete. That of a log file can be begun while the log file is still written to: then
//! it need not be read again.

use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};

use super::Archive;
use super::chunk::{Chunks, Plain, Press};
use super::head::HEAD_BYTES;
use super::names::{self, Kind, Name};
use crate::storage::commit_log::{FinishedFile, Place, Position};

/// A file of the archive without its head and its name. It is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Draft {
    path: PathBuf,
    pub(super) chunks: Chunks,
    /// The number of its log file, and of the first frame there.
    log: Option<(u64, Position)>,
    /// Where the log file goes on.
    next: Option<Place>,
}

impl Archive {
    /// Begins the file for the log file with this number, which begins with the frame `first`.
    pub(crate) fn draft(&self, number: u64, first: Position) -> io::Result<Draft> {
        let name = Name { number, kind: Kind::Log, version: 1 };
        Draft::with(&name.path(&self.folder), Some((number, first)))
    }
}

impl Draft {
    /// An empty one, which becomes the file `path`.
    pub(super) fn new(path: &Path) -> io::Result<Self> {
        Self::with(path, None)
    }

    fn with(path: &Path, log: Option<(u64, Position)>) -> io::Result<Self> {
        let path = names::unfinished(path);
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(true).open(&path)?;
        Ok(Self { path, chunks: Chunks::new(file, HEAD_BYTES), log, next: None })
    }

    /// Adds the next frames of the log file, which goes on at `next`.
    pub(crate) fn add(&mut self, press: &mut Press, plain: &Plain, next: Place) -> io::Result<()> {
        self.chunks.add(press, plain)?;
        self.next = Some(next);
        Ok(())
    }

    /// The number of its log file.
    pub(crate) fn number(&self) -> Option<u64> {
        self.log.map(|(number, _)| number)
    }

    /// Where the log file goes on behind the frames that were added.
    pub(crate) const fn next(&self) -> Option<Place> {
        self.next
    }

    /// Whether it has the first frames of `log`, and no others.
    pub(super) fn begins(&self, log: &FinishedFile) -> bool {
        self.log == Some((log.number, log.first))
            && self.next.is_none_or(|next| next.position <= log.last.next())
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives it its name.
    pub(super) fn rename(mut self, path: &Path) -> io::Result<()> {
        std::fs::rename(&self.path, path)?;
        self.path.clear();
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // If it stays, the next opening removes it.
        if !self.path.as_os_str().is_empty() {
            drop(std::fs::remove_file(&self.path));
        }
    }
}
