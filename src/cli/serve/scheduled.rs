//! Automatic backups, as `[backup]` configures them.
//!
//! Keeps: one backup at a time, beside everything else; each failure is logged, shown, and retried soon. Leaves out:
//! what a backup is (`storage::sled`).

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use eventlog_server::storage::sled::{BackupError, Backups, Database};
use eventlog_server::storage::{SnapshotFile, StorageError};

use crate::cli::bucket::{Bucket, BucketError, ShipError, Shipper};
use crate::cli::text::people_bytes;
use crate::config::{BackupPlan, BucketAddress};

/// How long to wait after a failed backup.
const RETRY: Duration = Duration::from_secs(60);
/// A file may be removed before it is copied, when the archive keeps fewer files. A backup is restarted at once up to
/// this number of times.
const TRIES: usize = 3;
/// The first backup waits this long at most until the files have no erased content.
const CLEAN_MAX: Duration = Duration::from_secs(3_600);
/// How often that is looked at.
const CLEAN_POLL: Duration = Duration::from_millis(200);

/// The running thread. When this is dropped, the thread ends after the current backup.
pub(super) struct Scheduled {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Why no backup was made.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Backup(#[from] BackupError),
    #[error(transparent)]
    Bucket(#[from] BucketError),
    #[error(transparent)]
    Ship(#[from] ShipError),
}

impl Failed {
    /// Whether a file of the snapshot no longer existed.
    fn is_gone(&self) -> bool {
        match self {
            Self::Backup(BackupError::Io { cause, .. }) => cause.kind() == io::ErrorKind::NotFound,
            Self::Ship(ShipError::File { cause, .. }) => cause.kind() == io::ErrorKind::NotFound,
            _ => false,
        }
    }
}

impl Scheduled {
    /// Starts to make backups of `database`, if backups are configured.
    pub(super) fn start(plan: Option<&BackupPlan>, database: &Database) -> io::Result<Self> {
        let Some(plan) = plan.cloned() else { return Ok(Self { stop: None, thread: None }) };
        let (stop, stopped) = channel();
        let database = database.clone();
        let thread = std::thread::Builder::new().name("backup".to_owned()).spawn(move || {
            let mut wait = first_wait(&plan, &database);
            let mut is_first = true;
            while stopped.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
                if std::mem::take(&mut is_first) && !clean(&database, &stopped) {
                    return;
                }
                wait = match make(&plan, &database) {
                    Ok(made) => {
                        database.note_backup(Some(made));
                        plan.every
                    }
                    Err(error) => {
                        log::error!("no backup was made: {error}");
                        database.note_backup(None);
                        plan.every.min(RETRY)
                    }
                };
            }
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Scheduled {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // If the thread panicked, there is no backup, and the panic was reported.
            drop(thread.join());
        }
    }
}

/// The time until the first backup is due: an earlier process may have made one.
fn first_wait(plan: &BackupPlan, database: &Database) -> Duration {
    let Ok(Some(newest)) = Backups::new(&plan.to).newest() else { return Duration::ZERO };
    database.note_backup(Some((newest.made_millis, newest.bytes())));
    let age = now().saturating_sub(Duration::from_millis(newest.made_millis));
    plan.every.saturating_sub(age)
}

/// Waits until the files have no content of entries that were erased before the start. A directory that was just restored has some that
/// a backup should not get. Returns false if the thread has to end.
fn clean(database: &Database, stopped: &Receiver<()>) -> bool {
    let begun = now();
    loop {
        let why = match database.scrub_now() {
            Ok(true) => return true,
            Ok(false) if now().saturating_sub(begun) < CLEAN_MAX => {
                if stopped.recv_timeout(CLEAN_POLL) != Err(RecvTimeoutError::Timeout) {
                    return false;
                }
                continue;
            }
            Ok(false) => "it takes too long".to_owned(),
            Err(error) => error.to_string(),
        };
        log::warn!(
            "the first backup may have content that was erased, since the files are not cleaned yet: {why}"
        );
        return true;
    }
}

fn now() -> Duration {
    #[expect(clippy::disallowed_methods, reason = "backups are made by the clock")]
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// When it was made, in milliseconds since 1970, and its size in bytes. Starts again if the archive removes files that
/// are not copied yet.
fn make(plan: &BackupPlan, database: &Database) -> Result<(u64, u64), Failed> {
    let mut tries = TRIES;
    loop {
        tries -= 1;
        match make_once(plan, database) {
            Err(failed) if tries > 0 && failed.is_gone() => {}
            made => return made,
        }
    }
}

fn make_once(plan: &BackupPlan, database: &Database) -> Result<(u64, u64), Failed> {
    let snapshot = database.snapshot()?;
    if let Some(Ok(address)) = BucketAddress::of(&plan.to) {
        let made = u64::try_from(now().as_millis()).unwrap_or(u64::MAX);
        let shipped = Shipper::new(Bucket::open(&address)?).files(&snapshot, SnapshotFile::open)?;
        let (position, new) = (snapshot.position, people_bytes(shipped.bytes));
        log::info!("backup: up to change {position}; {} files were new, {new}", shipped.files);
        return Ok((made, snapshot.files.iter().map(|file| file.bytes).sum()));
    }
    let backups = Backups::new(&plan.to);
    let written = backups.write(&snapshot, SnapshotFile::open)?;
    if let Some(keep) = plan.keep {
        backups.prune(&written.manifest, keep)?;
    }
    let (position, new) = (written.manifest.position, people_bytes(written.bytes));
    log::info!("backup: up to change {position}; {} files were new, {new}", written.files);
    for path in written.checked.iter().flat_map(|checked| &checked.repaired) {
        log::warn!("{} was damaged, and was copied again: is that disk failing?", path.display());
    }
    for path in written.checked.iter().flat_map(|checked| &checked.lost) {
        log::error!(
            "{} is damaged, and the archive no longer has it: backups before change {position} may not be restorable",
            path.display()
        );
    }
    Ok((written.manifest.made_millis, written.manifest.bytes()))
}
