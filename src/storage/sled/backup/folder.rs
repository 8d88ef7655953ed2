//! A folder with backups.
//!
//! Keeps: a file gets its name when it is on disk and was read back; the manifest is written last, when all its files
//! are there. A crash leaves files without a manifest. The next backup uses them if they are correct, and writes them
//! again otherwise.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::check::{self, Checked};
use super::copy::{copy, digest, write_whole};
use super::held::Held;
use super::manifest::{Manifest, ManifestFile, SUFFIX, hex};
use super::take::{LEDGER, LEDGER_END};
use crate::storage::ledger::ARCHIVED;
use crate::storage::sled::commit::now_ms;
use crate::storage::sled::files::sync_folder;
use crate::storage::{Snapshot, SnapshotFile};

/// In the folder of a generation: a line for each directory that was made from it, with the generation of that directory.
const SUCCESSORS: &str = "successors";

/// A backup cannot be made, or is none.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// The disk failed, or what is read from.
    #[error("{}: {cause}", path.display())]
    Io {
        /// What was read or written.
        path: PathBuf,
        /// What went wrong.
        cause: Arc<io::Error>,
    },
    /// The file is damaged.
    #[error("the backup is damaged: {}: {finding}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        finding: String,
    },
    /// The newest backup is damaged, and an older one was not asked for.
    #[error(
        "the newest backup is damaged: {}: {finding}. The newest one that can be used ends with change {}: remove this file if that is \
         enough, or make another backup",
        path.display(), before.last.position
    )]
    NewestDamaged {
        /// The manifest.
        path: PathBuf,
        /// What is wrong with it.
        finding: String,
        /// The generation of the newest backup that can be used.
        before: Box<Held>,
    },
    /// There is no backup.
    #[error("{} holds no backup", path.display())]
    None {
        /// The folder that was searched.
        path: PathBuf,
    },
    /// There are backups of several servers, or none of the requested generation.
    #[error("the backups are of {} generations; which one is to be restored?", .0.len())]
    Which(Vec<Held>),
    /// No backup reaches back that far.
    #[error("no backup of generation {} reaches so far back", held.generation)]
    TooEarly {
        /// The backups of the generation.
        held: Box<Held>,
        /// The generation with backups of that time.
        other: Option<String>,
    },
    /// No backup reaches that far.
    #[error("the newest backup ends with change {}, and was made at {} ms", .0.last.position, .0.made_millis)]
    TooLate(Box<Held>),
}

/// Errors of the system cannot be compared, so what they say is.
impl PartialEq for BackupError {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

impl Eq for BackupError {}

impl BackupError {
    pub(super) fn io(path: &Path, cause: io::Error) -> Self {
        Self::Io { path: path.to_owned(), cause: Arc::new(cause) }
    }

    pub(super) fn damaged(path: &Path, finding: &str) -> Self {
        Self::Damaged { path: path.to_owned(), finding: finding.to_owned() }
    }
}

/// A folder with backups.
#[derive(Clone, Debug)]
pub struct Backups {
    folder: PathBuf,
    /// Whether each backup reads the files of earlier ones.
    checks: bool,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Written {
    /// The backup.
    pub manifest: Manifest,
    /// The number of files that did not exist yet.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// What the files of earlier backups are, if they were read again.
    pub checked: Option<Checked>,
}

impl Backups {
    /// The backups in `folder`.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), checks: false }
    }

    /// Each backup reads all files of earlier ones, instead of once a week.
    #[must_use]
    pub fn checking(self) -> Self {
        Self { checks: true, ..self }
    }

    /// Adds a backup of `snapshot`, whose files `open` opens. Files that already exist are not copied again, unless they
    /// were read now and found damaged. The backup is on disk when this returns.
    pub fn write<R: Read>(
        &self,
        snapshot: &Snapshot,
        mut open: impl FnMut(&SnapshotFile) -> io::Result<R>,
    ) -> Result<Written, BackupError> {
        let folder = self.folder.join(hex(&snapshot.generation));
        let failed = |cause| BackupError::io(&folder, cause);
        std::fs::create_dir_all(&folder).map_err(failed)?;
        let known = known_files(&folder)?;
        let is_checked = self.checks || check::is_due(&folder);
        let read = is_checked.then(|| check::read(&folder, &known)).transpose()?;
        let (mut checked, mut damaged) = read.unzip();
        let (mut files, mut copied, mut bytes) = (Vec::new(), 0, 0);
        for file in &snapshot.files {
            let path = folder.join(&file.name);
            let known = known.get(&file.name).filter(|known| known.bytes == file.bytes);
            let is_damaged = damaged.as_mut().is_some_and(|names| names.remove(&file.name));
            let is_there = || path.metadata().is_ok_and(|found| found.len() == file.bytes);
            files.push(match known {
                Some(known) if !is_damaged && is_there() => known.clone(),
                known => {
                    (copied, bytes) = (copied + 1, bytes + file.bytes);
                    let from = open(file).map_err(|cause| BackupError::io(&file.path, cause))?;
                    copy(from.take(file.bytes), (file, known), &path)?
                }
            });
            if let Some(checked) = checked.as_mut().filter(|_| is_damaged) {
                checked.repaired.push(path);
            }
        }
        let manifest = Manifest::new(snapshot, now_ms(), files);
        let path = folder.join(manifest.name());
        let encoded = manifest.encode().map_err(failed)?;
        write_whole(&path, &encoded).map_err(|cause| BackupError::io(&path, cause))?;
        if let Some(checked) = &mut checked {
            checked.lost = damaged.into_iter().flatten().map(|name| folder.join(name)).collect();
            check::note(&folder)?;
        }
        sync_folder(&folder).and_then(|()| sync_folder(&self.folder)).map_err(failed)?;
        Ok(Written { manifest, files: copied, bytes, checked })
    }

    /// Removes all but the newest `keep` backups of a generation, and then the files that no backup uses.
    pub fn prune(&self, newest: &Manifest, keep: usize) -> Result<(), BackupError> {
        let folder = self.folder.join(newest.folder());
        let failed = |cause| BackupError::io(&folder, cause);
        let mut manifests = manifests_in(&folder)?;
        let surplus = manifests.len().saturating_sub(keep.max(1));
        for path in manifests.drain(..surplus) {
            std::fs::remove_file(&path).map_err(|cause| BackupError::io(&path, cause))?;
        }
        sync_folder(&folder).map_err(failed)?;
        let mut needed = BTreeSet::new();
        for path in manifests {
            match Manifest::read(&path) {
                Ok(manifest) => needed.extend(manifest.files.into_iter().map(|file| file.name)),
                // Nothing says what it needs. It is one of the surplus later.
                Err(error @ BackupError::Damaged { .. }) => {
                    log::warn!("{error}: until it is removed, files that no backup needs are kept");
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        for entry in std::fs::read_dir(&folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            let is_ours =
                path.extension().is_some_and(|end| end == "zst" || end == "new" || end == "ledger");
            if is_ours && !needed.contains(name) {
                std::fs::remove_file(&path).map_err(|cause| BackupError::io(&path, cause))?;
            }
        }
        Ok(())
    }

    /// The latest backup that can be used. `None` if there is none. An error if the folder cannot be read.
    pub fn newest(&self) -> Result<Option<Manifest>, BackupError> {
        if !self.folder.is_dir() {
            return Ok(None);
        }
        Ok(self.all()?.whole.pop())
    }

    /// Records that a directory is made from a backup. Returns its number within this generation, counted from 1: each
    /// directory continues above the previous one, which may have given out sequences that no backup contains.
    pub(super) fn note_restore(&self, manifest: &Manifest) -> u64 {
        let path = self.folder_of(manifest).join("restores");
        let noted = (|| {
            let mut file = File::options().create(true).read(true).append(true).open(&path)?;
            let mut before = String::new();
            file.read_to_string(&mut before)?;
            writeln!(file, "{} {}", now_ms(), manifest.name())?;
            file.sync_all()?;
            Ok::<_, io::Error>(before.lines().count() as u64 + 1)
        })();
        noted.unwrap_or_else(|error| {
            log::warn!(
                "{}: {error}. If this backup was restored before, and that server was written to, running clients may miss \
                 what is new",
                path.display()
            );
            1
        })
    }

    /// Records that the directory made from a backup has this generation from now on. Its backups continue those of this generation.
    pub(super) fn note_successor(&self, manifest: &Manifest, generation: &[u8; 16]) {
        let path = self.folder_of(manifest).join(SUCCESSORS);
        let noted = (|| {
            let mut file = File::options().create(true).append(true).open(&path)?;
            writeln!(file, "{}", hex(generation))?;
            file.sync_all()
        })();
        if let Err(error) = noted {
            log::warn!(
                "{}: {error}. If the restored server makes its backups here, a later restore asks for a generation",
                path.display()
            );
        }
    }

    /// The generations of the directories that were made from the backups of this generation.
    pub(super) fn successors(&self, generation: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.folder.join(generation).join(SUCCESSORS));
        text.unwrap_or_default().lines().map(ToOwned::to_owned).collect()
    }

    /// Where the files of a backup are.
    pub(super) fn folder_of(&self, manifest: &Manifest) -> PathBuf {
        self.folder.join(manifest.folder())
    }

    /// Reads every file of a backup and reports which are damaged.
    pub(super) fn verify(&self, manifest: &Manifest) -> Result<(), BackupError> {
        for file in &manifest.files {
            let path = self.folder_of(manifest).join(&file.name);
            let opened = File::open(&path).map_err(|cause| match cause.kind() {
                io::ErrorKind::NotFound => BackupError::damaged(&path, "it is missing"),
                _ => BackupError::io(&path, cause),
            })?;
            let (bytes, sha256) =
                digest(opened, |_| Ok(())).map_err(|cause| BackupError::io(&path, cause))?;
            if (bytes, &sha256) != (file.bytes, &file.sha256) {
                return Err(BackupError::damaged(&path, "it is not what was written"));
            }
        }
        Ok(())
    }

    pub(super) fn path(&self) -> &Path {
        &self.folder
    }

    /// The newest erasure ledger of each data directory, beginning with the directory of `manifest`. What was erased in one stays erased in
    /// every directory that is made from a copy of it.
    pub(super) fn ledgers(&self, manifest: &Manifest) -> Result<Vec<PathBuf>, BackupError> {
        let failed = |cause| BackupError::io(&self.folder, cause);
        let mut folders = vec![self.folder_of(manifest)];
        for entry in std::fs::read_dir(&self.folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.is_dir() && path != folders[0] {
                folders.push(path);
            }
        }
        let mut newest = Vec::new();
        for folder in folders {
            let mut longest = None;
            for entry in std::fs::read_dir(&folder).map_err(failed)? {
                let path = entry.map_err(failed)?.path();
                let name = path.file_name().map(|name| name.to_string_lossy());
                let is_one = name.is_some_and(|name| {
                    name == ARCHIVED || name.starts_with(LEDGER) && name.ends_with(LEDGER_END)
                });
                if is_one {
                    let bytes = path.metadata().map_err(|cause| BackupError::io(&path, cause))?;
                    longest = longest.max(Some((bytes.len(), path)));
                }
            }
            newest.extend(longest.map(|(_, path)| path));
        }
        Ok(newest)
    }
}

/// What the backups in a folder have. A damaged manifest says nothing: its files are copied again.
fn known_files(folder: &Path) -> Result<BTreeMap<String, ManifestFile>, BackupError> {
    let mut known = BTreeMap::new();
    for path in manifests_in(folder)? {
        match Manifest::read(&path) {
            Ok(manifest) => {
                known.extend(manifest.files.into_iter().map(|file| (file.name.clone(), file)));
            }
            Err(error) => log::error!("{error}"),
        }
    }
    Ok(known)
}

/// The manifests in a folder, by position.
pub(super) fn manifests_in(folder: &Path) -> Result<Vec<PathBuf>, BackupError> {
    let failed = |cause| BackupError::io(folder, cause);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(SUFFIX)) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
