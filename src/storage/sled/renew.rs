//! Gives a data directory another remote id and generation, with its content or what is left of it, and makes every
//! store continue far above its last sequence.
//!
//! To clients, this is another server: they begin again from the first entry, and send what is missing here. A client
//! that kept running stores its cursor under the remote id of its first connection, and continues from there. So new
//! entries are placed above any cursor that was given out before, and the client misses none of them. The sequences in
//! between are a gap, which is as durable as entries are.
//!
//! Keeps: a crash leaves the old content, the new content, or a state from which the next start completes the new
//! content.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::checkpoint::Checkpointer;
use super::commit::now_ms;
use super::ends::Hashing;
use super::files::{Files, sync_folder};
use super::log::Located;
use super::open;
use super::options::{DatabaseOptions, OpenFailure};
use super::rebuild::{Builder, keep_aside};
use super::shared::Shared;
use super::takeover::{bytes_in, copy_folder, remove_folder, write_synced};
use super::tree::{self, Facts, Trees};
use super::watch::{self, Watch};
use crate::model::{RemoteId, Segment, Sequence};
use crate::storage::commit_log::{self, FoundFrame, Generation, LogOptions, Position};
use crate::storage::witness::{FrameSalt, Witness, WitnessFiles};

/// How far above its last sequence each store continues: more than the number of sequences given out since a copy was
/// made.
const JUMP: u64 = 1_000_000_000;
/// This folder exists while the replacement for the content of the directory is made.
const FOLDER: &str = "renewing";
/// This file in that folder exists once the folder is complete. It states the name for the old content, and where its
/// archive is.
const COMPLETE: &str = "complete";

/// What was lost, and where the old content is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Renewed {
    /// What is missing.
    pub lost: Vec<String>,
    /// The new places of the old content.
    pub kept: Vec<PathBuf>,
}

/// A database that replaces another one, or is made where there was none.
pub(super) struct Renewal {
    new: Files,
    options: DatabaseOptions,
    shared: Arc<Shared>,
    checkpointer: Checkpointer,
    /// New stores begin after this sequence.
    floor: Sequence,
    /// How far above its last sequence each store continues.
    jump: u64,
    remote_id: RemoteId,
}

/// The directory whose content is replaced.
pub(super) struct Identity {
    pub(super) remote_id: RemoteId,
    /// New stores begin after this sequence, not counting the jumps.
    pub(super) floor: Sequence,
    /// How many times 1,000,000,000 above its last sequence each store continues.
    pub(super) jumps: u64,
}

/// Continues with what is left: sled if it is intact, otherwise the content of the archive and the log; and what the log has after that.
pub(super) fn accept_loss(
    files: &Files,
    options: &DatabaseOptions,
) -> Result<Renewed, OpenFailure> {
    let mut lost = Vec::new();
    let new = begin(files)?;
    let (witness, is_copied) = match copy_sled(files, &new, options) {
        Ok(witness) => (witness, true),
        Err(failure @ OpenFailure::Io(_)) => return Err(failure),
        Err(OpenFailure::Corrupt(why) | OpenFailure::Refused(why)) => {
            lost.push(format!("the database cannot be read: {why}"));
            remove_folder(&new.database())?;
            let (_, found) = WitnessFiles::open(files.directory())?;
            let witness = found.newest.ok_or_else(|| {
                let why = "neither the database nor the witness can be read: nothing says whose directory this is";
                OpenFailure::Refused(why.into())
            })?;
            (witness, false)
        }
    };
    let from = if is_copied { witness.position } else { Position(0) };
    let mut renewal = Renewal::new(new, options, (from, witness.floor))?;
    let mut builder = Builder::lenient(&renewal.shared, &mut renewal.checkpointer);
    let last = if is_copied {
        builder.fill_from_log(from, files, &witness)?
    } else {
        let archive = open::archive(files, options, witness.generation)?;
        builder.fill(archive.as_ref(), files, &witness)?
    };
    lost.extend(builder.lost());
    renewal.complete(files, last, "damaged")?;
    Ok(Renewed { lost, kept: finish(files)? })
}

/// Like [`accept_loss`], but changes nothing unless the directory is complete.
pub(super) fn heal(files: &Files, options: &DatabaseOptions) -> Result<Renewed, OpenFailure> {
    prepare_heal(files, options)?;
    Ok(Renewed { lost: Vec::new(), kept: finish(files)? })
}

/// Like [`heal`], but ends when the new database is ready to replace the old one.
pub(super) fn prepare_heal(files: &Files, options: &DatabaseOptions) -> Result<(), OpenFailure> {
    let new = begin(files)?;
    let damaged = |why: String| {
        OpenFailure::Refused(format!(
            "the directory is damaged: {why}. Start the server once, which repairs what it can, or run \
             `eventlog-server accept-loss --data-dir {}`",
            files.directory().display()
        ))
    };
    let witness = copy_sled(files, &new, options).map_err(|failure| match failure {
        OpenFailure::Corrupt(why) | OpenFailure::Refused(why) => damaged(why),
        failure @ OpenFailure::Io(_) => failure,
    })?;
    let from = (witness.position, witness.floor);
    let mut renewal = Renewal::new(new, options, from)?;
    let mut builder = Builder::new(&renewal.shared, &mut renewal.checkpointer);
    let last = builder.fill_from_log(witness.position, files, &witness)?;
    drop(builder);
    renewal.complete(files, last, "before-heal").map(drop)
}

/// Creates the database of `files`, which have none, from the frames that `fill` shows. `fill` returns the last frame. Returns the new generation.
pub(super) fn fill(
    files: &Files,
    options: &DatabaseOptions,
    Identity { remote_id, floor, jumps }: Identity,
    fill: impl FnOnce(&mut Show<'_>) -> Result<Position, OpenFailure>,
) -> Result<Generation, OpenFailure> {
    let new = begin(files)?;
    let mut renewal = Renewal::new(new, options, (Position(0), floor))?;
    renewal.jump = JUMP.saturating_mul(jumps);
    renewal.remote_id = remote_id;
    let mut builder = Builder::new(&renewal.shared, &mut renewal.checkpointer);
    let last = fill(&mut |frame| builder.show(frame))?;
    drop(builder);
    let generation = renewal.complete(files, last, "before-restore")?;
    finish(files)?;
    Ok(generation)
}

/// Receives a frame.
pub(super) type Show<'a> = dyn FnMut(FoundFrame<'_>) -> Result<(), OpenFailure> + 'a;

/// Prepares the place of the new database. Removes what a crash left there of an earlier attempt.
fn begin(files: &Files) -> io::Result<Files> {
    let folder = files.directory().join(FOLDER);
    remove_folder(&folder)?;
    std::fs::create_dir(&folder)?;
    Ok(Files::unlocked(&folder))
}

impl Renewal {
    /// Replaces the database in `new`. It has everything up to the frame `from`, and its new stores begin after `floor`.
    fn new(
        new: Files,
        options: &DatabaseOptions,
        (from, floor): (Position, Sequence),
    ) -> Result<Self, OpenFailure> {
        let trees = tree::open(&new, options, 0)?;
        let files = Files::unlocked(new.directory());
        let shared = Arc::new(Shared::new(files, options.clone(), None, (trees, floor)));
        let checkpointer = Checkpointer::new(shared.clone(), from)?;
        let (options, remote_id) = (options.clone(), RemoteId::random());
        Ok(Self { new, options, shared, checkpointer, floor, jump: JUMP, remote_id })
    }

    /// Completes the database when everything up to the frame `last` was shown. It is on disk when this returns. [`finish`] puts it in
    /// the place of the content of `files`, which is kept under names that contain `why`. Returns the new generation.
    fn complete(
        mut self,
        files: &Files,
        last: Position,
        why: &str,
    ) -> Result<Generation, OpenFailure> {
        jump(&self.shared, &mut self.checkpointer, self.jump)?;
        self.checkpointer.finish(last)?;
        drop(self.shared);
        let (remote_id, generation) = (self.remote_id, *uuid::Uuid::new_v4().as_bytes());
        let trees = tree::open(&self.new, &self.options, 0)?;
        tree::apply_identity(&trees, remote_id, generation, self.floor.plus(self.jump))?;
        tree::apply_checkpoint(&trees, 0)?;
        trees.flush()?;
        trees.sync(&self.new)?;
        let watched = tree::guarded(|| watch_new(&self.new, &trees));
        tree::close(trees)?;
        watched?;
        self.new.sync_all()?;
        let log = LogOptions::new(self.new.log(), Generation(generation));
        commit_log::create(log, Position::default())?.writer.close()?;
        let archive = self.options.archive.dir.clone().unwrap_or_else(|| files.archive());
        let content = format!("{why}\n{}", archive.display());
        sync_folder(files.directory())?;
        write_synced(&self.new.directory().join(COMPLETE), content.as_bytes())?;
        Ok(Generation(generation))
    }
}

/// Writes the first witness.
fn watch_new(new: &Files, trees: &Trees) -> Result<(), OpenFailure> {
    let facts = Facts::read_or_make(trees, new)?;
    Watch::open(new.directory(), trees, &facts, Position(0)).map(drop)
}

/// Makes each store continue far above its last sequence.
fn jump(shared: &Arc<Shared>, checkpointer: &mut Checkpointer, by: u64) -> Result<(), OpenFailure> {
    // After this, the tree has a record of each store.
    checkpointer.write_all()?;
    if by == 0 {
        return Ok(());
    }
    let trees = shared.access.open_trees()?;
    for store in tree::store_records(&trees, None) {
        let (name, record) = store?;
        let end = shared.ends.hold(record.ordinal, &name, true);
        let last = Located::at(shared, &end)?.head();
        let (first, to) = (last.next(), last.plus(by));
        if to.since(last) < by {
            let why = format!("store {name:?} is at {last}, and no sequences are left above");
            return Err(OpenFailure::Refused(why));
        }
        // A gap contains nothing to hash.
        let hashing = Hashing::Salted(FrameSalt::default());
        shared.ends.push(&end, Segment::gaps(first, to), (hashing, now_ms()));
        if shared.budget.is_full() {
            checkpointer.write_all()?;
        }
    }
    Ok(())
}

/// Replaces the old content, if any, with the complete new content. Returns where the old content is now. After a
/// crash, this continues where it was.
pub(super) fn finish(files: &Files) -> Result<Vec<PathBuf>, OpenFailure> {
    let new = Files::unlocked(&files.directory().join(FOLDER));
    let complete = match std::fs::read_to_string(new.directory().join(COMPLETE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        complete => complete?,
    };
    let malformed = || OpenFailure::corrupt("the replacement of the database is malformed");
    let (why, archive) = complete.split_once('\n').ok_or_else(malformed)?;
    let mut kept = Vec::new();
    kept.extend(keep_aside(Path::new(archive), why)?);
    for name in ["witness.a", "witness.b", "heads.a", "heads.b", "log", "sled"] {
        let (new, old) = (new.directory().join(name), files.directory().join(name));
        if new.try_exists()? {
            kept.extend(keep_aside(&old, why)?);
            std::fs::rename(new, &old)?;
            sync_folder(files.directory())?;
        }
    }
    files.write_format()?;
    files.forget_place()?;
    files.forget_damage()?;
    remove_folder(new.directory())?;
    sync_folder(files.directory())?;
    Ok(kept)
}

/// Copies sled if it can be opened and read. Returns how far it is.
fn copy_sled(
    files: &Files,
    new: &Files,
    options: &DatabaseOptions,
) -> Result<Witness, OpenFailure> {
    if !files.database_log().try_exists()? {
        return Err(OpenFailure::corrupt("it is missing"));
    }
    if let Some(finding) = files.noted_damage()? {
        return Err(OpenFailure::Corrupt(finding));
    }
    let room = bytes_in(&files.database())?;
    if !files.has_room_for(room)? {
        let why = format!("{room} bytes of free space are needed");
        return Err(io::Error::new(io::ErrorKind::StorageFull, why).into());
    }
    copy_folder(&files.database(), &new.database())?;
    let trees = tree::open(new, options, 0)?;
    let read = tree::guarded(|| compare(files.directory(), &trees, new));
    tree::close(trees)?;
    read
}

fn compare(directory: &Path, trees: &Trees, new: &Files) -> Result<Witness, OpenFailure> {
    let facts = Facts::read_or_make(trees, new)?;
    let position = Position(facts.checkpoint.unwrap_or(0));
    watch::compare(directory, trees, &facts, position)
}
