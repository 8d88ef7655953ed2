//! What one backup consists of.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::folder::BackupError;
use crate::model::{RemoteId, Sequence};
use crate::storage::Snapshot;
use crate::storage::commit_log::Generation;

const VERSION: u32 = 1;
/// What follows its position in the name of a manifest.
pub(super) const SUFFIX: &str = ".manifest";

/// What one backup consists of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Manifest {
    version: u32,
    remote_id: String,
    pub(super) generation: String,
    floor: u64,
    /// Whether its files begin with an empty storage.
    pub(super) complete: bool,
    /// The number of the last change in it.
    pub position: u64,
    /// The time of that: milliseconds since 1970.
    pub time_millis: u64,
    /// When it was made: milliseconds since 1970.
    pub made_millis: u64,
    /// The files, in the order in which they are read.
    pub files: Vec<ManifestFile>,
}

/// A file of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ManifestFile {
    /// The name of the file.
    pub name: String,
    /// The size in bytes.
    pub bytes: u64,
    /// The SHA-256 of the whole file, in hexadecimal digits.
    pub sha256: String,
}

impl Manifest {
    /// The manifest of a copy of `snapshot`, made at this time.
    pub(super) fn new(snapshot: &Snapshot, made_millis: u64, files: Vec<ManifestFile>) -> Self {
        Self {
            version: VERSION,
            remote_id: hex(snapshot.remote_id.as_bytes()),
            generation: hex(&snapshot.generation),
            floor: snapshot.floor.get(),
            complete: snapshot.complete,
            position: snapshot.position,
            time_millis: snapshot.time_ms,
            made_millis,
            files,
        }
    }

    /// The total size of its files in bytes.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// The folder of the backup.
    pub(super) fn folder(&self) -> &str {
        &self.generation
    }

    /// The name of its file.
    pub(super) fn name(&self) -> String {
        format!("{:020}{SUFFIX}", self.position)
    }

    pub(super) fn encode(&self) -> io::Result<Vec<u8>> {
        let mut line = serde_json::to_vec(self)?;
        let sum = hex(&Sha256::digest(&line));
        line.extend_from_slice(format!("\n{sum}\n").as_bytes());
        Ok(line)
    }

    /// Reads the manifest in the file `path`.
    pub(super) fn read(path: &Path) -> Result<Self, BackupError> {
        let text = std::fs::read(path).map_err(|cause| BackupError::io(path, cause))?;
        let damaged = |finding: &str| BackupError::damaged(path, finding);
        let text = std::str::from_utf8(&text).map_err(|_| damaged("it is no text"))?;
        let (line, sum) = text.split_once('\n').ok_or_else(|| damaged("it is cut off"))?;
        if sum.strip_suffix('\n') != Some(&hex(&Sha256::digest(line))) {
            return Err(damaged("its checksum differs"));
        }
        let manifest: Self =
            serde_json::from_str(line).map_err(|error| damaged(&error.to_string()))?;
        if manifest.version != VERSION {
            return Err(damaged("a later version wrote it"));
        }
        let is_plain =
            |name: &str| !name.starts_with('.') && !name.is_empty() && !name.contains(['/', '\\']);
        if !manifest.files.iter().all(|file| is_plain(&file.name)) || manifest.name_is_not(path) {
            return Err(damaged("its names are none of a backup"));
        }
        Ok(manifest)
    }

    fn name_is_not(&self, path: &Path) -> bool {
        path.file_name().is_none_or(|name| *name.to_string_lossy() != self.name())
    }

    pub(super) fn origin(&self) -> Option<(RemoteId, Generation, Sequence)> {
        let remote_id = RemoteId::from_slice(&unhex(&self.remote_id)?)?;
        let generation = Generation(unhex(&self.generation)?);
        Some((remote_id, generation, Sequence::new(self.floor).ok()?))
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a `String` does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

pub(super) fn unhex(text: &str) -> Option<[u8; 16]> {
    let number = u128::from_str_radix(text, 16).ok().filter(|_| text.len() == 32)?;
    Some(number.to_be_bytes())
}
