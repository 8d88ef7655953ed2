//! The one owner of the files in a data directory.
//!
//! Keeps: every write goes through the commit thread and is answered when it is on disk; readers get a tree for as long as
//! one question takes. Leaves out: how a group is made durable (`commit`), how it comes into sled (`checkpoint`).

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;

use super::archived;
use super::backup::{self, As, Backups, Origin, Restored, Restoring, Tail, Wanted};
use super::commit::{self, Job};
use super::compact::{self, COMPACT_BYTES_MIN};
use super::erasures;
use super::files::Files;
use super::keyspace::Keyspace;
use super::open;
use super::ops::{self, Ops, VALUE_BYTES_MAX};
use super::options::{DatabaseOptions, OpenError, OpenFailure};
use super::rebuild;
use super::renew::{self, Renewed};
use super::scrub;
use super::shared::Shared;
use super::steps::Faults;
use super::tables::Tree;
use super::takeover::{self, bytes_in};
use super::verify::{self, Verification};
use crate::model::RemoteId;
use crate::storage::commit_log::{Generation, LogWriter};
use crate::storage::{AppendError, Compacted, ErasedReport, Snapshot, StorageError, Work};

/// How often to check whether compaction is done.
const COMPACT_POLL: Duration = Duration::from_millis(10);
/// How often to check whether trimmed entries are removed.
const SWEEP_POLL: Duration = Duration::from_millis(5);

/// The open database. Clones share it; it is closed by [`Database::close`] or when the last clone is dropped.
#[derive(Clone)]
pub struct Database {
    owner: Arc<Owner>,
}

/// Closes the database when it is dropped.
struct Owner {
    shared: Arc<Shared>,
    origin: Origin,
    threads: Mutex<Option<Threads>>,
}

struct Threads {
    commit: JoinHandle<Option<LogWriter>>,
    checkpoint: JoinHandle<Result<(), StorageError>>,
}

impl Database {
    /// Opens the data directory `path`. Creates it if it does not exist. Blocks on disk.
    pub fn open(path: &Path, options: DatabaseOptions) -> Result<Self, OpenError> {
        Self::open_with(path, options, None)
    }

    /// Like [`Database::open`], with faults for tests.
    pub(crate) fn open_with(
        path: &Path,
        options: DatabaseOptions,
        faults: Option<Arc<dyn Faults>>,
    ) -> Result<Self, OpenError> {
        let (files, format) = Files::open(path, options.ballast_bytes)?;
        // Completes an interrupted acceptance of a loss, or an interrupted healing.
        renew::finish(&files).map_err(|failure| failure.of(path))?;
        compact::finish(&files, faults.as_deref())
            .map_err(|error| OpenError::unavailable(path, &error))?;
        takeover::take_over(&files, format, &options, faults.as_deref())
            .map_err(|failure| failure.of(path))?;
        files.remove_unfinished().map_err(|error| OpenError::unavailable(path, &error))?;
        let opened = open::open(files, options, faults)?;
        let unavailable = |error| OpenError::unavailable(path, &error);
        let shared = opened.shared;
        if let Err(error) = archived::note(&shared.files, &shared.options.archive) {
            log::warn!("noting where the archive is: {error}");
        }
        shared.health.begin(&shared.files, &shared.options);
        let checkpoint = opened.checkpointer.start(opened.log.files).map_err(unavailable)?;
        let commit = commit::start(shared.clone(), opened.log.writer, opened.next_ordinal);
        let commit = commit.map_err(unavailable)?;
        let threads = Mutex::new(Some(Threads { commit, checkpoint }));
        let database = Self { owner: Arc::new(Owner { shared, origin: opened.origin, threads }) };
        // This comes before anybody reads the database.
        erasures::apply(&database).map_err(|failure| failure.of(path))?;
        Ok(database)
    }

    /// Removes what was kept of the data directory `path` when it was taken over from an earlier format: there is no way
    /// back then. False if there was nothing. The directory may be open.
    pub fn accept_format(path: &Path) -> Result<bool, OpenError> {
        takeover::accept(path)
    }

    /// Rebuilds the database of the data directory `path` from the archive and the commit log. The old database is kept
    /// beside it. Nothing is changed if something is missing. Blocks on disk.
    pub fn rebuild(path: &Path, options: &DatabaseOptions) -> Result<(), OpenError> {
        let (files, _) = Files::open(path, options.ballast_bytes)?;
        compact::finish(&files, None).map_err(|error| OpenError::unavailable(path, &error))?;
        rebuild::rebuild(&files, options, "a rebuild was asked for")
            .map_err(|failure| failure.of(path))
    }

    /// Continues with what is left of a damaged data directory, under another remote id and with every store far above
    /// its last sequence. The old content is kept beside it. Blocks on disk.
    pub fn accept_loss(path: &Path, options: &DatabaseOptions) -> Result<Renewed, OpenError> {
        let files = Self::to_renew(path, options)?;
        renew::accept_loss(&files, options).map_err(|failure| failure.of(path))
    }

    /// Continues with an intact data directory, under another remote id and with every store far above its last
    /// sequence. It is for a directory that may be older than what clients know. The old content is kept beside it.
    /// Blocks on disk.
    pub fn heal(path: &Path, options: &DatabaseOptions) -> Result<Renewed, OpenError> {
        let files = Self::to_renew(path, options)?;
        renew::heal(&files, options).map_err(|failure| failure.of(path))
    }

    fn to_renew(path: &Path, options: &DatabaseOptions) -> Result<Files, OpenError> {
        let (files, format) = Files::open(path, options.ballast_bytes)?;
        renew::finish(&files)
            .and_then(|_| Ok(compact::finish(&files, None)?))
            .and_then(|()| takeover::take_over(&files, format, options, None))
            .map_err(|failure| failure.of(path))?;
        Ok(files)
    }

    /// Makes the data directory `path`, which is missing or empty, from the newest backup in `from` that contains what is wanted, under
    /// another remote id and with every store far above its last sequence. All files that are used are read first and compared. Blocks on disk.
    pub fn restore(
        from: &Backups,
        path: &Path,
        options: &DatabaseOptions,
        wanted: &Wanted,
    ) -> Result<Restored, OpenError> {
        let failed = |failure: OpenFailure| failure.of(path);
        let plan = backup::plan(from, wanted).map_err(|cause| OpenError::Backup { cause })?;
        let restoring = Restoring::begin(path).map_err(|error| failed(error.into()))?;
        let (files, _) = Files::open_any(path, options.ballast_bytes)?;
        let restored =
            backup::restore(from, &plan, (&files, As::Another), options).map_err(failed)?;
        restoring.end().map_err(|error| failed(error.into()))?;
        Ok(restored)
    }

    /// The files that have everything up to a moment within this call. Blocks, while everything comes to the archive.
    pub fn snapshot(&self) -> Result<Snapshot, StorageError> {
        backup::take(&self.owner.shared, &self.owner.origin)
    }

    /// The number of the last change. Does not block.
    pub fn position(&self) -> u64 {
        self.owner.shared.synced().0
    }

    /// The files that the archive has now. They have everything up to a recent moment. Blocks on disk for a moment.
    pub fn archived(&self) -> Result<Snapshot, StorageError> {
        backup::archived(&self.owner.shared, &self.owner.origin)
    }

    /// Writes the changes behind the change `behind`, and behind the archive, to a file in `folder`, which nobody else
    /// uses. `None` if there are none. Blocks on disk.
    pub fn tail(&self, behind: u64, folder: &Path) -> Result<Option<Tail>, StorageError> {
        backup::tail(&self.owner.shared, &self.owner.origin, behind, folder)
    }

    /// Reports that files were copied elsewhere, up to a change that was written at this time (milliseconds since
    /// 1970), or that copying failed. [`Storage::figures`](crate::storage::Storage::figures) shows it from then on.
    pub fn note_shipped(&self, up_to: Option<u64>) {
        self.owner.shared.health.note_shipped(up_to);
    }

    /// Reports what keeps content of entries elsewhere after they were erased, if anything does, as a sentence.
    /// [`Storage::kept_elsewhere`](crate::storage::Storage::kept_elsewhere) returns it from then on.
    pub fn note_kept_elsewhere(&self, what: Option<String>) {
        *self.owner.shared.kept_elsewhere.lock() = what.map(Into::into);
    }

    /// Reports that a backup was made at this time (milliseconds since 1970) with this many bytes, or that one failed.
    /// [`Storage::figures`](crate::storage::Storage::figures) shows it from then on.
    pub fn note_backup(&self, made: Option<(u64, u64)>) {
        self.owner.shared.health.note_backup(made);
    }

    /// Releases space that the files of the database hold and nobody needs. Everything else continues meanwhile. A copy takes the place of the files,
    /// so there must be disk space for it. Readers wait for a moment when it does. Blocks until it is done. If a compaction is already in
    /// progress, this waits for it. A database below [`COMPACT_BYTES_MIN`] is not changed.
    pub fn compact(&self) -> Result<Compacted, StorageError> {
        let before = bytes_in(&self.owner.shared.files.database());
        let before = before.map_err(StorageError::unavailable)?;
        if before < COMPACT_BYTES_MIN {
            return Ok(Compacted { before, after: before });
        }
        self.compact_anyway()
    }

    /// How far a compaction is that is in progress.
    pub fn compacting(&self) -> Option<Work> {
        let state = self.owner.shared.compacting.lock();
        state.running.then(|| state.work.clone())
    }

    /// Like [`Database::compact`], but for a database of any size.
    pub(crate) fn compact_anyway(&self) -> Result<Compacted, StorageError> {
        let shared = &self.owner.shared;
        let size = || bytes_in(&shared.files.database()).map_err(StorageError::unavailable);
        let before = size()?;
        {
            let mut state = shared.compacting.lock();
            if !state.running {
                (state.running, state.failure) = (true, None);
                shared.signal.ask_to_compact();
            }
        }
        while shared.compacting.lock().running || shared.access.ready().is_err() {
            shared.queue.ready()?;
            std::thread::sleep(COMPACT_POLL);
        }
        match shared.compacting.lock().failure.clone() {
            Some(failure) => Err(StorageError::Unavailable(failure)),
            None => Ok(Compacted { before, after: size()? }),
        }
    }

    /// Waits until trimmed entries take no more space, except for their ids. Blocks on disk.
    pub fn sweep(&self) -> Result<(), StorageError> {
        let shared = &self.owner.shared;
        while !shared.is_swept() {
            self.ready()?;
            shared.signal.ask_at_once();
            std::thread::sleep(SWEEP_POLL);
        }
        Ok(())
    }

    /// Reads everything in the data directory `path` and reports what is wrong. Blocks on disk.
    pub fn verify(path: &Path, options: &DatabaseOptions) -> Result<Verification, OpenError> {
        let (files, _) = Files::open(path, options.ballast_bytes)?;
        verify::verify(&files, options).map_err(|failure| failure.of(path))
    }

    /// Like [`Database::verify`], for a directory that a server uses. Does not read the database itself, which only one
    /// process can open. Writes nothing.
    pub fn verify_running(
        path: &Path,
        options: &DatabaseOptions,
    ) -> Result<Verification, OpenError> {
        let verified = verify::verify_running(&Files::unlocked(path), options);
        verified.map_err(|failure| failure.of(path))
    }

    /// Checks whether files of the data directory `path`, which may be in use, contain content of erased entries, or this text. Writes
    /// nothing. Blocks until all files were read.
    pub fn verify_erased(
        path: &Path,
        options: &DatabaseOptions,
        text: Option<&str>,
    ) -> Result<ErasedReport, OpenError> {
        let verified = scrub::verify(&Files::unlocked(path), options, text);
        verified.map_err(|failure| failure.of(path))
    }

    /// Removes erased content from all files, if anything was erased, and waits until that is done. Blocks.
    pub fn scrub(&self) -> Result<(), StorageError> {
        while !self.scrub_now()? {
            std::thread::sleep(COMPACT_POLL);
        }
        Ok(())
    }

    /// Requests that erased content is removed from all files now, and not only in some time. Returns true if none is left to remove. Fails
    /// if the last attempt failed. Does not wait for it.
    pub fn scrub_now(&self) -> Result<bool, StorageError> {
        let shared = &self.owner.shared;
        let standing = shared.scrub.standing();
        if standing.note.is_none_or(|note| note.clean_millis.is_some()) {
            return Ok(true);
        }
        if let Some(failure) = standing.failure {
            return Err(StorageError::Unavailable(failure.into()));
        }
        shared.queue.ready()?;
        shared.scrub.ask_at_once();
        Ok(false)
    }

    /// Handlers are not told of what this process erases from now on: the next server on the directory tells them.
    pub fn tell_handlers_later(&self) {
        erasures::tell_later(&self.owner.shared);
    }

    /// Changes whenever files of the archive are rewritten.
    pub fn rewritten(&self) -> u64 {
        self.owner.shared.scrub.rewritten_count()
    }

    /// This server's own id, made with the data directory.
    pub fn remote_id(&self) -> RemoteId {
        self.owner.origin.remote_id
    }

    /// A table to read. While sled is being reopened, this blocks for at most two seconds and then fails.
    pub(crate) fn tree(&self, keyspace: Keyspace) -> Result<Tree, StorageError> {
        self.owner.shared.table(keyspace)
    }

    /// What `read` finds in a table. If that would block now, because sled is being written to or opened again, it reads on
    /// another thread: the one that asks may serve many connections.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        keyspace: Keyspace,
        read: impl FnOnce(&Tree) -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, StorageError> {
        let blocks = ops::is_locked() || self.owner.shared.access.is_missing();
        // Without a runtime there is no other thread, and nobody else who waits for this one.
        let runtime = tokio::runtime::Handle::try_current().ok().filter(|_| blocks);
        let Some(runtime) = runtime else { return read(&self.tree(keyspace)?) };
        let database = self.clone();
        let read = move || read(&database.tree(keyspace)?);
        runtime.spawn_blocking(read).await.map_err(StorageError::unavailable)?
    }

    /// Queues `ops` and resolves when they are durable, or when that failed. They are stored whole or not at all.
    ///
    /// Commits become durable in the order of these calls. Everything that is queued at the same time shares one sync.
    /// Queueing happens within the call: dropping the future cancels nothing. A value above [`VALUE_BYTES_MAX`] is
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
            // The receiver still exists, so this cannot fail.
            let _ = answer.send(Err(AppendError::Definite(refusal.into())));
        } else {
            self.owner.shared.queue.enqueue(Job::Table { table: keyspace, ops, answer });
        }
        async move {
            receiver.await.unwrap_or_else(|_| {
                Err(AppendError::Indefinite("the commit thread ended before it answered".into()))
            })
        }
    }

    /// Whether commits are accepted and everything can be read. `Err` says why not.
    pub fn ready(&self) -> Result<(), StorageError> {
        self.owner.shared.queue.ready()?;
        self.owner.shared.access.ready()
    }

    /// Waits for what is queued and closes the files. Later commits are refused, later reads fail. Blocks on disk.
    pub fn close(&self) -> Result<(), StorageError> {
        self.owner.close()
    }

    pub(super) fn generation(&self) -> Generation {
        self.owner.origin.generation
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.owner.shared
    }
}

impl Owner {
    fn close(&self) -> Result<(), StorageError> {
        self.shared.queue.close("the database is closed");
        let Some(threads) = self.threads.lock().take() else { return Ok(()) };
        let panicked = |thread| StorageError::unavailable(format!("the {thread} thread panicked"));
        let writer = threads.commit.join().map_err(|_| panicked("commit"));
        if matches!(writer, Ok(Some(_)))
            && let Err(error) = erasures::settle(&self.shared)
        {
            log::warn!("noting which erasures are made: {error}");
        }
        self.shared.signal.ask_to_end();
        let checkpointed = threads.checkpoint.join();
        let logged = writer.and_then(|writer| match writer {
            Some(writer) => writer.close().map_err(StorageError::unavailable),
            None => Err(StorageError::unavailable("closed while writes failed")),
        });
        self.shared.access.closed();
        self.shared.files.unlock();
        checkpointed.unwrap_or_else(|_| Err(panicked("checkpoint"))).and(logged)
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
    fn an_outsized_value_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let database = open(&directory);
        let value = "x".repeat(VALUE_BYTES_MAX + 1);
        let answer = wait(database.commit(Keyspace::Registry, one("a", &value)));
        assert!(matches!(answer, Err(AppendError::Definite(_))));
        let tree = database.tree(Keyspace::Registry).expect("a tree");
        assert_eq!(tree.get("a").expect("a read"), None);
    }
}
