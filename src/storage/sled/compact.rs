//! Returns unused space in sled's file to the file system: the content is copied to a new file beside it, which then
//! replaces it. Sled's own file only grows.
//!
//! Keeps: the copy replaces the database only when it is complete, on disk, and has everything that the witness says; a
//! crash leaves one of the two. It is made on the checkpoint thread, a part at a time, since only this thread writes to
//! sled; new writes go to both. Leaves out: when a part is due (`checkpoint`).

use std::collections::VecDeque;
use std::io;
use std::ops::Bound;

use sled::IVec;

use super::files::{Files, sync_folder};
use super::key::SlotKey;
use super::keyspace::Keyspace;
use super::ops::Ops;
use super::options::{DatabaseOptions, OpenFailure};
use super::steps::{self, Compact, Faults, Step};
use super::takeover::{bytes_in, remove_folder, write_synced};
use super::tree::{self, Facts, Trees};
use super::watch;
use crate::storage::Work;
use crate::storage::commit_log::Position;

/// A database with fewer bytes is not copied: sled takes half as many for an empty one.
pub const COMPACT_BYTES_MIN: u64 = 8 << 20;

/// There while a copy is made, and until it has taken the place of the database.
const FOLDER: &str = "compacting";
/// In that folder, once the copy is whole.
const COMPLETE: &str = "complete";
/// How much is copied at once, in bytes.
const PART_BYTES: usize = 1 << 20;
/// The approximate size of a key in addition to its value, in bytes.
const KEY_BYTES: usize = 64;
/// How much of its pages the copy may keep in memory, in bytes.
const CACHE_BYTES: u64 = 16 << 20;
/// A page is used once more for each of this many bytes, see [`Uses`].
const USE_BYTES: usize = 4 << 10;
/// How many parts are copied between two syncs. There are few, so that no sync keeps the disk from writers for long.
const SYNC_EVERY: u32 = 4;
/// A copy is abandoned if there is less space than this, in bytes: the commit log and the growth of sled need some.
const ROOM_BYTES_MIN: u64 = 64 << 20;

/// A copy of sled that is being made.
pub(super) struct Compaction {
    new: Files,
    trees: Trees,
    /// What is not copied yet: the rest of the first table, behind a key, and all other tables.
    left: VecDeque<Keyspace>,
    after: Option<IVec>,
    /// What was read. It is written with the next part: its slots exist by then, so sled writes each value once.
    ahead: Option<(Keyspace, Ops)>,
    parts: u32,
    work: Work,
    uses: Uses,
}

/// Uses pages of sled more than once.
///
/// sled counts uses of pages in 256 lists, and looks only at full lists of 64 for pages that have to leave its cache. If each page
/// were used once, the cache would have 16,384 pages before: half a gibibyte in each of the two databases, whatever its limit.
/// This way it has 64 MiB.
#[derive(Default)]
struct Uses {
    bytes: usize,
}

impl Uses {
    /// `bytes` of the page that has this key were read or written.
    fn of(&mut self, table: &sled::Tree, key: &[u8], bytes: usize) -> sled::Result<()> {
        self.bytes += bytes;
        while self.bytes >= USE_BYTES {
            self.bytes -= USE_BYTES;
            table.contains_key(key)?;
        }
        Ok(())
    }
}

impl Compaction {
    /// Starts a copy, which counts in `work`. Removes an earlier copy.
    pub(super) fn begin(
        files: &Files,
        options: &DatabaseOptions,
        work: Work,
    ) -> Result<Self, OpenFailure> {
        work.expect(bytes_in(&files.database())?);
        abandon(files)?;
        let folder = files.directory().join(FOLDER);
        std::fs::create_dir(&folder)?;
        let new = Files::unlocked(&folder);
        let options = DatabaseOptions { cache_bytes: CACHE_BYTES, ..options.clone() };
        let trees = tree::open(&new, &options, 0)?;
        // What sled says about the directory comes last.
        let left = Keyspace::ALL.into_iter().filter(|keyspace| *keyspace != Keyspace::Meta);
        let left = left.collect();
        let uses = Uses::default();
        Ok(Self { new, trees, left, after: None, ahead: None, parts: 0, work, uses })
    }

    /// `ops` were applied to sled.
    pub(super) fn mirror(&mut self, keyspace: Keyspace, ops: Ops) -> io::Result<()> {
        // What was read before them must be written before them.
        self.write_ahead()?;
        Ok(ops.apply(self.trees.get(keyspace))?)
    }

    /// Copies a part. True once there is no more.
    pub(super) fn copy(&mut self, files: &Files, from: &Trees) -> io::Result<bool> {
        if !files.has_room_for(ROOM_BYTES_MIN)? {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let Some(keyspace) = self.left.front().copied() else {
            self.write_ahead()?;
            return Ok(true);
        };
        let (ops, last) = self.read(keyspace, from)?;
        if last.is_none() {
            self.left.pop_front();
        }
        self.after = last;
        self.write_ahead()?;
        if !ops.is_empty() {
            self.ahead = Some((keyspace, ops));
        }
        self.parts += 1;
        if self.parts.is_multiple_of(SYNC_EVERY) {
            self.trees.flush()?;
            self.trees.sync(&self.new)?;
        }
        Ok(false)
    }

    /// The next part of a table, and its last key unless it was the last part.
    fn read(&mut self, keyspace: Keyspace, from: &Trees) -> io::Result<(Ops, Option<IVec>)> {
        let after = self.after.as_ref().map_or(Bound::Unbounded, |key| Bound::Excluded(&key[..]));
        let (mut ops, mut bytes) = (Ops::default(), 0);
        for pair in from.get(keyspace).range::<&[u8], _>((after, Bound::Unbounded)) {
            let (key, value) = pair?;
            let size = KEY_BYTES + value.len();
            bytes += size;
            self.work.add(size as u64);
            self.uses.of(from.get(keyspace), &key, size)?;
            let is_slot = keyspace == Keyspace::Log && SlotKey::parse(&key).is_some();
            // An empty slot is the same as no slot.
            if !(is_slot && value.is_empty()) {
                if is_slot {
                    // One by one: a batch would not keep their order.
                    self.trees.get(keyspace).insert(&key, &[])?;
                }
                ops.insert(key.clone(), value);
            }
            if bytes >= PART_BYTES {
                return Ok((ops, Some(key)));
            }
        }
        Ok((ops, None))
    }

    fn write_ahead(&mut self) -> io::Result<()> {
        match self.ahead.take() {
            Some((keyspace, ops)) => {
                let table = self.trees.get(keyspace);
                // Cheap: values are shared.
                ops.clone().apply(table)?;
                for (key, value) in ops.iter() {
                    let bytes = KEY_BYTES + value.map_or(0, <[u8]>::len);
                    self.uses.of(table, key, bytes)?;
                }
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Everything was copied, and sled is as it was at the checkpoint at `position`. Completes the copy so that
    /// [`finish`] accepts it: it is on disk and was compared with the witness.
    pub(super) fn complete(
        self,
        (files, faults): (&Files, Option<&dyn Faults>),
        from: &Trees,
        position: Position,
    ) -> Result<(), OpenFailure> {
        let Self { new, trees, .. } = self;
        let compared = tree::guarded(|| compare((files, &new), (from, &trees), position));
        tree::close(trees)?;
        compared?;
        new.sync_all()?;
        steps::take(faults, Step::Compact(Compact::Complete), || {
            write_synced(&new.directory().join(COMPLETE), b"")?;
            sync_folder(files.directory())
        })?;
        Ok(())
    }

    /// Closes an abandoned copy.
    pub(super) fn close(self) {
        if let Err(error) = tree::close(self.trees) {
            log::debug!("closing a copy that is given up: {error}");
        }
    }
}

/// Copies what sled says about the directory, and compares the copy with the witness.
fn compare(
    (files, new): (&Files, &Files),
    (from, to): (&Trees, &Trees),
    position: Position,
) -> Result<(), OpenFailure> {
    for pair in from.get(Keyspace::Meta) {
        let (key, value) = pair?;
        to.get(Keyspace::Meta).insert(key, value)?;
    }
    to.flush()?;
    to.sync(new)?;
    let facts = Facts::read_or_make(to, new)?;
    watch::compare(files.directory(), to, &facts, position).map(drop)
}

/// Removes a copy, whether complete or not, so that no crash in between leaves one that looks complete. The database
/// must be complete.
pub(super) fn abandon(files: &Files) -> io::Result<()> {
    let folder = files.directory().join(FOLDER);
    match std::fs::remove_file(folder.join(COMPLETE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        removed => removed.and_then(|()| sync_folder(&folder))?,
    }
    remove_folder(&folder)
}

/// Whether there is a copy that must replace the database.
pub(super) fn is_complete(files: &Files) -> io::Result<bool> {
    files.directory().join(FOLDER).join(COMPLETE).try_exists()
}

/// Replaces the database, which nobody has open, with a complete copy. An incomplete copy is removed. After a crash,
/// this continues where it was.
pub(super) fn finish(files: &Files, faults: Option<&dyn Faults>) -> io::Result<()> {
    let new = Files::unlocked(&files.directory().join(FOLDER));
    if !new.directory().try_exists()? {
        return Ok(());
    }
    let take =
        |step, real: &dyn Fn() -> io::Result<()>| steps::take(faults, Step::Compact(step), real);
    if is_complete(files)? && new.database().try_exists()? {
        // From here on, the copy is the database, whatever is left of the other one.
        take(Compact::Remove, &|| remove_folder(&files.database()))?;
        take(Compact::Rename, &|| {
            std::fs::rename(new.database(), files.database())?;
            sync_folder(new.directory())?;
            sync_folder(files.directory())
        })?;
    }
    take(Compact::Clear, &|| abandon(files))?;
    sync_folder(files.directory())
}
