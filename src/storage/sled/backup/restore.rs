//! Makes a data directory from a backup.
//!
//! Keeps: everything is read and compared before anything is made; the directory can be served only once it is
//! complete, and then it is another server: see `renew`. Leaves out: directories that are not empty.

use std::io;
use std::path::{Path, PathBuf};

use super::folder::{BackupError, Backups};
use super::held::{self, Held};
use super::manifest::Manifest;
use crate::model::RemoteId;
use crate::storage::archive::{Archive, Archived};
use crate::storage::commit_log::Position;
use crate::storage::ledger;
use crate::storage::sled::files::{Files, sync_folder};
use crate::storage::sled::options::{DatabaseOptions, OpenFailure};
use crate::storage::sled::rebuild;
use crate::storage::sled::renew::{self, Identity};
use crate::storage::sled::takeover::{remove_folder, write_synced};

/// How far a restore goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// The number of the last change that is restored.
    Position(u64),
    /// What was written up to this time: milliseconds since 1970.
    Millis(u64),
}

/// What is to be restored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The generation in hexadecimal digits. Otherwise it is the newest one, if it continues all others in the folder.
    pub generation: Option<String>,
    /// The end. Otherwise everything is restored.
    pub until: Option<Until>,
}

/// What was restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Restored {
    /// The number of the last change.
    pub position: u64,
    /// The time of the change in milliseconds since 1970, unless the change was part of the base.
    pub time_millis: Option<u64>,
    /// The time of the base, at which the change was there, likewise; if there is one.
    pub base_millis: Option<u64>,
}

impl From<BackupError> for OpenFailure {
    fn from(error: BackupError) -> Self {
        match error {
            BackupError::Io { path, cause } => {
                let said = format!("{}: {cause}", path.display());
                Self::Io(io::Error::new(cause.kind(), said))
            }
            error => Self::Refused(error.to_string()),
        }
    }
}

/// What to restore. All of it was read and is intact.
pub(in crate::storage::sled) struct Plan {
    manifest: Manifest,
    end: End,
}

/// Finds the newest backup in `from` that contains what is wanted.
pub(in crate::storage::sled) fn plan(from: &Backups, wanted: &Wanted) -> Result<Plan, BackupError> {
    let listed = from.all()?;
    let all = &listed.whole;
    let held = held::held(from, all);
    let chosen = held::choose(&held, wanted.generation.as_deref())?;
    if wanted.until.is_none() || chosen.is_none() {
        listed.newest_is_whole(chosen, wanted.generation.is_some())?;
    }
    let chosen = chosen.ok_or_else(|| BackupError::None { path: from.path().to_owned() })?;
    let all = all.iter().filter(|manifest| manifest.generation == chosen.generation);
    let (manifest, end) = choose(from, all, chosen, wanted.until)?.ok_or_else(|| {
        let other = wanted.until.and_then(|until| held::other(&held, &chosen.generation, until));
        BackupError::TooEarly { held: Box::new(chosen.clone()), other }
    })?;
    from.verify(manifest)?;
    Ok(Plan { manifest: manifest.clone(), end })
}

/// What a backup is turned into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::storage::sled) enum As {
    /// Another server, all of whose stores continue far above their last sequences.
    Another,
    /// The same server as before. Nobody may serve it.
    #[cfg_attr(not(feature = "postgres"), expect(dead_code, reason = "a move to it makes one"))]
    Copy,
}

/// Makes the directory of `files`, which is empty.
pub(in crate::storage::sled) fn restore(
    from: &Backups,
    Plan { manifest, end }: &Plan,
    (files, of): (&Files, As),
    options: &DatabaseOptions,
) -> Result<Restored, OpenFailure> {
    let malformed = || BackupError::damaged(from.path(), "its manifest names no directory");
    let (remote_id, generation, floor) = manifest.origin().ok_or_else(malformed)?;
    let chosen = Chosen::link(from, manifest, files)?;
    let archive = Archive::to_read(chosen.0.clone(), generation).counting(&options.work);
    let listing = archive.files()?;
    let base_millis = listing.base().map(|base| base.time_ms);
    let mut restored = Restored { position: 0, time_millis: None, base_millis };
    let mut last = listing.base().map_or(Position(0), |base| base.last);
    let identity = match of {
        As::Another => {
            let (remote_id, jumps) = (RemoteId::random(), from.note_restore(manifest));
            Identity { remote_id, floor, jumps }
        }
        As::Copy => Identity { remote_id, floor, jumps: 0 },
    };
    let generation = renew::fill(files, options, identity, |show| {
        let visit = |found: Archived<'_>| match found {
            Archived::Base(part) => show(rebuild::of_base(part)),
            Archived::Frame(frame) if end.is_before(frame.position.0, frame.time_ms) => Ok(()),
            Archived::Frame(frame) => {
                (last, restored.time_millis) = (frame.position, Some(frame.time_ms));
                show(frame)
            }
            Archived::Damage(damage) => Err(OpenFailure::Refused(damage.to_string())),
        };
        if manifest.complete {
            archive.read_behind(Position(0), visit)?;
        } else {
            archive.read(visit)?;
        }
        Ok(last)
    })?;
    // What was erased since the backup stays erased in every restored directory.
    ledger::gather(&from.ledgers(manifest)?, files.directory())?;
    if matches!(of, As::Another) {
        from.note_successor(manifest, &generation.0);
    }
    restored.position = last.0;
    remove_folder(&chosen.0)?;
    Ok(restored)
}

/// Where a restore ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Whole,
    At(Until),
}

impl End {
    /// Whether a change comes after the end.
    fn is_before(self, position: u64, time_ms: u64) -> bool {
        match self {
            Self::Whole => false,
            Self::At(Until::Position(end)) => position > end,
            Self::At(Until::Millis(end)) => time_ms > end,
        }
    }
}

/// The backup among `all` that contains what is wanted. `None` if none reaches back that far.
fn choose<'a>(
    from: &Backups,
    mut all: impl DoubleEndedIterator<Item = &'a Manifest>,
    held: &Held,
    until: Option<Until>,
) -> Result<Option<(&'a Manifest, End)>, BackupError> {
    let Some(until) = until else { return Ok(all.next_back().map(|newest| (newest, End::Whole))) };
    let reaches = match until {
        Until::Position(end) => held.last.position >= end,
        // Nothing was written since, as far as is known.
        Until::Millis(end) => held.made_millis >= end,
    };
    if !reaches {
        return Err(BackupError::TooLate(Box::new(held.clone())));
    }
    for manifest in all.rev() {
        let first = manifest.first(from)?;
        let is_there = match until {
            Until::Position(end) => first.position <= end,
            Until::Millis(end) => first.time_millis <= end,
        };
        if is_there {
            return Ok(Some((manifest, End::At(until))));
        }
    }
    Ok(None)
}

/// The files of one backup only, as links. Its folder may also have files of other backups.
struct Chosen(PathBuf);

impl Chosen {
    fn link(from: &Backups, manifest: &Manifest, files: &Files) -> io::Result<Self> {
        let folder = files.directory().join("restoring-from");
        remove_folder(&folder)?;
        std::fs::create_dir(&folder)?;
        let of = from.folder_of(manifest).canonicalize()?;
        for file in &manifest.files {
            std::os::unix::fs::symlink(of.join(&file.name), folder.join(&file.name))?;
        }
        Ok(Self(folder))
    }
}

/// Records that a directory is being made, so that nobody serves it, or that it is complete.
pub(in crate::storage::sled) struct Restoring {
    mark: PathBuf,
}

/// This file exists in a directory that is being made.
pub(in crate::storage::sled) const MARK: &str = "restoring";

impl Restoring {
    /// Starts to make `target`, which is empty or was left by an earlier attempt.
    pub(in crate::storage::sled) fn begin(target: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(target)?;
        let mark = target.join(MARK);
        if mark.try_exists()? {
            for entry in std::fs::read_dir(target)? {
                let path = entry?.path();
                if path == mark {
                    continue;
                }
                let is_folder = path.is_dir();
                if is_folder { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }?;
            }
        } else {
            let mut there = std::fs::read_dir(target)?;
            // `mkfs` creates this folder.
            let is_empty =
                there.all(|entry| entry.is_ok_and(|entry| entry.file_name() == "lost+found"));
            if !is_empty {
                let why = "it is not empty: name a missing or an empty directory";
                return Err(io::Error::new(io::ErrorKind::DirectoryNotEmpty, why));
            }
        }
        write_synced(&mark, b"a restore into this directory is under way, or did not finish\n")?;
        Ok(Self { mark })
    }

    /// Marks the directory as complete.
    pub(in crate::storage::sled) fn end(self) -> io::Result<()> {
        std::fs::remove_file(&self.mark)?;
        self.mark.parent().map_or(Ok(()), sync_folder)
    }
}
