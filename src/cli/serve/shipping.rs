//! Ships the archive to a bucket while the server runs, as `[archive] to` configures.
//!
//! Keeps: no write waits for it; the only extra disk space is a file with the changes since the last round; an
//! unreachable bucket is logged, shown, and caught up with. Leaves out: what is shipped (`storage::sled`), and how
//! (`cli::bucket`).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use eventlog_server::storage::sled::Database;
use eventlog_server::storage::{Snapshot, SnapshotFile, StorageError};
use tokio::sync::watch;

use crate::cli::bucket::{Bucket, BucketError, Kept, ShipError, Shipper, Until, names_here};
use crate::config::ShippingPlan;

/// How often a lasting failure is logged again.
const SAID_EVERY: Duration = Duration::from_secs(60);
/// How often the bucket is asked whether it keeps what is removed.
const ASKED_EVERY: Duration = Duration::from_secs(3_600);
/// How often it is looked whether somebody else writes to the bucket. More often, each 30 rounds, if `ship_every` is short.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// How long the end of the process waits for the bucket. What is not there then is shipped after the next start.
const END_MAX: Duration = Duration::from_secs(5);

/// The running thread. When this is dropped, the thread ends after a last round, which takes `END_MAX` or a little more.
pub(super) struct Shipping {
    stop: Option<Sender<()>>,
    until: watch::Sender<Option<tokio::time::Instant>>,
    thread: Option<JoinHandle<()>>,
}

/// A round did not ship everything.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Bucket(#[from] BucketError),
    #[error(transparent)]
    Ship(#[from] ShipError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What a round has to ship.
#[derive(PartialEq, Eq)]
struct State {
    /// The last change.
    position: u64,
    /// How often a file was written again.
    rewritten: u64,
    /// The names in the archive, sorted. A file is archived, or goes, a while after its last change.
    here: Vec<String>,
}

struct Rounds {
    plan: ShippingPlan,
    /// When the bucket is not waited for any more.
    until: Until,
    database: Database,
    /// For tails, one at a time.
    folder: PathBuf,
    shipper: Option<Shipper>,
    /// When the bucket was asked whether it keeps what is removed, and what it said.
    asked: Option<(Instant, Kept)>,
    /// All of this is there.
    done: Option<State>,
    said: Option<Instant>,
    /// When it was last looked whether somebody else writes to the bucket, and nobody did.
    looked: Option<Instant>,
}

impl Shipping {
    /// Begins to bring `database` there, if that is wanted. `data_dir` has room for what is on its way.
    pub(super) fn start(
        plan: Option<&ShippingPlan>,
        database: &Database,
        data_dir: &Path,
    ) -> io::Result<Self> {
        let (until, ends) = watch::channel(None);
        let Some(plan) = plan.cloned() else { return Ok(Self { stop: None, until, thread: None }) };
        let folder = data_dir.join("shipping");
        match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        log::info!("the archive is copied to {}, each {:?}", plan.to, plan.every);
        database.note_shipped(Some(0));
        let to = &plan.to;
        database.note_kept_elsewhere(Some(format!(
            "{to} was not asked yet whether it keeps what is removed"
        )));
        let (stop, stopped) = channel();
        let every = plan.every;
        let (database, shipper) = (database.clone(), None);
        let mut rounds = Rounds {
            plan,
            until: ends,
            database,
            folder,
            shipper,
            asked: None,
            done: None,
            said: None,
            looked: None,
        };
        let thread = std::thread::Builder::new().name("shipping".to_owned()).spawn(move || {
            loop {
                rounds.go();
                if stopped.recv_timeout(every) != Err(RecvTimeoutError::Timeout) {
                    return rounds.go();
                }
            }
        })?;
        Ok(Self { stop: Some(stop), until, thread: Some(thread) })
    }
}

impl Drop for Shipping {
    fn drop(&mut self) {
        self.until.send_replace(Some((now() + END_MAX).into()));
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // If the thread panicked, nothing more is shipped, and its figure shows that.
            drop(thread.join());
        }
    }
}

impl Rounds {
    fn go(&mut self) {
        let begun = now_millis();
        match self.ship() {
            Ok(state) => {
                self.done = Some(state);
                self.database.note_shipped(Some(begun));
                if self.said.take().is_some() {
                    log::info!("{} is complete again", self.plan.to);
                }
            }
            Err(error) => {
                self.database.note_shipped(None);
                if self.said.is_none_or(|said| said.elapsed() >= SAID_EVERY) {
                    self.said = Some(now());
                    log::error!("the archive cannot be copied to {}: {error}", self.plan.to);
                }
            }
        }
    }

    /// Returns what is there.
    fn ship(&mut self) -> Result<State, Failed> {
        // Read before: what changes meanwhile is for the next round.
        let (position, rewritten) = (self.database.position(), self.database.rewritten());
        let snapshot = self.database.archived()?;
        let mut here = names_here(&snapshot)?;
        here.sort_unstable();
        let state = State { position, rewritten, here };
        if self.done.as_ref() != Some(&state) {
            self.round(&snapshot, &state.here)?;
        }
        match self.look() {
            // What `backup` brought there of this directory is known after a round.
            Err(Failed::Ship(ShipError::Another(_))) => {
                self.round(&snapshot, &state.here)?;
                self.look()?;
            }
            looked => looked?,
        }
        Ok(state)
    }

    /// Looks now and then whether a copy of the directory is served elsewhere. A server that has nothing to ship would not notice.
    fn look(&mut self) -> Result<(), Failed> {
        let every = self.plan.every.saturating_mul(30).min(LOOK_EVERY);
        if self.looked.is_none_or(|looked| looked.elapsed() >= every)
            && let Some(shipper) = &self.shipper
        {
            shipper.nobody_else_writes()?;
            self.looked = Some(now());
        }
        Ok(())
    }

    /// Notes whether the bucket keeps what is removed, or does not say so, and says it in the log when that changes.
    fn note_what_is_kept(&mut self) -> Result<(), BucketError> {
        let is_due = self.asked.as_ref().is_none_or(|(at, _)| at.elapsed() >= ASKED_EVERY);
        if let Some(shipper) = self.shipper.as_ref().filter(|_| is_due) {
            let kept = shipper.keeps_what_is_removed()?;
            let said = format!("{} {kept}; what was erased may be among that", self.plan.to);
            let is_new = self.asked.as_ref().is_none_or(|(_, before)| *before != kept);
            if is_new && kept != Kept::No {
                log::warn!("{said}");
            }
            self.database.note_kept_elsewhere((kept != Kept::No).then_some(said));
            self.asked = Some((now(), kept));
        }
        Ok(())
    }

    fn round(&mut self, snapshot: &Snapshot, here: &[String]) -> Result<(), Failed> {
        let mut shipper = match self.shipper.take() {
            Some(shipper) => shipper,
            None => Shipper::new(Bucket::open(&self.plan.to)?.until(self.until.clone())),
        };
        let shipped = shipper.files(snapshot, SnapshotFile::open);
        // What it knows of the bucket stays true.
        self.shipper = Some(shipper);
        shipped?;
        self.note_what_is_kept()?;
        let Some(shipper) = &mut self.shipper else { return Ok(()) };
        let behind = snapshot.position.max(shipper.tails_end());
        if let Some(tail) = self.database.tail(behind, &self.folder)? {
            let path = self.folder.join(&tail.name);
            let file = SnapshotFile { name: tail.name.clone(), path, bytes: tail.bytes };
            let there = shipper.tail(&tail, &file);
            std::fs::remove_file(&file.path)?;
            there?;
        }
        shipper.tidy(snapshot.position, here, self.plan.is_bounded)?;
        Ok(())
    }
}

#[expect(clippy::disallowed_methods, reason = "it is brought there by the clock")]
fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "it is brought there by the clock")]
fn now_millis() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
