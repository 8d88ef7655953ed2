//! Rebuilds a damaged database from the archive and the commit log.
//!
//! Keeps: the new database replaces the damaged one only when it is complete, is on disk, and has everything that the
//! witness says; the damaged one is kept under another name. If something is missing, everything stays as it was, and
//! the missing part is reported. Leaves out: detecting that a database is damaged (`open`, `watch`).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::checkpoint::Checkpointer;
use super::commit::now_ms;
use super::files::{Files, sync_folder};
use super::open;
use super::options::{DatabaseOptions, OpenFailure};
use super::redo::Redo;
use super::shared::Shared;
use super::takeover::{bytes_in, remove_folder};
use super::tree::{self, Facts};
use super::watch;
use crate::storage::archive::{Archive, ArchiveDamage, Archived, Kind};
use crate::storage::commit_log::{self, Found, FoundFrame, LogOptions, Position};
use crate::storage::witness::{Witness, WitnessFiles};

/// How often progress is logged.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// Rebuilds the database of `files`, which is damaged as described in `finding`.
pub(super) fn rebuild(
    files: &Files,
    options: &DatabaseOptions,
    finding: &str,
) -> Result<(), OpenFailure> {
    let started = Instant::now();
    log::error!("the database is damaged: {finding}. It is rebuilt from archive and commit log");
    let path = files.directory().display();
    let cannot = |why: String| {
        OpenFailure::Refused(format!(
            "the database is damaged ({finding}) and cannot be rebuilt: {why}. Put back what is missing and run \
             `eventlog-server rebuild --data-dir {path}`, or give it up with `eventlog-server accept-loss --data-dir {path}`"
        ))
    };
    let (_, found) = WitnessFiles::open(files.directory())?;
    let witness =
        found.newest.ok_or_else(|| cannot("both copies of the witness are lost".into()))?;
    let room = if files.database().try_exists()? { bytes_in(&files.database())? } else { 0 };
    if !files.has_room_for(room)? {
        let why = format!("rebuilding the database needs {room} bytes of free space");
        return Err(io::Error::new(io::ErrorKind::StorageFull, why).into());
    }
    let building = files.directory().join("rebuilding");
    remove_folder(&building)?;
    std::fs::create_dir(&building)?;
    let new = Files::unlocked(&building);
    let frames = build(files, &new, options, &witness).map_err(|failure| match failure {
        OpenFailure::Corrupt(why) | OpenFailure::Refused(why) => cannot(why),
        failure @ OpenFailure::Io(_) => failure,
    })?;
    let kept = swap(files, &new)?;
    remove_folder(&building)?;
    files.forget_damage()?;
    let seconds = started.elapsed().as_secs_f64();
    log::warn!("the database was rebuilt from {frames} frames in {seconds:.1} s");
    if let Some(kept) = kept {
        log::warn!(
            "the damaged database is {}, and takes {room} bytes until you remove it",
            kept.display()
        );
    }
    Ok(())
}

/// Builds it in `new`, and compares it with the witness.
fn build(
    files: &Files,
    new: &Files,
    options: &DatabaseOptions,
    witness: &Witness,
) -> Result<u64, OpenFailure> {
    let trees = tree::open(new, options, 0)?;
    tree::apply_identity(&trees, witness.remote_id, witness.generation.0, witness.floor)?;
    let (files_of_new, trees) = (Files::unlocked(new.directory()), (trees, witness.floor));
    let shared = Arc::new(Shared::new(files_of_new, options.clone(), None, trees));
    let mut checkpointer = Checkpointer::new(shared.clone(), Position(0))?;
    let mut builder = Builder::new(&shared, &mut checkpointer);
    let archive = open::archive(files, options, witness.generation)?;
    let last = builder.fill(archive.as_ref(), files, witness)?;
    let frames = builder.frames;
    drop(builder);
    checkpointer.finish(last)?;
    let trees = tree::open(new, options, 0)?;
    let compared = tree::guarded(|| {
        let facts = Facts::read_or_make(&trees, new)?;
        watch::compare(files.directory(), &trees, &facts, last)
    });
    tree::close(trees)?;
    new.sync_all()?;
    compared.map(|_| frames)
}

/// Shows frames to a database that is built from them.
pub(super) struct Builder<'a> {
    redo: Redo<'a>,
    shared: &'a Shared,
    checkpointer: &'a mut Checkpointer,
    frames: u64,
    /// What is missing, if that is accepted.
    lost: Option<Vec<String>>,
    said: Instant,
}

impl<'a> Builder<'a> {
    /// A builder that requires everything to be there.
    pub(super) fn new(shared: &'a Shared, checkpointer: &'a mut Checkpointer) -> Self {
        let (redo, said) = (Redo::new(shared), Instant::now());
        Self { redo, shared, checkpointer, frames: 0, lost: None, said }
    }

    /// Like [`Builder::new`], but accepts that something is missing.
    pub(super) fn lenient(shared: &'a Shared, checkpointer: &'a mut Checkpointer) -> Self {
        let (redo, lost) = (Redo::lenient(shared), Some(Vec::new()));
        Self { redo, lost, ..Self::new(shared, checkpointer) }
    }

    /// What is missing.
    pub(super) fn lost(self) -> Vec<String> {
        let lost = self.lost.unwrap_or_default();
        lost.into_iter().chain(self.redo.lost()).collect()
    }

    /// Shows everything there is, from the beginning; returns the last frame.
    pub(super) fn fill(
        &mut self,
        archive: Option<&Archive>,
        files: &Files,
        witness: &Witness,
    ) -> Result<Position, OpenFailure> {
        let log = LogOptions::new(files.log(), witness.generation);
        let has_base = match archive {
            Some(archive) => archive.files()?.files.iter().any(|file| file.kind == Kind::Base),
            None => false,
        };
        if !(has_base || witness.complete || self.lost.is_some()) {
            let why =
                "the archive has no base, and the commit log did not begin with an empty database";
            return Err(OpenFailure::Refused(why.into()));
        }
        let archived = match archive {
            None => Position(0),
            Some(archive) => {
                let visit = |found: Archived<'_>| match found {
                    Archived::Base(part) => self.show(of_base(part)),
                    Archived::Frame(frame) => self.show(frame),
                    Archived::Damage(damage) => self.take_from_log(damage, &log),
                };
                // Without a base the log began with an empty database.
                if has_base {
                    archive.read(visit)?
                } else {
                    archive.read_behind(Position(0), visit)?
                }
            }
        };
        self.fill_from_log(archived, files, witness)
    }

    /// Shows what the log has after `from`; returns the last frame.
    pub(super) fn fill_from_log(
        &mut self,
        from: Position,
        files: &Files,
        witness: &Witness,
    ) -> Result<Position, OpenFailure> {
        let log = LogOptions::new(files.log(), witness.generation);
        let work = self.shared.options.work.clone();
        commit_log::read(&log, from, witness.position, |found| match found {
            Found::Frame(frame) => {
                work.add(frame.body.len() as u64);
                self.show(frame)
            }
            Found::Damage(damage) => self.is_lost(format!("the commit log is damaged: {damage}")),
        })
        .map(|read| read.last)
    }

    fn is_lost(&mut self, what: String) -> Result<(), OpenFailure> {
        match &mut self.lost {
            Some(lost) => {
                lost.push(what);
                Ok(())
            }
            None => Err(OpenFailure::Refused(what)),
        }
    }

    /// What the archive has lost may still be in the log.
    fn take_from_log(
        &mut self,
        damage: &ArchiveDamage,
        log: &LogOptions,
    ) -> Result<(), OpenFailure> {
        // If it is not known where the loss ends, it is the end of the archive, and the log comes next anyway.
        let Some(to) = damage.to else { return Ok(()) };
        let lost = format!("the archive is damaged: {damage}");
        if damage.from == Position(0) {
            return self.is_lost(lost);
        }
        let mut next = damage.from;
        commit_log::read(log, damage.from.before(), to, |found| match found {
            Found::Frame(frame) if frame.position == next && frame.position <= to => {
                next = next.next();
                self.show(frame)
            }
            Found::Frame(_) | Found::Damage(_) => Ok(()),
        })?;
        if next > to { Ok(()) } else { self.is_lost(lost) }
    }

    pub(super) fn show(&mut self, frame: FoundFrame<'_>) -> Result<(), OpenFailure> {
        self.redo.frame(frame)?;
        self.frames += 1;
        if self.shared.budget.is_full() {
            self.checkpointer.write_all()?;
        }
        if self.said.elapsed() >= PROGRESS_EVERY {
            self.said = Instant::now();
            log::info!("rebuilding the database: {} frames so far", self.frames);
        }
        Ok(())
    }
}

/// A part of a base as a frame. It says itself when its entries were committed; if it does not, that is unknown, and
/// they count as young.
pub(super) fn of_base(body: &[u8]) -> FoundFrame<'_> {
    FoundFrame { position: Position(0), time_ms: now_ms(), body }
}

/// Renames what is at `path`, if it exists; the new name says `why`.
pub(super) fn keep_aside(path: &Path, why: &str) -> io::Result<Option<PathBuf>> {
    if !path.try_exists()? {
        return Ok(None);
    }
    for number in 1_u32.. {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{why}-{number}"));
        let aside = PathBuf::from(name);
        if !aside.try_exists()? {
            std::fs::rename(path, &aside)?;
            path.parent().map_or(Ok(()), sync_folder)?;
            return Ok(Some(aside));
        }
    }
    Ok(None)
}

/// Replaces the damaged one by the new one. Returns where the damaged one is now.
fn swap(files: &Files, new: &Files) -> io::Result<Option<PathBuf>> {
    let kept = keep_aside(&files.database(), "damaged")?;
    std::fs::rename(new.database(), files.database())?;
    sync_folder(new.directory())?;
    sync_folder(files.directory())?;
    Ok(kept)
}
