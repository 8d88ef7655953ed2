//! The one owner of the files in a data directory.
//!
//! Keeps: every write goes through one commit thread and is answered when it is on disk; readers get a tree for as
//! long as one question takes. Leaves out: how a commit is made durable (`commit`).

use std::future::Future;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::commit::{self, Committer};
use super::keyspace::Keyspace;
use super::ops::{Ops, VALUE_BYTES_MAX};
use crate::model::RemoteId;
use crate::storage::{AppendError, StorageError};

const REMOTE_ID: &[u8] = b"remote-id";

/// When a commit is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Once it is on disk: a power cut after the answer takes nothing back.
    Sync,
    /// Once it is applied; it is on disk at most so much later. A power cut may take back what was answered.
    Interval(Duration),
}

/// How a [`Database`] is opened. The defaults suit a server.
#[derive(Clone, Copy, Debug)]
pub struct DatabaseOptions {
    /// When commits are answered; [`Durability::Sync`] by default.
    pub durability: Durability,
    /// What sled may keep of its pages in memory, in bytes; 64 MiB by default.
    pub cache_bytes: u64,
}

impl Default for DatabaseOptions {
    fn default() -> Self {
        Self { durability: Durability::Sync, cache_bytes: 64 << 20 }
    }
}

/// A data directory could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("the data directory {path:?} is in use by another process")]
    InUse {
        /// The data directory.
        path: PathBuf,
    },
    /// The disk failed.
    #[error("the data directory {path:?} cannot be opened: {cause}")]
    Unavailable {
        /// The data directory.
        path: PathBuf,
        /// What went wrong.
        cause: Arc<str>,
    },
}

/// The open database. Clones share it; it is closed by [`Database::close`] or when the last clone is dropped.
#[derive(Clone)]
pub struct Database {
    inner: Arc<Inner>,
}

struct Inner {
    trees: Arc<Trees>,
    remote_id: RemoteId,
    committer: Committer,
}

pub(super) struct Trees {
    pub(super) db: sled::Db,
    all: Vec<sled::Tree>,
}

impl Trees {
    pub(super) fn get(&self, keyspace: Keyspace) -> &sled::Tree {
        &self.all[keyspace.index()]
    }
}

/// A tree for the length of one question: drop it soon, since the database cannot be reopened while it is held.
///
/// Shows what is applied, which may be ahead of what is durable by the commits that have not resolved yet.
pub struct Tree {
    trees: Arc<Trees>,
    keyspace: Keyspace,
}

impl Deref for Tree {
    type Target = sled::Tree;

    fn deref(&self) -> &sled::Tree {
        self.trees.get(self.keyspace)
    }
}

impl Database {
    /// Opens the data directory `path`, making it if there is none. Blocks on disk.
    pub fn open(path: &Path, options: DatabaseOptions) -> Result<Self, OpenError> {
        let fail = |cause: &dyn std::fmt::Display| OpenError::Unavailable {
            path: path.to_owned(),
            cause: cause.to_string().into(),
        };
        let DatabaseOptions { durability, cache_bytes } = options;
        let config = sled::Config::new()
            .path(path)
            .cache_capacity(cache_bytes)
            .flush_every_ms(None)
            .mode(sled::Mode::HighThroughput);
        let db = config.open().map_err(|e| fail(&e))?;
        let all = Keyspace::ALL
            .iter()
            .map(|keyspace| db.open_tree(keyspace.name()))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| fail(&e))?;
        let trees = Arc::new(Trees { db, all });
        let meta = trees.get(Keyspace::Meta);
        let remote_id = if let Some(bytes) = meta.get(REMOTE_ID).map_err(|e| fail(&e))? {
            RemoteId::from_slice(&bytes).ok_or_else(|| fail(&"the remote id is malformed"))?
        } else {
            let id = RemoteId::random();
            meta.insert(REMOTE_ID, id.as_bytes()).map_err(|e| fail(&e))?;
            id
        };
        let committer = commit::start(path, trees.clone(), durability).map_err(|e| fail(&e))?;
        Ok(Self { inner: Arc::new(Inner { trees, remote_id, committer }) })
    }

    /// This server's own id, made with the data directory.
    pub fn remote_id(&self) -> RemoteId {
        self.inner.remote_id
    }

    /// A tree to read. Blocks for a moment while the database is being reopened, then fails.
    pub fn tree(&self, keyspace: Keyspace) -> Result<Tree, StorageError> {
        Ok(Tree { trees: self.inner.trees.clone(), keyspace })
    }

    /// Queues `ops` and resolves once it is durable, or once that failed. It is stored whole or not at all.
    ///
    /// Commits become durable in the order of these calls; whatever is queued together, by anyone, shares one sync.
    /// Queueing happens within the call; a dropped future takes nothing back. A value above [`VALUE_BYTES_MAX`] is
    /// refused.
    pub fn commit(
        &self,
        keyspace: Keyspace,
        ops: Ops,
    ) -> impl Future<Output = Result<(), AppendError>> + Send + 'static {
        let longest = ops.value_bytes_longest();
        let answer = if longest > VALUE_BYTES_MAX {
            Err(format!("a value of {longest} bytes, {VALUE_BYTES_MAX} are the most"))
        } else {
            Ok(self.inner.committer.commit(keyspace, ops))
        };
        async move {
            let answer = answer.map_err(|refusal| AppendError::Definite(refusal.into()))?;
            answer.await.unwrap_or_else(|_| {
                Err(AppendError::Indefinite("the commit thread ended before it answered".into()))
            })
        }
    }

    /// Waits for what is queued and closes the files. Later commits are refused, later reads fail. Blocks on disk.
    pub fn close(&self) -> Result<(), StorageError> {
        self.inner.committer.close()
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

    #[test]
    fn a_commit_is_there_after_reopening() {
        let directory = tempfile::tempdir().expect("a directory");
        let database = Database::open(directory.path(), DatabaseOptions::default()).expect("open");
        let first = database.commit(Keyspace::Registry, one("a", "1"));
        let second = database.commit(Keyspace::Registry, one("a", "2"));
        let other = database.commit(Keyspace::Journal, one("a", "3"));
        for commit in [first.boxed(), second.boxed(), other.boxed()] {
            wait(commit).expect("durable");
        }
        let remote_id = database.remote_id();
        database.close().expect("closed");
        drop(database);

        let database = Database::open(directory.path(), DatabaseOptions::default()).expect("open");
        assert_eq!(database.remote_id(), remote_id);
        let read = |keyspace| database.tree(keyspace).expect("a tree").get("a").expect("a read");
        assert_eq!(read(Keyspace::Registry).as_deref(), Some(&b"2"[..]));
        assert_eq!(read(Keyspace::Journal).as_deref(), Some(&b"3"[..]));
    }

    #[test]
    fn a_closed_database_refuses_commits() {
        let directory = tempfile::tempdir().expect("a directory");
        let database = Database::open(directory.path(), DatabaseOptions::default()).expect("open");
        database.close().expect("closed");
        let answer = database.commit(Keyspace::Registry, one("a", "1")).now_or_never();
        assert!(matches!(answer, Some(Err(AppendError::Definite(_)))));
    }

    #[test]
    fn an_outsized_value_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let database = Database::open(directory.path(), DatabaseOptions::default()).expect("open");
        let value = "x".repeat(VALUE_BYTES_MAX + 1);
        let answer = wait(database.commit(Keyspace::Registry, one("a", &value)));
        assert!(matches!(answer, Err(AppendError::Definite(_))));
        let tree = database.tree(Keyspace::Registry).expect("a tree");
        assert_eq!(tree.get("a"), Ok(None));
    }
}
