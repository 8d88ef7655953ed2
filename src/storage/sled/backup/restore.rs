//! Makes a data directory from a backup.
//!
//! Keeps: everything is read and compared before anything is made; the directory can be served only once it is
//! complete, and then it is another server: see `renew`. Leaves out: directories that are not empty.

use std::io;
use std::path::{Path, PathBuf};

use super::folder::{BackupError, Backups};
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

/// What was restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The number of the last change.
    pub position: u64,
    /// The time of the change in milliseconds since 1970, unless the change was part of the base.
    pub time_millis: Option<u64>,
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

/// Looks for the newest backup in `from` that has what is wanted.
pub(in crate::storage::sled) fn plan(
    from: &Backups,
    until: Option<Until>,
) -> Result<Plan, BackupError> {
    let all = from.all()?;
    let (manifest, end) = choose(from, &all, until)?;
    from.verify(manifest)?;
    Ok(Plan { manifest: manifest.clone(), end })
}

/// What is made of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::storage::sled) enum As {
    /// Another server, all of whose stores go on far above.
    Another,
    /// What it was: nobody may serve it.
    #[cfg_attr(not(feature = "postgres"), expect(dead_code, reason = "a move to it makes one"))]
    Copy,
}

/// Makes the directory of `files`, which has nothing.
pub(in crate::storage::sled) fn restore(
    from: &Backups,
    Plan { manifest, end }: &Plan,
    (files, of): (&Files, As),
    options: &DatabaseOptions,
) -> Result<Restored, OpenFailure> {
    let malformed = || BackupError::damaged(from.path(), "its manifest names no directory");
    let (remote_id, generation, floor) = manifest.origin().ok_or_else(malformed)?;
    let chosen = Chosen::link(from, manifest, files)?;
    let archive = Archive::to_read(chosen.0.clone(), generation);
    let mut restored = Restored { position: 0, time_millis: None };
    let listing = archive.files()?;
    let mut last = listing.base().map_or(Position(0), |base| base.last);
    let identity = match of {
        As::Another => {
            let (remote_id, jumps) = (RemoteId::random(), from.note_restore(manifest));
            Identity { remote_id, floor, jumps }
        }
        As::Copy => Identity { remote_id, floor, jumps: 0 },
    };
    renew::fill(files, options, identity, |show| {
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
    // Whatever is restored, what was erased since then stays erased.
    ledger::gather(&from.ledgers(manifest)?, files.directory())?;
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
    /// Whether a change comes behind the end.
    fn is_before(self, position: u64, time_ms: u64) -> bool {
        match self {
            Self::Whole => false,
            Self::At(Until::Position(end)) => position > end,
            Self::At(Until::Millis(end)) => time_ms > end,
        }
    }
}

/// The backup that has what is wanted.
fn choose<'a>(
    from: &Backups,
    all: &'a [Manifest],
    until: Option<Until>,
) -> Result<(&'a Manifest, End), BackupError> {
    let none = || BackupError::None { path: from.path().to_owned() };
    let newest = all.last().ok_or_else(none)?;
    let Some(until) = until else { return Ok((newest, End::Whole)) };
    let of_newest = all.iter().filter(|manifest| manifest.folder() == newest.folder());
    let reaches = match until {
        Until::Position(end) => newest.position >= end,
        // Nothing was written since, as far as anybody knows.
        Until::Millis(end) => newest.made_millis >= end,
    };
    if !reaches {
        let (position, time) = (newest.position, newest.made_millis);
        let what =
            format!("the newest backup ends with change {position}, and was made at {time} ms");
        return Err(BackupError::Beyond(what));
    }
    let begins_before = |manifest: &&Manifest| manifest.begins_before(until, from);
    let found = of_newest.rev().find(begins_before).map(|manifest| (manifest, End::At(until)));
    found.ok_or_else(|| {
        BackupError::Beyond(
            "no backup reaches so far back: all begin with a base that is younger".into(),
        )
    })
}

impl Manifest {
    /// Whether a restore up to there leaves out nothing that stands in a base.
    fn begins_before(&self, until: Until, from: &Backups) -> bool {
        if self.complete {
            return true;
        }
        let Some((_, generation, _)) = self.origin() else { return false };
        let archive = Archive::to_read(from.folder_of(self), generation);
        let Ok(listing) = archive.files() else { return false };
        let is_ours = |path: &Path| {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
            self.files.iter().any(|file| Some(&file.name) == name.as_ref())
        };
        let mut bases = listing.files.iter().rev();
        let base = bases
            .find(|file| file.kind == crate::storage::archive::Kind::Base && is_ours(&file.path));
        base.is_some_and(|base| match until {
            Until::Position(end) => base.last.0 <= end,
            Until::Millis(end) => base.time_ms <= end,
        })
    }
}

/// The files of one backup alone, as links: its folder may have those of others.
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

/// In a directory that is being made.
pub(in crate::storage::sled) const MARK: &str = "restoring";

impl Restoring {
    /// Starts to make `target`, which is empty or has the rest of an earlier attempt.
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
            // The folder that `mkfs` creates.
            let is_empty =
                there.all(|entry| entry.is_ok_and(|entry| entry.file_name() == "lost+found"));
            if !is_empty {
                let why = "it is not empty: a restore makes a directory, and changes none";
                return Err(io::Error::new(io::ErrorKind::DirectoryNotEmpty, why));
            }
        }
        write_synced(&mark, b"a restore into this directory is under way, or did not finish\n")?;
        Ok(Self { mark })
    }

    /// The directory is complete.
    pub(in crate::storage::sled) fn end(self) -> io::Result<()> {
        std::fs::remove_file(&self.mark)?;
        self.mark.parent().map_or(Ok(()), sync_folder)
    }
}
