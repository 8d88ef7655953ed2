//! Sled itself, opened: its trees, and how it is opened and closed.

use std::any::Any;
use std::io;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::database::{DatabaseOptions, OpenError};
use super::ends::Ends;
use super::files::{Files, is_full};
use super::keyspace::Keyspace;
use crate::model::RemoteId;

/// The unit in which sled lays out its log, in bytes. A quarter of it is the most that stays in the log; a page full
/// of values of [`VALUE_BYTES_MAX`](super::VALUE_BYTES_MAX) is less. Persisted: sled refuses another one.
pub const LOG_UNIT_BYTES: usize = 4 << 20;

/// How long threads of an earlier sled in this process may hold its lock.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(5);
const LOCK_POLL: Duration = Duration::from_millis(1);

const REMOTE_ID: &[u8] = b"remote-id";

/// Sled, opened once.
pub(super) struct Trees {
    pub(super) db: sled::Db,
    all: Vec<sled::Tree>,
    ends: Arc<Ends>,
    /// Counts how often this process opened it.
    pub(super) generation: u64,
}

impl Trees {
    pub(super) fn get(&self, keyspace: Keyspace) -> &sled::Tree {
        &self.all[keyspace.index()]
    }

    pub(super) fn log(&self) -> &sled::Tree {
        self.get(Keyspace::Log)
    }

    /// The ends of stores, in the log's tree and in packs.
    pub(super) fn ends(&self) -> &Arc<Ends> {
        &self.ends
    }
}

/// A tree for the length of one question: drop it soon, since the database cannot be reopened while it is held.
///
/// Shows what is applied, which may be ahead of what is durable by the commits that have not resolved yet.
pub(crate) struct Tree {
    trees: Arc<Trees>,
    keyspace: Keyspace,
}

impl Tree {
    pub(super) const fn new(trees: Arc<Trees>, keyspace: Keyspace) -> Self {
        Self { trees, keyspace }
    }

    /// The ends of stores, in the log's tree and in packs.
    pub(super) fn ends(&self) -> &Ends {
        self.trees.ends()
    }
}

impl Deref for Tree {
    type Target = sled::Tree;

    fn deref(&self) -> &sled::Tree {
        self.trees.get(self.keyspace)
    }
}

/// Opens sled for the first time in this process; on a full disk with the ballast gone.
pub(super) fn open_first(
    files: &Files,
    options: &DatabaseOptions,
) -> Result<(Trees, RemoteId), OpenError> {
    let unavailable = |error: io::Error| OpenError::unavailable(files.directory(), &error);
    let opened = match open(files, options, 0) {
        Err(OpenFailure::Io(error)) if is_full(&error) => {
            log::warn!("the disk is full: giving up the ballast to open the database");
            files.drop_ballast().map_err(unavailable)?;
            open(files, options, 0)
        }
        opened => opened,
    };
    let trees = opened.map_err(|failure| match failure {
        OpenFailure::Io(error) => unavailable(error),
        OpenFailure::Corrupt(finding) => OpenError::corrupt(files.directory(), &finding),
    })?;
    let remote_id = remote_id(files, &trees)?;
    if let Err(error) = files.make_ballast() {
        log::warn!("setting disk space aside: {error}");
    }
    Ok((trees, remote_id))
}

/// Why sled did not open.
pub(super) enum OpenFailure {
    Io(io::Error),
    Corrupt(String),
}

impl From<OpenFailure> for io::Error {
    fn from(failure: OpenFailure) -> Self {
        match failure {
            OpenFailure::Io(error) => error,
            OpenFailure::Corrupt(finding) => Self::new(io::ErrorKind::InvalidData, finding),
        }
    }
}

impl From<io::Error> for OpenFailure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<sled::Error> for OpenFailure {
    fn from(error: sled::Error) -> Self {
        match error {
            sled::Error::Io(error) => Self::Io(error),
            error @ (sled::Error::Corruption { .. }
            | sled::Error::ReportableBug(_)
            | sled::Error::Unsupported(_)
            | sled::Error::CollectionNotFound(_)) => Self::Corrupt(error.to_string()),
        }
    }
}

/// Opens sled and syncs what it wrote meanwhile.
pub(super) fn open(
    files: &Files,
    options: &DatabaseOptions,
    generation: u64,
) -> Result<Trees, OpenFailure> {
    let config = sled::Config::new()
        .path(files.database())
        .cache_capacity(options.cache_bytes)
        .segment_size(LOG_UNIT_BYTES)
        // Its timer swallows errors.
        .flush_every_ms(None)
        .mode(sled::Mode::HighThroughput);
    let db = open_unlocked(&config)?;
    let all = Keyspace::ALL
        .iter()
        .map(|keyspace| db.open_tree(keyspace.name()))
        .collect::<Result<Vec<_>, _>>()?;
    db.flush()?;
    // What a process wrote before it was killed shows now; it is served only once it is on disk.
    files.sync_all()?;
    let ends = Arc::new(Ends::load(&all[Keyspace::Log.index()])?);
    Ok(Trees { db, all, ends, generation })
}

/// Opens sled, once its threads let go of an earlier one in this process. Others are kept out by our own lock.
fn open_unlocked(config: &sled::Config) -> Result<sled::Db, OpenFailure> {
    let deadline = Instant::now() + LOCK_WAIT_MAX;
    loop {
        // Sled asserts some of what it expects to find.
        let opened = catch_unwind(AssertUnwindSafe(|| config.open()))
            .map_err(|panic| OpenFailure::Corrupt(message_of(panic.as_ref())))?;
        match opened {
            Err(sled::Error::Io(error))
                if error.to_string().contains("could not acquire lock")
                    && Instant::now() < deadline =>
            {
                std::thread::sleep(LOCK_POLL);
            }
            opened => return Ok(opened?),
        }
    }
}

fn remote_id(files: &Files, trees: &Trees) -> Result<RemoteId, OpenError> {
    let failed = |error: sled::Error| OpenError::unavailable(files.directory(), &error);
    let meta = trees.get(Keyspace::Meta);
    if let Some(bytes) = meta.get(REMOTE_ID).map_err(failed)? {
        return RemoteId::from_slice(&bytes)
            .ok_or_else(|| OpenError::corrupt(files.directory(), &"the remote id is malformed"));
    }
    let id = RemoteId::random();
    meta.insert(REMOTE_ID, id.as_bytes()).map_err(failed)?;
    trees.db.flush().map_err(failed)?;
    files.sync_all().map_err(|error| OpenError::unavailable(files.directory(), &error))?;
    Ok(id)
}

/// Closes sled. It flushes and syncs once more, and panics if that fails.
pub(super) fn close(trees: Trees) -> io::Result<()> {
    catch_unwind(AssertUnwindSafe(|| drop(trees)))
        .map_err(|panic| io::Error::other(message_of(panic.as_ref())))
}

fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("it panicked").to_owned()
}
