//! Reads the files of earlier backups in a folder again, and finds those that are damaged.
//!
//! Keeps: nothing is changed or removed here. What the archive still has, the next backup copies again. This is done
//! once in a while without being asked: a disk may lose what nobody reads. Leaves out: copying (`copy`).

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::copy::{read_slowly, write_whole};
use super::folder::BackupError;
use super::manifest::ManifestFile;
use crate::storage::sled::commit::now_ms;

/// In the folder of a generation: when its files were last read again, in milliseconds since 1970.
const CHECKED: &str = "checked";
/// A backup that does so unasked comes this much later: a week, in milliseconds.
const CHECK_EVERY_MS: u64 = 7 * 24 * 3_600 * 1_000;

/// What a backup found when it read the files of earlier ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Checked {
    /// The number of files that were read.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Those that were damaged or missing, and were copied again.
    pub repaired: Vec<PathBuf>,
    /// Those that are damaged or missing and that the archive no longer has: backups that need them cannot be restored.
    pub lost: Vec<PathBuf>,
}

/// Whether the files in `folder` have not been read for a week.
pub(super) fn is_due(folder: &Path) -> bool {
    let last = std::fs::read_to_string(folder.join(CHECKED)).ok();
    let last = last.and_then(|text| text.trim().parse::<u64>().ok());
    // A time to come is that of a wrong clock.
    last.is_none_or(|last| now_ms().checked_sub(last).is_none_or(|age| age >= CHECK_EVERY_MS))
}

/// Records that all files were read.
pub(super) fn note(folder: &Path) -> Result<(), BackupError> {
    let path = folder.join(CHECKED);
    let written = write_whole(&path, format!("{}\n", now_ms()).as_bytes());
    written.map_err(|cause| BackupError::io(&path, cause))
}

/// Reads all `known` files. Returns how many there are, their bytes, and which are not what they were.
pub(super) fn read(
    folder: &Path,
    known: &BTreeMap<String, ManifestFile>,
) -> Result<(Checked, BTreeSet<String>), BackupError> {
    let (mut checked, mut damaged) = (Checked::default(), BTreeSet::new());
    for (name, file) in known {
        let path = folder.join(name);
        let read = match read_from_disk(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            read => Some(read.map_err(|cause| BackupError::io(&path, cause))?),
        };
        checked.files += 1;
        checked.bytes += file.bytes;
        if read.as_ref().is_none_or(|(bytes, sum)| (*bytes, sum) != (file.bytes, &file.sha256)) {
            damaged.insert(name.clone());
        }
    }
    Ok((checked, damaged))
}

/// The size of a file and its SHA-256, of what is on the disk rather than in memory, if that can be chosen.
fn read_from_disk(path: &Path) -> io::Result<(u64, String)> {
    let file = File::open(path)?;
    #[cfg(target_os = "linux")]
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    read_slowly(file)
}
