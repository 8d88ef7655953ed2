//! What an operator should know: what fails while writes continue, how much disk space there is, and where the
//! directory is.
//!
//! Keeps: a problem is logged when it begins, and again each hour while it lasts; figures cost no disk access. Leaves
//! out: what is done about it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::DatabaseOptions;
use super::files::Files;
use super::place;
use crate::storage::Figure;

/// How often something is logged again that still holds.
const AGAIN_EVERY: Duration = Duration::from_secs(60 * 60);

/// What is known.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// The last attempt to release finished files of the commit log failed, usually because of the archive.
    pub(super) archive_fails: AtomicBool,
    /// Files had to be released that the archive does not have, or the retention took some that are needed: the
    /// database cannot be rebuilt.
    pub(super) archive_is_incomplete: AtomicBool,
    /// The size of the finished files of the commit log that are not released.
    pub(super) waiting_bytes: AtomicU64,
    /// The last attempt to make a file of the commit log ahead of time failed.
    pub(super) file_fails: AtomicBool,
    /// How large the files of sled are, in bytes.
    pub(super) database_bytes: AtomicU64,
    /// Bytes of the records in sled at the last count.
    pub(super) entry_bytes: AtomicU64,
    /// All stores were searched for what an earlier process did not finish.
    pub(super) sweeps_are_known: AtomicBool,
    /// How many stores have entries that were trimmed and still take space.
    pub(super) sweeping: AtomicU64,
    /// How many ids are kept of trimmed entries.
    pub(super) bare_ids: AtomicU64,
    /// The state of scheduled backups.
    backup: Mutex<Backup>,
    /// The state of shipping.
    shipped: Mutex<Shipped>,
    free_bytes: AtomicU64,
    room_is_low: AtomicBool,
    room_is_gone: AtomicBool,
    is_copy: AtomicBool,
    said: Mutex<Said>,
}

/// The state of scheduled backups.
#[derive(Clone, Copy, Debug, Default)]
struct Backup {
    /// When the last good one was made, in milliseconds since 1970, and its size in bytes.
    made: Option<(u64, u64)>,
    /// Whether the last attempt failed.
    fails: bool,
}

/// The state of what is sent elsewhere.
#[derive(Clone, Copy, Debug, Default)]
struct Shipped {
    /// When everything was last there, in milliseconds since 1970.
    up_to: Option<u64>,
    /// Whether the last attempt failed.
    fails: bool,
}

/// When each problem was last logged.
#[derive(Debug, Default)]
struct Said {
    room: Option<Instant>,
    copy: Option<Instant>,
}

impl Health {
    /// A backup was made at this time with this many bytes; or one failed.
    pub(super) fn note_backup(&self, made: Option<(u64, u64)>) {
        let mut backup = self.backup.lock();
        backup.fails = made.is_none();
        backup.made = made.or(backup.made);
    }

    /// The figures of backups; none if no backup was ever tried.
    pub(super) fn backup_figures(&self) -> Vec<Figure> {
        let Backup { made, fails } = *self.backup.lock();
        let figure = |name, help, value| Figure { name, help, value };
        let made = made.map(|(millis, bytes)| {
            let help = "When the last good backup was made, in seconds since 1970";
            let size = "The size of the last good backup, with what it shares with earlier ones";
            [
                figure("backup_made_seconds", help, millis / 1_000),
                figure("backup_bytes", size, bytes),
            ]
        });
        let help = "1 while the last backup that was due is missing";
        let tried = made.is_some() || fails;
        let fails = tried.then(|| figure("backup_fails", help, u64::from(fails)));
        made.into_iter().flatten().chain(fails).collect()
    }

    /// Everything that was written up to this time was sent elsewhere; or that failed.
    pub(super) fn note_shipped(&self, up_to: Option<u64>) {
        let mut shipped = self.shipped.lock();
        shipped.fails = up_to.is_none();
        shipped.up_to = up_to.or(shipped.up_to);
    }

    /// The figures of shipping; if it is not wanted, that nothing fails.
    pub(super) fn shipped_figures(&self) -> Vec<Figure> {
        let Shipped { up_to, fails } = *self.shipped.lock();
        let figure = |name, help, value| Figure { name, help, value };
        let at = "What was written up to then is in the bucket, in seconds since 1970; 0 before anything is";
        let help = "1 while the bucket cannot be written to";
        let up_to = up_to.map(|millis| figure("shipped_seconds", at, millis / 1_000));
        let fails = figure("shipping_fails", help, u64::from(fails));
        up_to.into_iter().chain([fails]).collect()
    }

    /// Looks at the directory when it was opened, and logs doubts about its location.
    pub(super) fn begin(&self, files: &Files, options: &DatabaseOptions) {
        let path = files.directory().display();
        match place::doubts(files.directory()) {
            Ok(Some(doubt)) => log::warn!("the data directory {path} {doubt}"),
            Ok(None) => {}
            Err(error) => log::warn!("cannot find the file system of {path}: {error}"),
        }
        match place::is_copy(files) {
            Ok(is_copy) => self.is_copy.store(is_copy, Relaxed),
            Err(error) => log::warn!("cannot find out whether {path} is a copy: {error}"),
        }
        self.look(files, options);
    }

    /// Checks how much space there is, and logs what is due. Call it now and then.
    pub(super) fn look(&self, files: &Files, options: &DatabaseOptions) {
        let mut said = self.said.lock();
        if self.is_copy.load(Relaxed) && is_due(&mut said.copy) {
            log::error!(
                "the data directory {0} is a copy of another one. If a server uses the other one, or if the other one is newer, \
                 stop this server: both would give the same sequences to different entries. If the other one is gone for \
                 good, remove {0}/place",
                files.directory().display()
            );
        }
        let free = match files.free_bytes() {
            Ok(free) => free,
            Err(error) => return log::warn!("cannot find the free space on the disk: {error}"),
        };
        self.free_bytes.store(free, Relaxed);
        let is_gone = free < options.disk_full_bytes;
        let is_low = is_gone || free < options.disk_low_bytes;
        self.room_is_low.store(is_low, Relaxed);
        let changed = self.room_is_gone.swap(is_gone, Relaxed) != is_gone;
        if is_low && (is_due(&mut said.room) || changed) {
            let (free, full) = (free >> 20, options.disk_full_bytes >> 20);
            if is_gone {
                log::error!(
                    "the disk has only {free} MiB left: entries are refused until there are {full} MiB (disk_full_bytes)"
                );
            } else {
                let low = options.disk_low_bytes >> 20;
                log::warn!(
                    "the disk has only {free} MiB left, below the {low} MiB of disk_low_bytes; entries are refused below {full} MiB"
                );
            }
        } else if !is_low && said.room.take().is_some() {
            log::info!("the disk has space again");
        }
    }

    /// Bytes that were free at the last check.
    pub(super) fn free_bytes(&self) -> u64 {
        self.free_bytes.load(Relaxed)
    }

    /// Whether that was too little.
    pub(super) fn room_is_low(&self) -> bool {
        self.room_is_low.load(Relaxed)
    }

    /// Whether it was so little that no entries are accepted.
    pub(super) fn room_is_gone(&self) -> bool {
        self.room_is_gone.load(Relaxed)
    }

    /// Whether the directory is a copy of the original one.
    pub(super) fn is_copy(&self) -> bool {
        self.is_copy.load(Relaxed)
    }
}

/// Whether a line is due that was last logged at `said`; if so, sets that to now.
fn is_due(said: &mut Option<Instant>) -> bool {
    let due = said.is_none_or(|said| said.elapsed() >= AGAIN_EVERY);
    if due {
        *said = Some(Instant::now());
    }
    due
}
