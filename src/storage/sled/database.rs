//! The one owner of the files in a data directory.
//!
//! Keeps: every write goes through one commit thread and is answered when it is on disk; after a failed write the
//! files are opened again before anything else is written or shown; readers get a tree for as long as one question
//! takes. Leaves out: how a group is formed and made durable (`commit`), how the disk is won back (`recovery`).

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;

use super::commit;
use super::files::Files;
use super::keyspace::Keyspace;
use super::ops::{Ops, VALUE_BYTES_MAX};
use super::shared::{Job, Shared};
use super::steps::Faults;
use super::trees::{self, Tree};
use crate::model::RemoteId;
use crate::storage::{AppendError, StorageError};

/// When a commit is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Once it is on disk: a power cut after the answer takes nothing back.
    Sync,
    /// Once it is applied; it is on disk at most so much later. A power cut or a kill may take back what was answered, and
    /// a power cut may leave a directory that cannot be opened: see `docs/FORMAT.md`.
    Interval(Duration),
}

/// How a [`Database`] is opened. The defaults suit a server.
#[derive(Clone, Copy, Debug)]
pub struct DatabaseOptions {
    /// When commits are answered; [`Durability::Sync`] by default.
    pub durability: Durability,
    /// What sled may keep of its pages in memory, in bytes; 64 MiB by default. It takes somewhat more than it is told.
    pub cache_bytes: u64,
    /// Disk space set aside so that the database can still be opened when the disk is full, in bytes; 32 MiB by
    /// default.
    pub ballast_bytes: u64,
    /// What small appends may take, in bytes, before they are put in order, store by store; 32 MiB by default. So much
    /// is read when the database is opened, and at most about three times as much of memory is used. The more it is, the
    /// cheaper are small appends to many stores.
    pub packs_bytes: u64,
}

impl Default for DatabaseOptions {
    fn default() -> Self {
        Self {
            durability: Durability::Sync,
            cache_bytes: 64 << 20,
            ballast_bytes: 32 << 20,
            packs_bytes: 32 << 20,
        }
    }
}

/// A data directory could not be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open, or this one has already.
    #[error("the data directory {path:?} is in use by another process")]
    InUse {
        /// The data directory.
        path: PathBuf,
    },
    /// It holds files, but none that says that it is a data directory.
    #[error("{path:?} is not a data directory: it holds other files, and no file `format`")]
    Foreign {
        /// The directory.
        path: PathBuf,
    },
    /// Another version of the server wrote it.
    #[error("the data directory {path:?} has a format that this version does not know: {found:?}")]
    UnknownFormat {
        /// The data directory.
        path: PathBuf,
        /// What its file `format` says.
        found: String,
    },
    /// The disk failed.
    #[error("the data directory {path:?} cannot be opened: {cause}")]
    Unavailable {
        /// The data directory.
        path: PathBuf,
        /// What went wrong.
        cause: Arc<str>,
    },
    /// What it holds is not what was written.
    #[error("the data directory {path:?} is corrupt: {finding}")]
    Corrupt {
        /// The data directory.
        path: PathBuf,
        /// What is wrong.
        finding: Arc<str>,
    },
}

impl OpenError {
    pub(super) fn unavailable(path: &Path, cause: &dyn std::fmt::Display) -> Self {
        Self::Unavailable { path: path.to_owned(), cause: cause.to_string().into() }
    }

    pub(super) fn corrupt(path: &Path, finding: &dyn std::fmt::Display) -> Self {
        Self::Corrupt { path: path.to_owned(), finding: finding.to_string().into() }
    }
}

/// The open database. Clones share it; it is closed by [`Database::close`] or when the last clone is dropped.
#[derive(Clone)]
pub struct Database {
    owner: Arc<Owner>,
}

/// Closes the database when it is dropped.
struct Owner {
    shared: Arc<Shared>,
    remote_id: RemoteId,
    thread: Mutex<Option<JoinHandle<Result<(), StorageError>>>>,
}

impl Database {
    /// Opens the data directory `path`, making it if there is none. Blocks on disk.
    pub fn open(path: &Path, options: DatabaseOptions) -> Result<Self, OpenError> {
        Self::open_with(path, options, None)
    }

    /// As [`Database::open`], with faults for tests.
    pub(crate) fn open_with(
        path: &Path,
        options: DatabaseOptions,
        faults: Option<Arc<dyn Faults>>,
    ) -> Result<Self, OpenError> {
        let files = Files::open(path, options.ballast_bytes)?;
        let (trees, remote_id) = trees::open_first(&files, &options)?;
        let shared = Arc::new(Shared::new(files, options, faults, trees));
        let thread = commit::start(shared.clone()).map_err(|e| OpenError::unavailable(path, &e))?;
        let thread = Mutex::new(Some(thread));
        Ok(Self { owner: Arc::new(Owner { shared, remote_id, thread }) })
    }

    /// This server's own id, made with the data directory.
    pub fn remote_id(&self) -> RemoteId {
        self.owner.remote_id
    }

    /// A tree to read. While the database is being reopened this blocks, for two seconds at most, and then fails.
    pub(crate) fn tree(&self, keyspace: Keyspace) -> Result<Tree, StorageError> {
        self.owner.shared.tree(keyspace)
    }

    /// Queues `ops` and resolves once they are durable, or once that failed. They are stored whole or not at all.
    ///
    /// Commits become durable in the order of these calls; whatever is queued together, by anyone, shares one sync.
    /// Queueing happens within the call; a dropped future takes nothing back. A value above [`VALUE_BYTES_MAX`] is
    /// refused.
    pub(crate) fn commit(
        &self,
        keyspace: Keyspace,
        ops: Ops,
    ) -> impl Future<Output = Result<(), AppendError>> + Send + 'static {
        let longest = ops.value_bytes_longest();
        let (answer, receiver) = tokio::sync::oneshot::channel();
        if longest > VALUE_BYTES_MAX {
            let refusal = format!("a value of {longest} bytes, {VALUE_BYTES_MAX} are the most");
            // The receiver is at hand: this cannot fail.
            let _ = answer.send(Err(AppendError::Definite(refusal.into())));
        } else {
            self.owner.shared.enqueue(Job::Ops { keyspace, ops, answer });
        }
        async move {
            receiver.await.unwrap_or_else(|_| {
                Err(AppendError::Indefinite("the commit thread ended before it answered".into()))
            })
        }
    }

    /// Whether commits are taken: `Err` says why not.
    pub fn ready(&self) -> Result<(), StorageError> {
        self.owner.shared.ready()
    }

    /// Waits for what is queued and closes the files. Later commits are refused, later reads fail. Blocks on disk.
    pub fn close(&self) -> Result<(), StorageError> {
        self.owner.close()
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.owner.shared
    }
}

impl Owner {
    fn close(&self) -> Result<(), StorageError> {
        self.shared.refuse_from_now_on("the database is closed");
        match self.thread.lock().take() {
            Some(thread) => thread
                .join()
                .unwrap_or_else(|_| Err(StorageError::unavailable("the commit thread panicked"))),
            None => Ok(()),
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            log::error!("closing the database: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn wait<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(future)
    }

    fn one(key: &str, value: &str) -> Ops {
        let mut ops = Ops::default();
        ops.insert(key, value);
        ops
    }

    fn open(directory: &tempfile::TempDir) -> Database {
        Database::open(directory.path(), DatabaseOptions::default()).expect("open")
    }

    #[test]
    fn a_commit_is_there_after_reopening() {
        let directory = tempfile::tempdir().expect("a directory");
        let database = open(&directory);
        let first = database.commit(Keyspace::Registry, one("a", "1"));
        let second = database.commit(Keyspace::Registry, one("a", "2"));
        let other = database.commit(Keyspace::Journal, one("a", "3"));
        for commit in [first.boxed(), second.boxed(), other.boxed()] {
            wait(commit).expect("durable");
        }
        let remote_id = database.remote_id();
        database.close().expect("closed");
        drop(database);

        let database = open(&directory);
        assert_eq!(database.remote_id(), remote_id);
        let read = |keyspace| database.tree(keyspace).expect("a tree").get("a").expect("a read");
        assert_eq!(read(Keyspace::Registry).as_deref(), Some(&b"2"[..]));
        assert_eq!(read(Keyspace::Journal).as_deref(), Some(&b"3"[..]));
    }

    #[test]
    fn a_closed_database_refuses_commits_and_reads() {
        let directory = tempfile::tempdir().expect("a directory");
        let database = open(&directory);
        database.close().expect("closed");
        let answer = database.commit(Keyspace::Registry, one("a", "1")).now_or_never();
        assert!(matches!(answer, Some(Err(AppendError::Definite(_)))));
        assert!(database.tree(Keyspace::Registry).is_err());
        assert!(database.ready().is_err());
    }

    #[test]
    fn what_was_queued_is_stored_before_closing() {
        let directory = tempfile::tempdir().expect("a directory");
        let database = open(&directory);
        let commit = database.commit(Keyspace::Registry, one("a", "1"));
        drop(database);
        assert!(matches!(commit.now_or_never(), Some(Ok(()))));
        let database = open(&directory);
        let tree = database.tree(Keyspace::Registry).expect("a tree");
        assert_eq!(tree.get("a").expect("a read").as_deref(), Some(&b"1"[..]));
    }

    #[test]
    fn interval_commits_are_there_after_closing() {
        let directory = tempfile::tempdir().expect("a directory");
        let durability = Durability::Interval(Duration::from_secs(3_600));
        let options = DatabaseOptions { durability, ..DatabaseOptions::default() };
        let database = Database::open(directory.path(), options).expect("open");
        wait(database.commit(Keyspace::Registry, one("a", "1"))).expect("applied");
        drop(database);
        let tree = open(&directory).tree(Keyspace::Registry).expect("a tree");
        assert_eq!(tree.get("a").expect("a read").as_deref(), Some(&b"1"[..]));
    }

    #[test]
    fn an_outsized_value_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let database = open(&directory);
        let value = "x".repeat(VALUE_BYTES_MAX + 1);
        let answer = wait(database.commit(Keyspace::Registry, one("a", &value)));
        assert!(matches!(answer, Err(AppendError::Definite(_))));
        let tree = database.tree(Keyspace::Registry).expect("a tree");
        assert_eq!(tree.get("a"), Ok(None));
    }
}
