//! Repeats erasures that are in the ledger and not in the database, because it was restored from an earlier backup or has lost them.
//!
//! Keeps: before anybody reads, everything that is erased according to the ledger has no content here. Its ids are known, so an entry
//! that is sent again is not stored. Leaves out: the ledger itself (`ledger`), and telling others that may have the entries, which comes later.

use std::collections::{BTreeSet, VecDeque};
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
use super::log::{SledLog, size};
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

/// How many keys of an erased store are removed at once.
const KEYS_AT_ONCE: usize = 1_000;
/// The origin of an entry of which only the id is known.
const NOBODY: Origin = Origin::Server { run_handlers: false };

/// The ledger of a data directory, and how much of it the database has applied.
pub(super) struct Erasures {
    ledger: Ledger,
    paths: Vec<PathBuf>,
    /// The generation of the directory.
    generation: Generation,
    applied: Applied,
    /// Others may have to be told of erasures up to this number.
    tell_to: u64,
    /// Whether they are told only by a later process what this one erases.
    tells_later: bool,
    /// Reads what they are told.
    telling: Option<Telling>,
    /// Whole stores that this process has begun to erase: the end of the ledger before that, and the last sequence.
    wholes: VecDeque<(Mark, StoreId, Sequence)>,
}

/// Reads the ledger once, for all erasures that others are told of.
struct Telling {
    reader: Reader,
    next: Option<MadeAgain>,
}

/// The content of the file `erased.applied`, a block of 512 bytes: crc32 (4), generation of the directory (16), number of the last
/// record of the ledger that was checked (8), its chain (16), and the number of the last record that others were told of (8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Applied {
    mark: Mark,
    told: u64,
}

impl Erasures {
    fn new(
        ledger: Ledger,
        paths: Vec<PathBuf>,
        (generation, applied): (Generation, Applied),
        tell_to: u64,
    ) -> Self {
        let (tells_later, telling, wholes) = (false, None, VecDeque::new());
        Self { ledger, paths, generation, applied, tell_to, tells_later, telling, wholes }
    }

    /// Notes that these entries are about to be erased. The note is on disk when this returns.
    pub(super) fn note(&mut self, store: &StoreId, what: &Erased) -> io::Result<()> {
        let before = self.ledger.end();
        self.ledger.add(store, what, now_ms())?;
        if let Erased::Store { last, .. } = what {
            self.wholes.push_back((before, store.clone(), *last));
        }
        Ok(())
    }

    /// A copy of the ledger, and the number of its intact bytes.
    pub(super) fn file(&self) -> Option<(PathBuf, u64)> {
        let path = self.paths.first().filter(|_| self.ledger.bytes() > 0)?;
        Some((path.clone(), self.ledger.bytes()))
    }

    /// Up to where the database has everything, if each erasure that this process began is in the commit log.
    fn settled(&mut self, shared: &Shared) -> Result<Mark, StorageError> {
        while let Some((before, store, last)) = self.wholes.front() {
            if size(shared, store)?.trimmed < *last {
                return Ok(*before);
            }
            self.wholes.pop_front();
        }
        Ok(self.ledger.end())
    }

    /// The first erasure that others were not told of and that this process repeated.
    fn next_to_tell(&mut self) -> io::Result<Option<MadeAgain>> {
        let (told, tell_to) = (self.applied.told, self.tell_to);
        let mut telling = match self.telling.take() {
            Some(telling) => telling,
            None => Telling { reader: Reader::open(&self.paths)?, next: None },
        };
        while telling.next.as_ref().is_none_or(|next| next.number <= told) {
            match telling.reader.next()? {
                Some(erasure) if erasure.number <= tell_to => {
                    telling.next = Some(erasure.into());
                }
                _ => return Ok(None),
            }
        }
        let next = telling.next.clone();
        self.telling = Some(telling);
        Ok(next)
    }
}

/// Repeats the erasures that are in the ledger of an open database but not in the database.
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
        *shared.erasures.lock() =
            Some(Erasures::new(ledger, paths, (generation, applied), tell_to));
        return Ok(());
    }
    let storage = SledStorage::new(database.clone());
    let mut again = Again { database, storage, log: None, made: None };
    let mut reader = behind(&paths, applied.mark)?;
    let from = reader.mark().number;
    // There is no ledger yet, so this does not add to it again.
    while let Some(erasure) = reader.next()? {
        again.make(&erasure)?;
    }
    for unread in reader.lost().iter().filter(|lost| !ledger.lost().contains(lost)) {
        log::error!("the erasure ledger: {unread}, so what it erases is not erased here");
    }
    let first = again.made.map_or(end.number, |first| first - 1);
    let told = if applied.told < from { applied.told } else { first };
    let applied = Applied { mark: end, told };
    write_applied(&shared.files, generation, applied)?;
    let erasures = Erasures::new(ledger, paths, (generation, applied), end.number);
    *shared.erasures.lock() = Some(erasures);
    Ok(())
}

/// Reads what follows `mark`, or everything if it is another ledger.
fn behind(paths: &[PathBuf], mark: Mark) -> io::Result<Reader> {
    let mut reader = Reader::open(paths)?;
    while reader.mark().number < mark.number && reader.next()?.is_some() {}
    if reader.mark() == mark { Ok(reader) } else { Reader::open(paths) }
}

fn path_of(files: &Files) -> PathBuf {
    files.directory().join("erased.applied")
}

/// Zero if the file is of another directory or cannot be read. Everything is then checked again, which changes nothing that is correct.
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

/// The number of the last record that the database is known to have.
pub(super) fn applied_to(files: &Files, generation: Generation) -> io::Result<u64> {
    Ok(read_applied(files, generation)?.mark.number)
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

/// The next repeated erasure that others may not have been told of.
pub(super) fn made_again(shared: &Shared) -> Result<Option<MadeAgain>, StorageError> {
    let tell_to = {
        let mut erasures = shared.erasures.lock();
        let waiting = erasures.as_mut().filter(|it| it.applied.told < it.tell_to);
        let Some(erasures) = waiting else { return Ok(None) };
        let next = erasures.next_to_tell().map_err(StorageError::unavailable)?;
        if next.is_some() {
            return Ok(next);
        }
        erasures.tell_to
    };
    told_again(shared, tell_to)?;
    Ok(None)
}

/// Nobody is told of what this process erases. The next one that serves the directory tells them.
pub(super) fn tell_later(shared: &Shared) {
    if let Some(erasures) = &mut *shared.erasures.lock() {
        erasures.tells_later = true;
    }
}

/// Records how far the database has the erasures of this process, so that the next start repeats none of them. Does nothing while one is
/// under way, or after one has failed.
pub(super) fn settle(shared: &Shared) -> Result<(), StorageError> {
    let mut erasures = shared.erasures.lock();
    let Some(erasures) = &mut *erasures else { return Ok(()) };
    // An erasure counts as under way before it is in the ledger, which nobody adds to now.
    if !shared.scrub.is_settled() {
        return Ok(());
    }
    let mark = erasures.settled(shared)?;
    let Applied { mark: before, told } = erasures.applied;
    if mark.number <= before.number {
        return Ok(());
    }
    // Others were told of the erasures of this process when they were made.
    let is_told = told >= erasures.tell_to && !erasures.tells_later;
    erasures.applied = Applied { mark, told: if is_told { mark.number } else { told } };
    let written = write_applied(&shared.files, erasures.generation, erasures.applied);
    written.map_err(StorageError::unavailable)
}

/// Records that others were told of all erasures up to the one with this number.
pub(super) fn told_again(shared: &Shared, number: u64) -> Result<(), StorageError> {
    let mut erasures = shared.erasures.lock();
    let Some(erasures) = &mut *erasures else { return Ok(()) };
    let Applied { mark, told } = erasures.applied;
    // Others were told of the erasures of this process when they were made.
    let last = if number >= erasures.tell_to { number.max(mark.number) } else { number };
    erasures.applied.told = told.max(last);
    let written = write_applied(&shared.files, erasures.generation, erasures.applied);
    written.map_err(StorageError::unavailable)
}

/// Repeats erasures.
struct Again<'a> {
    database: &'a Database,
    storage: SledStorage,
    /// The last store that was opened.
    log: Option<(StoreId, SledLog)>,
    /// The number of the first erasure that was missing.
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

/// Erases those entries of a store that have content, and records the ids of the others. Returns true if any had content.
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

/// Removes the entries of a store up to `last`, and its keys, if it is the store that was erased.
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
    // The archive may have what was trimmed before the store was erased.
    let shared = database.shared();
    shared.scrub.begin(&shared.files)?;
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

/// Waits for the result of another thread, in whatever runtime this thread may be.
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
