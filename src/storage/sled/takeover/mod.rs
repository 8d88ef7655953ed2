//! Takes over a data directory of an earlier format: one without a commit log, whose small appends were in packs.
//!
//! Keeps: the old directory unchanged, in `before-format-3`, until somebody says that it is no longer needed; a crash
//! at any point leaves a directory that is taken over at the next start. Leaves out: the way back, which is to move
//! what is in `before-format-3` back into its place.
//!
//! 1. `sled` is copied to `taking-over/sled`, and changed there; `taking-over/log` is begun. All of it is synced, then
//!    `taking-over/complete` is written.
//! 2. `before-format-3` is made with the old `format`, and `format` says 3: an earlier version does not touch the
//!    directory.
//! 3. `sled` goes to `before-format-3`, and `taking-over/sled` and `taking-over/log` take its place.

mod ids;
mod pack;
mod packs;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::files::{Files, Format, sync_folder};
use super::options::{DatabaseOptions, OpenError, OpenFailure};
use super::steps::{self, Faults, Step, TakeOver};
use super::tree::{self, Facts};
use crate::storage::commit_log::{self, Generation, LogOptions, Position};

/// Converts the directory to this format, or continues doing that where it stopped.
pub(super) fn take_over(
    files: &Files,
    format: Format,
    options: &DatabaseOptions,
    faults: Option<&dyn Faults>,
) -> Result<(), OpenFailure> {
    let paths = Paths::new(files.directory());
    let is_complete = paths.complete.try_exists()?;
    if format == Format::This && !is_complete {
        // If it exists, clearing it was interrupted.
        return Ok(remove_folder(&paths.new)?);
    }
    let step = |step, real: &mut dyn FnMut() -> io::Result<()>| {
        steps::take(faults, Step::TakeOver(step), real)
    };
    if !is_complete {
        log::info!(
            "the data directory has an earlier format: it is converted, which takes a while"
        );
        step(TakeOver::Copy, &mut || copy(files, &paths))?;
        step(TakeOver::Change, &mut || Ok(change(&paths.new, options)?))?;
        step(TakeOver::Complete, &mut || write_synced(&paths.complete, b""))?;
    }
    if format != Format::This {
        step(TakeOver::Keep, &mut || keep_format(files, &paths))?;
        step(TakeOver::WriteFormat, &mut || files.write_format())?;
    }
    step(TakeOver::MoveOld, &mut || {
        move_unless_done(&files.database(), &paths.old_sled, &paths.sled)
    })?;
    step(TakeOver::MoveSled, &mut || move_if_there(&paths.sled, &files.database()))?;
    step(TakeOver::MoveLog, &mut || move_if_there(&paths.log, &files.log()))?;
    step(TakeOver::Clear, &mut || {
        std::fs::remove_file(&paths.complete)?;
        sync_folder(&paths.new)?;
        remove_folder(&paths.new)
    })?;
    log::info!("the data directory was converted; the old data is in {}", paths.old.display());
    Ok(())
}

/// Removes what is kept of the directory from before it was taken over. False if there is nothing. The directory may be
/// in use.
pub(super) fn accept(directory: &Path) -> Result<bool, OpenError> {
    let paths = Paths::new(directory);
    let accepted = (|| {
        let is_whole = Files::unlocked(directory).has_this_format()? && !paths.new.try_exists()?;
        if !is_whole || !paths.old.try_exists()? {
            return Ok(false);
        }
        remove_folder(&paths.old)?;
        sync_folder(directory)?;
        Ok(true)
    })();
    accepted.map_err(|error: io::Error| OpenError::unavailable(directory, &error))
}

/// The places in a directory.
struct Paths {
    /// The new directory, while it is being made.
    new: PathBuf,
    complete: PathBuf,
    sled: PathBuf,
    log: PathBuf,
    /// The old contents.
    old: PathBuf,
    old_sled: PathBuf,
}

impl Paths {
    fn new(directory: &Path) -> Self {
        let new = directory.join("taking-over");
        let old = directory.join("before-format-3");
        Self {
            complete: new.join("complete"),
            sled: new.join("sled"),
            log: new.join("log"),
            old_sled: old.join("sled"),
            new,
            old,
        }
    }
}

fn copy(files: &Files, paths: &Paths) -> io::Result<()> {
    remove_folder(&paths.new)?;
    // Writing out packs takes less than what is copied.
    let needed = 2 * bytes_in(&files.database())?;
    if !files.has_room_for(needed)? {
        let why = format!("converting an earlier format needs {needed} bytes of free space");
        return Err(io::Error::new(io::ErrorKind::StorageFull, why));
    }
    std::fs::create_dir(&paths.new)?;
    copy_folder(&files.database(), &paths.sled)
}

/// Changes the copy of sled in `directory`, and begins a commit log.
fn change(directory: &Path, options: &DatabaseOptions) -> Result<(), OpenFailure> {
    let files = Files::unlocked(directory);
    // From a step that was done but reported a failure.
    remove_folder(&files.log())?;
    let trees = tree::open(&files, options, 0)?;
    packs::write_out(&trees, &files)?;
    ids::remove(&trees, &files)?;
    let facts = Facts::read_or_make(&trees, &files)?;
    let log = LogOptions::new(files.log(), Generation(facts.generation));
    let log = commit_log::create(log, Position::default())?;
    log.writer.close()?;
    drop(log.files);
    tree::apply_checkpoint(&trees, 0)?;
    trees.flush()?;
    trees.sync(&files)?;
    tree::close(trees)?;
    Ok(files.sync_all()?)
}

/// Keeps the line that says which format the old directory has.
fn keep_format(files: &Files, paths: &Paths) -> io::Result<()> {
    // If it exists, it is from another time: its contents were accepted, or are what is taken over now.
    remove_folder(&paths.old)?;
    std::fs::create_dir(&paths.old)?;
    std::fs::copy(files.format(), paths.old.join("format"))?;
    File::open(paths.old.join("format"))?.sync_all()?;
    sync_folder(&paths.old)?;
    sync_folder(files.directory())
}

/// Moves `from` to `to`, unless `replacement` has been moved to where it was.
fn move_unless_done(from: &Path, to: &Path, replacement: &Path) -> io::Result<()> {
    if replacement.try_exists()? { move_if_there(from, to) } else { Ok(()) }
}

fn move_if_there(from: &Path, to: &Path) -> io::Result<()> {
    if !from.try_exists()? {
        return Ok(());
    }
    std::fs::rename(from, to)?;
    for path in [to, from] {
        path.parent().map_or(Ok(()), sync_folder)?;
    }
    Ok(())
}

pub(super) fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    std::fs::write(path, bytes)?;
    File::open(path)?.sync_all()?;
    path.parent().map_or(Ok(()), sync_folder)
}

pub(super) fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::create_dir(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &to)?;
        } else {
            std::fs::copy(entry.path(), &to)?;
            File::open(&to)?.sync_all()?;
        }
    }
    sync_folder(to)
}

pub(super) fn bytes_in(folder: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let is_folder = entry.file_type()?.is_dir();
        bytes += if is_folder { bytes_in(&entry.path())? } else { entry.metadata()?.len() };
    }
    Ok(bytes)
}

pub(super) fn remove_folder(path: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}
