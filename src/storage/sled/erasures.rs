//! Makes erasures again that the ledger has and the database does not: it was restored from before them, or has lost them.
//!
//! Keeps: before anybody reads, what the ledger says is erased has no content here, and its ids are known: what is sent again is not
//! stored. Leaves out: what the ledger is (`ledger`), and what others have of the entries, who are told of them later.

use std::collections::BTreeSet;
use std::future::Future;
use std::io;
use std::ops::Bound;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use super::commit::now_ms;
use super::database::Database;
use super::files::Files;
use super::keyspace::Keyspace;
use super::log::SledLog;
use super::ops::Ops;
use super::options::OpenFailure;
use super::shared::Shared;
use super::storage::SledStorage;
use crate::model::record::{BARE_LEN, write_bare};
use crate::model::{EntryId, Origin, SegmentBuilder, Sequence, StoreId};
use crate::storage::commit_log::Generation;
use crate::storage::ledger::{self, Chain, Erased, Erasure, Ledger, Mark, Reader};
use crate::storage::slot::{self, BLOCK_BYTES, u64_at};
use crate::storage::{AppendError, MadeAgain, StorageError, StoreLog};

/// How many keys are taken from a store that was erased at once.
const KEYS_AT_ONCE: usize = 1_000;
/// Who is said to have written an entry of which the id alone is known.
const NOBODY: Origin = Origin::Server { run_handlers: false };

/// The ledger of a data directory, and how far the database has come with it.
pub(super) struct Erasures {
    ledger: Ledger,
    paths: Vec<PathBuf>,
    /// Of the directory.
    generation: Generation,
    applied: Applied,
    /// Up to here others may have to be told.
    tell_to: u64,
}

/// In the file `erased.applied`: crc32 (4), generation of the directory (16), number of the last record of the ledger that was looked at (8),
/// its chain (16), and the number of the last one that others have heard of (8); a block of 512 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Applied {
    mark: Mark,
    told: u64,
}

impl Erasures {
    /// Notes that these entries are about to be erased. On disk when this returns.
    pub(super) fn note(&mut self, store: &StoreId, what: &Erased) -> io::Result<()> {
        self.ledger.add(store, what, now_ms()).map(drop)
    }

    /// A copy of the ledger, and how many bytes of it are whole.
    pub(super) fn file(&self) -> Option<(PathBuf, u64)> {
        let path = self.paths.first().filter(|_| self.ledger.bytes() > 0)?;
        Some((path.clone(), self.ledger.bytes()))
    }
}

/// Makes again what the ledger of an open database has and the database does not.
pub(super) fn apply(database: &Database) -> Result<(), OpenFailure> {
    let shared = database.shared();
    let archive = shared.options.archive.enabled.then(|| {
        let elsewhere = shared.options.archive.dir.clone();
        elsewhere.unwrap_or_else(|| shared.files.archive())
    });
    let directory = shared.files.directory();
    let paths = ledger::paths(directory, archive.as_deref());
    let ledger = Ledger::open(directory, archive.as_deref())?;
    for lost in ledger.lost() {
        log::error!(
            "the erasure ledger is damaged: {lost}. What was erased then stays erased here, but not in what is restored from \
             before that"
        );
    }
    let generation = database.generation();
    let applied = read_applied(&shared.files, generation)?;
    let end = ledger.end();
    if end.number < applied.mark.number {
        let (there, known) = (end.number, applied.mark.number);
        log::error!(
            "the erasure ledger ends with record {there}, and had {known}: put back {}, or erase again",
            paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" or ")
        );
    }
    if end == applied.mark || end.number == 0 {
        let tell_to = applied.mark.number;
        let erasures = Erasures { ledger, paths, generation, applied, tell_to };
        *shared.erasures.lock() = Some(erasures);
        return Ok(());
    }
    let storage = SledStorage::new(database.clone());
    let mut again = Again { database, storage, log: None, made: None };
    let mut reader = behind(&paths, applied.mark)?;
    let from = reader.mark().number;
    // There is no ledger yet that it would be added to again.
    while let Some(erasure) = reader.next()? {
        again.make(&erasure)?;
    }
    let first = again.made.map_or(end.number, |first| first - 1);
    let told = if applied.told < from { applied.told } else { first };
    let applied = Applied { mark: end, told };
    write_applied(&shared.files, generation, applied)?;
    let erasures = Erasures { ledger, paths, generation, applied, tell_to: end.number };
    *shared.erasures.lock() = Some(erasures);
    Ok(())
}

/// Reads what comes behind `mark`, or all of it if it is another ledger.
fn behind(paths: &[PathBuf], mark: Mark) -> io::Result<Reader> {
    let mut reader = Reader::open(paths)?;
    while reader.mark().number < mark.number && reader.next()?.is_some() {}
    if reader.mark() == mark { Ok(reader) } else { Reader::open(paths) }
}

fn path_of(files: &Files) -> PathBuf {
    files.directory().join("erased.applied")
}

/// None of it if that was another directory, or cannot be read: then all is looked at again, which changes nothing that is right.
fn read_applied(files: &Files, generation: Generation) -> io::Result<Applied> {
    let mut block = [0; BLOCK_BYTES];
    match std::fs::read(path_of(files)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Applied::default()),
        Err(error) => return Err(error),
        Ok(read) if read.len() == BLOCK_BYTES => block.copy_from_slice(&read),
        Ok(_) => return Ok(Applied::default()),
    }
    if !slot::check(&mut block, 0) || block[4..20] != generation.0 {
        return Ok(Applied::default());
    }
    let mut chain = Chain::default();
    chain.0.copy_from_slice(&block[28..44]);
    let mark = Mark { number: u64_at(&block, 20), chain };
    Ok(Applied { mark, told: u64_at(&block, 44) })
}

fn write_applied(files: &Files, generation: Generation, applied: Applied) -> io::Result<()> {
    let mut block = [0; BLOCK_BYTES];
    block[4..20].copy_from_slice(&generation.0);
    block[20..28].copy_from_slice(&applied.mark.number.to_be_bytes());
    block[28..44].copy_from_slice(&applied.mark.chain.0);
    block[44..52].copy_from_slice(&applied.told.to_be_bytes());
    slot::close(&mut block, 0);
    files.write_whole(&path_of(files), &block)
}

/// The next erasure of which others may not have heard, since it was made again.
pub(super) fn made_again(shared: &Shared) -> Result<Option<MadeAgain>, StorageError> {
    let (paths, told, tell_to) = match &*shared.erasures.lock() {
        Some(it) if it.applied.told < it.tell_to => (it.paths.clone(), it.applied.told, it.tell_to),
        _ => return Ok(None),
    };
    let mut reader = Reader::open(&paths).map_err(StorageError::unavailable)?;
    while let Some(erasure) = reader.next().map_err(StorageError::unavailable)? {
        let Erasure { number, store, what, .. } = erasure;
        if number > tell_to {
            break;
        }
        if let (Erased::Entries(entries), true) = (what, number > told) {
            return Ok(Some(MadeAgain { number, store, entries }));
        }
    }
    told_again(shared, tell_to)?;
    Ok(None)
}

/// Others have heard of all erasures up to the one with this number.
pub(super) fn told_again(shared: &Shared, number: u64) -> Result<(), StorageError> {
    let mut erasures = shared.erasures.lock();
    let Some(erasures) = &mut *erasures else { return Ok(()) };
    erasures.applied.told = erasures.applied.told.max(number);
    let written = write_applied(&shared.files, erasures.generation, erasures.applied);
    written.map_err(StorageError::unavailable)
}

/// Makes erasures again.
struct Again<'a> {
    database: &'a Database,
    storage: SledStorage,
    /// The store that was opened last.
    log: Option<(StoreId, SledLog)>,
    /// The number of the first one that was not there.
    made: Option<u64>,
}

impl Again<'_> {
    fn make(&mut self, erasure: &Erasure) -> Result<(), OpenFailure> {
        let store = &erasure.store;
        let log = match self.log.take_if(|(open, _)| open == store) {
            Some((_, log)) => log,
            None => self.storage.load(store)?,
        };
        let (_, log) = self.log.insert((store.clone(), log));
        let made = match &erasure.what {
            Erased::Entries(ids) => entries(log, ids)?,
            Erased::Store { last, first } => whole(self.database, store, log, (*last, *first))?,
        };
        if made {
            self.made.get_or_insert(erasure.number);
        }
        Ok(())
    }
}

/// Erases those of a store that have content, and makes the others known. True if any had content.
fn entries(log: &SledLog, ids: &[EntryId]) -> Result<bool, OpenFailure> {
    let known = log.lookup(ids)?;
    let found: Vec<_> = ids.iter().zip(&known).filter_map(|(id, at)| Some(((*at)?, *id))).collect();
    let found = log.with_content(&found)?;
    if !found.is_empty() {
        wait(log.erase_found(&found)).map_err(|error| failed(&error))?;
    }
    let unknown = ids.iter().zip(&known).filter(|(_, at)| at.is_none()).map(|(id, _)| *id);
    let unknown: BTreeSet<EntryId> = unknown.collect();
    if !unknown.is_empty() {
        let mut segments = SegmentBuilder::new(log.head().next());
        let mut record = Vec::with_capacity(BARE_LEN);
        for id in unknown {
            record.clear();
            write_bare(&mut record, id);
            segments.push(&record, &NOBODY);
        }
        let segments = segments.finish().into_iter().map(|segment| segment.marked_bare(true));
        wait(log.append(segments.collect())).map_err(|error| failed(&error))?;
    }
    Ok(found.iter().any(|(at, _)| *at > log.trimmed()))
}

/// Takes from a store, if it is the one that was erased, what it had up to `last`, and its keys.
fn whole(
    database: &Database,
    store: &StoreId,
    log: &SledLog,
    (last, (at, id)): (Sequence, (Sequence, EntryId)),
) -> Result<bool, OpenFailure> {
    let last = last.min(log.head());
    if log.lookup(&[id])? != [Some(at)] || log.trimmed() >= last {
        return Ok(false);
    }
    for table in [Keyspace::Registry, Keyspace::UsedKeys] {
        loop {
            let mut ops = Ops::default();
            let tree = database.tree(table)?;
            let of_store =
                tree.range::<&[u8]>((Bound::Unbounded, Bound::Unbounded)).filter(|pair| {
                    pair.as_ref().map_or(true, |(_, value)| **value == *store.as_str().as_bytes())
                });
            for pair in of_store.take(KEYS_AT_ONCE) {
                ops.remove(pair?.0);
            }
            drop(tree);
            if ops.is_empty() {
                break;
            }
            wait(database.commit(table, ops)).map_err(|error| failed(&error))?;
        }
    }
    wait(log.trim(last)).map_err(|error| failed(&error))?;
    Ok(true)
}

fn failed(error: &AppendError) -> OpenFailure {
    OpenFailure::Io(io::Error::other(error.to_string()))
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for what another thread does, whatever runtime this thread may be of.
fn wait<T>(future: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(done) => return done,
            Poll::Pending => std::thread::park(),
        }
    }
}
