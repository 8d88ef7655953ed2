//! Backups by themselves, as `[backup]` says.
//!
//! Keeps: one at a time, beside everything else; one that fails is told each time, shown, and tried again soon. Leaves out: what a backup is
//! (`storage::sled`).

use std::io;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use eventlog_server::storage::sled::{BackupError, Backups, Database, Manifest};
use eventlog_server::storage::{SnapshotFile, StorageError};

use crate::cli::text::people_bytes;
use crate::config::BackupPlan;

/// After one that failed, the next one is tried this soon.
const RETRY: Duration = Duration::from_secs(60);

/// The running thread. Ends when it is dropped, after the backup that is under way.
pub(super) struct Scheduled {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// One was not made.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Backup(#[from] BackupError),
}

impl Scheduled {
    /// Begins to make backups of `database`, if that is wanted.
    pub(super) fn start(plan: Option<&BackupPlan>, database: &Database) -> io::Result<Self> {
        let Some(plan) = plan.cloned() else { return Ok(Self { stop: None, thread: None }) };
        let (stop, stopped) = channel();
        let database = database.clone();
        let thread = std::thread::Builder::new().name("backup".to_owned()).spawn(move || {
            let mut wait = first_wait(&plan, &database);
            while stopped.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
                wait = match make(&plan, &database) {
                    Ok(manifest) => {
                        database.note_backup(Some((manifest.made_millis, manifest.bytes())));
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
            // If it panicked there is no backup, which was told.
            drop(thread.join());
        }
    }
}

/// Until the first one is due: an earlier process may have made one.
fn first_wait(plan: &BackupPlan, database: &Database) -> Duration {
    let Ok(Some(newest)) = Backups::new(&plan.to).newest() else { return Duration::ZERO };
    database.note_backup(Some((newest.made_millis, newest.bytes())));
    #[expect(clippy::disallowed_methods, reason = "backups are made by the clock")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let age = now.saturating_sub(Duration::from_millis(newest.made_millis));
    plan.every.saturating_sub(age)
}

fn make(plan: &BackupPlan, database: &Database) -> Result<Manifest, Failed> {
    let backups = Backups::new(&plan.to);
    let snapshot = database.snapshot()?;
    let written = backups.write(&snapshot, SnapshotFile::open)?;
    if let Some(keep) = plan.keep {
        backups.prune(&written.manifest, keep)?;
    }
    let (position, new) = (written.manifest.position, people_bytes(written.bytes));
    log::info!("backup: up to change {position}; {} files were new, {new}", written.files);
    Ok(written.manifest)
}
