//! What the threads of the database and everybody who uses it have in common.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::budget::Budget;
use super::commit::Queue;
use super::drafts::Drafts;
use super::ends::Ends;
use super::erasures::Erasures;
use super::files::Files;
use super::health::Health;
use super::keyspace::Keyspace;
use super::options::{DatabaseOptions, OpenFailure};
use super::scrub::Scrub;
use super::signal::Signal;
use super::steps::Faults;
use super::tables::{Tables, Tree};
use super::tree::{self, Access, Trees};
use super::upkeep::Wanted;
use crate::model::histogram::Histogram;
use crate::model::{Sequence, StoreId};
use crate::storage::commit_log::Position;
use crate::storage::{Figure, StorageError, StoreSize, Work};

pub(super) struct Shared {
    pub(super) files: Files,
    pub(super) options: DatabaseOptions,
    pub(super) faults: Option<Arc<dyn Faults>>,
    /// Leads to the commit thread.
    pub(super) queue: Queue,
    /// Leads to the checkpoint thread.
    pub(super) signal: Signal,
    /// Leads to the thread that manages the files of the commit log.
    pub(super) upkeep: Wanted,
    pub(super) access: Access,
    pub(super) ends: Arc<Ends>,
    pub(super) tables: Arc<Tables>,
    pub(super) budget: Arc<Budget>,
    /// New stores begin behind this sequence. A restored directory never gives out a sequence that a store of the same
    /// name may have had before.
    floor: Sequence,
    /// The content of the frames up to this one is in `ends` and `tables`, or in sled.
    settled: AtomicU64,
    /// The last frame that is on disk, perhaps a moment before it is settled.
    synced: AtomicU64,
    damage_noted: AtomicBool,
    /// Whether damaged ids can be rebuilt in place.
    ids_damaged: AtomicBool,
    pub(super) health: Health,
    /// Files of the archive for log files that are still written to.
    pub(super) drafts: Drafts,
    /// How long it took to write frames of the commit log to disk.
    pub(super) syncs: Histogram,
    /// Whether erased content must be removed from files.
    pub(super) scrub: Arc<Scrub>,
    pub(super) compacting: Mutex<Compacting>,
    /// What keeps erased content elsewhere.
    pub(super) kept_elsewhere: Mutex<Option<Arc<str>>>,
    /// Whether a base is being written.
    pub(super) writes_base: Mutex<bool>,
    /// Why the last checkpoint failed, if it did.
    pub(super) checkpoint_failure: Mutex<Option<Arc<str>>>,
    /// None until the erasures in the ledger were repeated.
    pub(super) erasures: Mutex<Option<Erasures>>,
}

/// Whether sled is compacted just now.
#[derive(Debug, Default)]
pub(super) struct Compacting {
    pub(super) running: bool,
    /// Why the last attempt failed, if it did.
    pub(super) failure: Option<Arc<str>>,
    /// How far it is.
    pub(super) work: Work,
}

impl Shared {
    pub(super) fn new(
        files: Files,
        mut options: DatabaseOptions,
        faults: Option<Arc<dyn Faults>>,
        (trees, floor): (Trees, Sequence),
    ) -> Self {
        // Otherwise, writers would wait for a checkpoint that nobody starts.
        options.checkpoint_bytes = options.checkpoint_bytes.min(options.unapplied_bytes_max / 2);
        let budget = Arc::new(Budget::new(options.unapplied_bytes_max));
        Self {
            files,
            options,
            faults,
            queue: Queue::new(budget.clone()),
            signal: Signal::default(),
            upkeep: Wanted::default(),
            access: Access::new(trees),
            ends: Arc::new(Ends::new(budget.clone())),
            tables: Arc::new(Tables::new(budget.clone())),
            budget,
            floor,
            settled: AtomicU64::new(0),
            synced: AtomicU64::new(0),
            damage_noted: AtomicBool::new(false),
            ids_damaged: AtomicBool::new(false),
            health: Health::default(),
            drafts: Drafts::default(),
            syncs: Histogram::of_times(),
            scrub: Arc::default(),
            compacting: Mutex::default(),
            kept_elsewhere: Mutex::default(),
            writes_base: Mutex::default(),
            checkpoint_failure: Mutex::new(None),
            erasures: Mutex::new(None),
        }
    }

    pub(super) fn faults(&self) -> Option<&dyn Faults> {
        self.faults.as_deref()
    }

    /// A table to read. While sled is being reopened, this blocks for at most two seconds and then fails.
    pub(super) fn table(&self, table: Keyspace) -> Result<Tree, StorageError> {
        Ok(Tree::new(self.access.trees()?, self.tables.clone(), table))
    }

    /// Reads `store` from sled. Damage is recorded, so that sled is rebuilt at the next start. Until then, the store
    /// answers with that error.
    pub(super) fn noting<T>(
        &self,
        store: &StoreId,
        read: impl FnOnce() -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        let read = tree::guarded(|| Ok(read())).unwrap_or_else(|failure| match failure {
            OpenFailure::Io(error) => Err(StorageError::unavailable(error)),
            OpenFailure::Corrupt(finding) | OpenFailure::Refused(finding) => {
                Err(StorageError::corrupt(finding))
            }
        });
        if let Err(StorageError::Corrupt(finding)) = &read
            && !self.damage_noted.swap(true, Ordering::Relaxed)
        {
            self.files.note_damage(&format!("store {store:?}: {finding}"));
        }
        read
    }

    /// Records that the index of the ids of `store` is damaged, so that it is rebuilt.
    pub(super) fn ids_are_damaged(&self, store: &StoreId, finding: &str) {
        log::error!("the index of ids of store {store:?} is rebuilt from its entries: {finding}");
        self.ids_damaged.store(true, Ordering::Relaxed);
    }

    /// The current figures.
    pub(super) fn figures(&self) -> Vec<Figure> {
        let flag = |of: &AtomicBool| u64::from(of.load(Ordering::Relaxed));
        let health = &self.health;
        let figure = |name, help, value| Figure { name, help, value };
        let mut figures = vec![
            figure(
                "unapplied_bytes",
                "Bytes in memory that sled does not have yet",
                self.budget.bytes(),
            ),
            figure(
                "checkpoints_fail",
                "1 while sled cannot be written",
                u64::from(self.checkpoint_failure.lock().is_some()),
            ),
            figure(
                "archive_fails",
                "1 while finished log files cannot be archived or released",
                flag(&health.archive_fails),
            ),
            figure(
                "archive_is_incomplete",
                "1 while the database cannot be rebuilt from the archive and the commit log",
                flag(&health.archive_is_incomplete),
            ),
            figure(
                "waiting_log_bytes",
                "Finished log files that the archive does not have yet",
                health.waiting_bytes.load(Ordering::Relaxed),
            ),
            figure(
                "log_files_fail",
                "1 while no log file can be made ahead of time",
                flag(&health.file_fails),
            ),
            figure(
                "disk_free_bytes",
                "Free space on the disk, checked at least once a minute",
                health.free_bytes(),
            ),
            figure(
                "disk_is_low",
                "1 while there is less free space than disk_low_bytes",
                u64::from(health.room_is_low()),
            ),
            figure(
                "disk_is_full",
                "1 while there is less free space than disk_full_bytes, and entries are refused",
                u64::from(health.room_is_gone()),
            ),
            figure(
                "directory_is_copy",
                "1 if the data directory is a copy of the one that was made",
                u64::from(health.is_copy()),
            ),
            figure(
                "damage_found",
                "1 once the server read something other than what was written",
                flag(&self.damage_noted) | flag(&self.ids_damaged),
            ),
        ];
        figures.extend([
            figure(
                "database_bytes",
                "The files of the database, looked at once a minute",
                health.database_bytes.load(Ordering::Relaxed),
            ),
            figure(
                "entry_bytes",
                "Entries that it has of all stores, in bytes of their records, counted over minutes",
                health.entry_bytes.load(Ordering::Relaxed),
            ),
            figure(
                "stores_to_sweep",
                "Stores with trimmed entries that still take space",
                health.sweeping.load(Ordering::Relaxed),
            ),
            figure(
                "trimmed_ids",
                "Ids kept of trimmed entries, so that a repeated entry is recognized",
                health.bare_ids.load(Ordering::Relaxed),
            ),
        ]);
        figures.extend(self.scrub.figures());
        figures.extend(health.backup_figures());
        figures.extend(health.shipped_figures());
        figures
    }

    /// Whether no trimmed entry takes space, except for its id.
    pub(super) fn is_swept(&self) -> bool {
        // In the order in which it goes from one to the other.
        let is_known = self.health.sweeps_are_known.load(Ordering::Acquire);
        is_known
            && self.ends.trims_pending() == 0
            && self.health.sweeping.load(Ordering::Acquire) == 0
    }

    /// The folders in which something may be kept aside.
    pub(super) fn kept_folders(&self) -> Vec<PathBuf> {
        let archive = self.options.archive.dir.as_deref().and_then(Path::parent);
        let directory = self.files.directory();
        [Some(directory), archive].into_iter().flatten().map(Path::to_owned).collect()
    }

    /// The size of a store without entries.
    pub(super) fn new_store(&self) -> StoreSize {
        StoreSize { head: self.floor, ..StoreSize::default() }
    }

    /// The last frame that will be in sled after a checkpoint that starts now.
    pub(super) fn settled(&self) -> Position {
        Position(self.settled.load(Ordering::Acquire))
    }

    /// The content of the frames up to `position` is in `ends` and `tables`, or in sled.
    pub(super) fn set_settled(&self, position: Position) {
        self.set_synced(position);
        self.settled.store(position.0, Ordering::Release);
    }

    /// The last frame that is on disk. A write is answered only when its frame, or a later one, is included here.
    pub(super) fn synced(&self) -> Position {
        Position(self.synced.load(Ordering::Acquire))
    }

    /// Records that the frames up to `position` are on disk. This happens before writes are answered, so that a backup contains them.
    pub(super) fn set_synced(&self, position: Position) {
        self.synced.store(position.0, Ordering::Release);
    }
}
