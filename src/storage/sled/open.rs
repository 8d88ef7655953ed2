//! Opens the contents of a data directory: sled, then the commit log, whose frames that sled does not have are shown
//! again.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::backup::{DirectoryNote, Origin};
use super::base;
use super::checkpoint::Checkpointer;
use super::commit::now_ms;
use super::files::Files;
use super::key::{Ordinal, SegmentKey};
use super::options::{DatabaseOptions, OpenError, OpenFailure};
use super::rebuild;
use super::redo::Redo;
use super::shared::Shared;
use super::steps::{Faults, LogFaults};
use super::tree::{self, Facts, Trees};
use super::watch::Watch;
use crate::model::Sequence;
use crate::storage::archive::{self, Archive, ArchiveError, Kind};
use crate::storage::commit_log::{
    self, Found, Generation, Log, LogError, LogOptions, Position, Seam,
};
use crate::storage::ledger;
use crate::storage::witness::WitnessFiles;

/// An opened directory; nothing is running yet.
pub(super) struct Opened {
    pub(super) shared: Arc<Shared>,
    pub(super) origin: Origin,
    pub(super) log: Log,
    pub(super) checkpointer: Checkpointer,
    /// For the next new store.
    pub(super) next_ordinal: Ordinal,
}

/// Opens the directory of `files`. A damaged database is rebuilt, if everything that this needs is there.
pub(super) fn open(
    files: Files,
    options: DatabaseOptions,
    faults: Option<Arc<dyn Faults>>,
) -> Result<Opened, OpenError> {
    let directory = files.directory().to_owned();
    let opened = match open_sled(&files, &options) {
        Err(OpenFailure::Corrupt(finding)) => {
            rebuild::rebuild(&files, &options, &finding).and_then(|()| open_sled(&files, &options))
        }
        opened => opened,
    };
    let opened = opened.and_then(|(trees, facts, watch)| {
        let shared = Arc::new(Shared::new(files, options, faults, (trees, facts.floor)));
        with_log(shared.clone(), facts, watch).inspect_err(|failure| {
            if let OpenFailure::Corrupt(finding) = failure {
                shared.files.note_damage(finding);
            }
        })
    });
    opened.map_err(|failure| failure.of(&directory))
}

/// Opens sled, and compares it with the witness: [`OpenFailure::Corrupt`] means that it does not have what it had.
fn open_sled(
    files: &Files,
    options: &DatabaseOptions,
) -> Result<(Trees, Facts, Watch), OpenFailure> {
    if let Some(finding) = files.noted_damage()? {
        return Err(OpenFailure::Corrupt(finding));
    }
    if !files.database_log().try_exists()? && has_more_than_sled(files)? {
        return Err(OpenFailure::corrupt("the database in `sled` is missing"));
    }
    let (trees, facts) = tree::open_first(files, options)?;
    let position = Position(facts.checkpoint.unwrap_or(0));
    let watched = tree::guarded(|| Watch::open(files.directory(), &trees, &facts, position));
    match watched {
        Ok(watch) => Ok((trees, facts, watch)),
        Err(failure) => {
            if let Err(error) = tree::close(trees) {
                log::warn!("closing sled: {error}");
            }
            Err(failure)
        }
    }
}

/// Whether the directory existed before, if there is no sled.
fn has_more_than_sled(files: &Files) -> io::Result<bool> {
    let (_, witness) = WitnessFiles::open(files.directory())?;
    Ok(witness.newest.is_some() || commit_log::exists(&files.log())?)
}

/// The archive, if there should be one.
pub(super) fn archive(
    files: &Files,
    options: &DatabaseOptions,
    generation: Generation,
) -> io::Result<Option<Archive>> {
    let folder = options.archive.dir.clone().unwrap_or_else(|| files.archive());
    let archive = options.archive.enabled.then(|| Archive::open(folder, generation)).transpose()?;
    Ok(archive.map(|archive| archive.counting(&options.work)))
}

/// Like [`archive`], but nothing is written there.
pub(super) fn archive_to_read(
    files: &Files,
    options: &DatabaseOptions,
    generation: Generation,
) -> Option<Archive> {
    let folder = options.archive.dir.clone().unwrap_or_else(|| files.archive());
    folder.is_dir().then(|| Archive::to_read(folder, generation))
}

/// The folder of the archive, if a server has had one there.
pub(super) fn archive_folder(files: &Files, options: &DatabaseOptions) -> Option<PathBuf> {
    let folder = options.archive.dir.clone().unwrap_or_else(|| files.archive());
    let is_one = folder.join(archive::NOTE).is_file() || archive::has_files(&folder);
    is_one.then_some(folder)
}

/// What is wrong if the archive is elsewhere, and the data directory has files of an archive too: then a command that was not told of the other
/// place moved files of the commit log there.
pub(super) fn other_archive(files: &Files, options: &DatabaseOptions) -> Option<String> {
    let used = options.archive.dir.as_ref().filter(|_| options.archive.enabled)?;
    let other = files.archive();
    let is_same =
        used.canonicalize().is_ok_and(|used| other.canonicalize().is_ok_and(|other| other == used));
    if is_same || !archive::has_files(&other) {
        return None;
    }
    let (used, other) = (used.display(), other.display());
    Some(format!(
        "the archive is {used}, but {other} has files of an archive too, which nobody reads, and from which nothing that is erased is removed: a \
         command was not told where the archive is (--archive-dir, EVENTLOG_ARCHIVE_DIR). Stop the server, move each file `*.zst` \
         that {used} does not have from {other} to {used}, and remove {other}"
    ))
}

/// The erasure ledger of the directory, in all its copies, for reading.
pub(super) fn ledger(files: &Files, options: &DatabaseOptions) -> io::Result<ledger::Reader> {
    let archive = options.archive.dir.clone().unwrap_or_else(|| files.archive());
    ledger::Reader::open(&ledger::paths(files.directory(), Some(&archive)))
}

fn with_log(shared: Arc<Shared>, facts: Facts, watch: Watch) -> Result<Opened, OpenFailure> {
    let from = Position(facts.checkpoint.unwrap_or(0));
    let mut checkpointer = Checkpointer::new(shared.clone(), from)?;
    let trees = shared.access.open_trees()?;
    let in_tree = ordinal_max(&trees)?;
    drop(trees);
    let seen = watch.position();
    let archive = archive(&shared.files, &shared.options, Generation(facts.generation))?;
    let is_complete = watch.is_complete();
    if let Some(finding) = other_archive(&shared.files, &shared.options) {
        log::error!("{finding}");
    }
    if let Some(archive) = &archive {
        let note = DirectoryNote::new(&facts, is_complete);
        archive.note(note.encode().as_bytes())?;
    }
    checkpointer.keep(watch, archive.clone());
    let mut redo = Redo::new(&shared);
    let options = LogOptions {
        file_bytes: shared.options.log_file_bytes,
        seam: shared.faults.clone().map(|faults| Arc::new(LogFaults(faults)) as Arc<dyn Seam>),
        ..LogOptions::new(shared.files.log(), Generation(facts.generation))
    };
    let mut visit = |found: Found<'_>| match found {
        Found::Frame(frame) => {
            redo.frame(frame)?;
            if shared.budget.is_full() {
                checkpointer.write_all()?;
            }
            Ok(())
        }
        Found::Damage(damage) => Err(OpenFailure::from(LogError::Damaged(damage.clone()))),
    };
    let log = match commit_log::exists(&options.folder)? {
        true if facts.are_new => return Err(sled_is_lost()),
        false if facts.checkpoint.is_none() => commit_log::create(options, from)?,
        _ => commit_log::open(options, from, seen, &mut visit)?,
    };
    if facts.checkpoint.is_none() {
        // Nothing was ever acknowledged before the first one was written.
        if log.last > from {
            return Err(sled_is_lost());
        }
        checkpointer.begin()?;
    }
    if log.repaired > 0 {
        log::warn!("{} changed bits in the commit log were repaired", log.repaired);
    }
    if let Some(archive) = &archive
        && let Err(error) = write_base(&shared, archive, &log, (from, is_complete))
    {
        log::error!("the archive has no base, so the database cannot be rebuilt: {error}");
    }
    shared.set_settled(log.last);
    let next_ordinal = in_tree.max(redo.ordinal_max()).map_or(0, |max| max + 1);
    let (remote_id, generation) = (facts.remote_id, Generation(facts.generation));
    let origin = Origin { remote_id, generation, complete: is_complete };
    Ok(Opened { shared, origin, log, checkpointer, next_ordinal })
}

/// Writes the contents of sled to the archive, if archive and log do not begin with an empty database.
fn write_base(
    shared: &Shared,
    archive: &Archive,
    log: &Log,
    (from, is_complete): (Position, bool),
) -> Result<(), ArchiveError> {
    let files = archive.files()?.files;
    let firsts = files.iter().filter(|file| file.kind == Kind::Log).map(|file| file.first);
    let (number, in_log) = log.files.first();
    let first = firsts.chain([in_log]).min().unwrap_or(in_log);
    let has_base = files.iter().any(|file| file.kind == Kind::Base);
    if has_base || is_complete && first <= Position(1) {
        return Ok(());
    }
    log::info!("the archive gets a base, which takes a while");
    let trees = shared.access.open_trees().map_err(io::Error::other)?;
    let parts = base::parts(&trees).map(|part| part.map_err(io::Error::from));
    archive.write_base(number, from, now_ms(), parts)?;
    Ok(())
}

/// The greatest ordinal of a store in the tree.
fn ordinal_max(trees: &Trees) -> Result<Option<Ordinal>, OpenFailure> {
    let segments = SegmentKey::of_store(0, Sequence::FIRST, Sequence::FIRST).start().to_vec()
        ..=SegmentKey::of_store(Ordinal::MAX, Sequence::MAX, Sequence::MAX).end().to_vec();
    let last = trees.log().range(segments).next_back().transpose()?;
    let malformed = || OpenFailure::corrupt("malformed key of a segment");
    let key = |(key, _): (sled::IVec, _)| SegmentKey::parse(&key).ok_or_else(malformed);
    Ok(last.map(key).transpose()?.map(|key| key.ordinal))
}

fn sled_is_lost() -> OpenFailure {
    OpenFailure::corrupt("there is a commit log, but the database in `sled` is a new one")
}
