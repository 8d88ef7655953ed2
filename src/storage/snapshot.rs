//! What a backup is made from: files that hold everything up to one moment.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use crate::model::{RemoteId, Sequence};

/// Everything that a storage had at one moment, in files that never change. They may be removed later, when the storage
/// no longer needs them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The remote id of the server.
    pub remote_id: RemoteId,
    /// Identifies the data directory: files of another one are unrelated to these, whatever their names.
    pub generation: [u8; 16],
    /// New stores begin after this sequence.
    pub floor: Sequence,
    /// Whether the files begin with an empty storage, and not with one that contains everything before them.
    pub complete: bool,
    /// The number of the last change in them.
    pub position: u64,
    /// Its time: milliseconds since 1970.
    pub time_ms: u64,
    /// In the order in which they are read.
    pub files: Vec<SnapshotFile>,
}

/// A file of a [`Snapshot`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotFile {
    /// Never reused within the generation.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// How many bytes it has.
    pub bytes: u64,
}

impl SnapshotFile {
    /// Opens it for reading.
    #[expect(clippy::disallowed_methods, reason = "it is a file of the storage")]
    pub fn open(&self) -> io::Result<File> {
        File::open(&self.path)
    }
}
