//! Everything in an unused data directory, in order, for a move to another storage.
//!
//! Keeps: it shows everything that was acknowledged, since the directory was opened and closed before. Of a trimmed or erased entry,
//! it shows only the id. Leaves out: where the data goes (`migrate`).

use std::collections::BTreeSet;
use std::ops::Bound;
use std::path::Path;

use super::backup::{self, As, Backups, Restoring, Wanted};
use super::database::Database;
use super::files::Files;
use super::keyspace::Keyspace;
use super::options::{DatabaseOptions, OpenError, OpenFailure};
use super::segments::Reader;
use super::tree::{self, Facts, Trees};
use super::value::segment::Bare;
use super::value::store::StoreRecord;
use crate::model::{RemoteId, Segment, Sequence, StoreId};
use crate::storage::StorageError;
use crate::storage::migrate::{Piece, StoreState};

/// A directory that is open for reading only. Nobody else opens it meanwhile.
pub(crate) struct Dump {
    files: Files,
    trees: Trees,
    facts: Facts,
    /// Whether it said that it was moved.
    was_moved: bool,
}

impl Dump {
    /// Opens the data directory `path`, which may have been moved before. Blocks on disk.
    pub(crate) fn open(path: &Path, options: &DatabaseOptions) -> Result<Self, OpenError> {
        let unavailable = |error| OpenError::unavailable(path, &error);
        let was_moved = Files::moved_to(path).map_err(unavailable)?.is_some();
        if !was_moved {
            // This writes the content of the commit log to sled.
            let closed = Database::open(path, options.clone())?.close();
            closed.map_err(|error| OpenError::unavailable(path, &error))?;
        }
        Ok(Self { was_moved, ..Self::open_any(path, options)? })
    }

    /// Opens the content of a backup in the directory `scratch`, which is created for that and cannot be served. Blocks on disk.
    pub(crate) fn of_backup(
        from: &Backups,
        scratch: &Path,
        options: &DatabaseOptions,
    ) -> Result<Self, OpenError> {
        let failed = |failure: OpenFailure| failure.of(scratch);
        let plan =
            backup::plan(from, &Wanted::default()).map_err(|cause| OpenError::Backup { cause })?;
        // The mark stays.
        let _mark = Restoring::begin(scratch).map_err(|error| failed(error.into()))?;
        let (files, _) = Files::open_any(scratch, options.ballast_bytes)?;
        backup::restore(from, &plan, (&files, As::Copy), options).map_err(failed)?;
        drop(files);
        Self::open_any(scratch, options)
    }

    /// Opens a directory whatever its state. Everything must be in sled.
    pub(super) fn open_any(path: &Path, options: &DatabaseOptions) -> Result<Self, OpenError> {
        let (files, _) = Files::open_any(path, options.ballast_bytes)?;
        let opened = tree::open(&files, options, 0).and_then(|trees| {
            let facts = Facts::read_or_make(&trees, &files)?;
            if facts.changing {
                return Err(OpenFailure::Refused("it was not closed in order".into()));
            }
            Ok(Self { files, trees, facts, was_moved: false })
        });
        opened.map_err(|failure| failure.of(path))
    }

    /// Whether the directory said that it was moved.
    pub(crate) const fn was_moved(&self) -> bool {
        self.was_moved
    }

    /// The id of the directory's server.
    pub(crate) const fn remote_id(&self) -> RemoteId {
        self.facts.remote_id
    }

    /// New stores begin after this sequence.
    pub(crate) const fn floor(&self) -> Sequence {
        self.facts.floor
    }

    /// Records in the directory where its content was moved to. No server opens it any more.
    pub(crate) fn note_moved(&self, to: &str) -> std::io::Result<()> {
        self.files.note_moved(to)
    }

    /// At most `count` stores whose names come after `after`, in the order of their names.
    pub(crate) fn stores(
        &self,
        after: Option<&StoreId>,
        count: usize,
    ) -> Result<Vec<StoreState>, StorageError> {
        let states = tree::store_records(&self.trees, after).take(count).map(|store| {
            let (name, record) = store?;
            let head = self.head(&record)?;
            let trimmed = record.trimmed.last.min(head);
            Ok(StoreState { name, head, trimmed })
        });
        states.collect()
    }

    fn head(&self, record: &StoreRecord) -> Result<Sequence, StorageError> {
        if let Some(head) = record.head {
            return Ok(head);
        }
        let last = self.reader(record).find(Sequence::MAX)?;
        Ok(last.map_or(Sequence::ZERO, |last| last.last()))
    }

    /// The hash over the entries of `store`, up to its head.
    pub(crate) fn hash(&self, store: &StoreId) -> Result<[u8; 16], StorageError> {
        Ok(self.record(store)?.hash.0)
    }

    fn reader(&self, record: &StoreRecord) -> Reader<'_> {
        Reader { tree: self.trees.log(), ordinal: record.ordinal }
    }

    fn record(&self, store: &StoreId) -> Result<StoreRecord, StorageError> {
        let record = tree::store_record(self.trees.log(), store)?;
        record.ok_or_else(|| StorageError::corrupt(format!("there is no store {store}")))
    }

    /// The entries of `store` from `from` up to its head, in pieces, until their records have `bytes_max` bytes. At least one piece.
    pub(crate) fn pieces(
        &self,
        StoreState { name, head, trimmed }: &StoreState,
        from: Sequence,
        bytes_max: usize,
    ) -> Result<Vec<Piece>, StorageError> {
        let reader = self.reader(&self.record(name)?);
        let (mut pieces, mut next, mut bytes) = (Vec::new(), from.max(Sequence::FIRST), 0);
        while next <= *head && (bytes < bytes_max || pieces.is_empty()) {
            let whole = reader.segment(next)?;
            let piece = whole.skipping(next.since(whole.first()) as usize);
            let malformed = || StorageError::corrupt(format!("store {name}: segment at {next}"));
            let (to, time_ms) = reader.times(next).next().transpose()?.unwrap_or((*head, 0));
            let count = to.min(*head).next().since(next) as usize;
            let segment = piece.and_then(|piece| piece.truncated(count)).ok_or_else(malformed)?;
            let segment = without_trimmed(segment, *trimmed);
            bytes += segment.records().len() + segment.len();
            next = segment.last().next();
            pieces.push(Piece { segment, time_ms });
        }
        Ok(pieces)
    }

    /// The erased ones among the entries after `from` and up to `to`, at most `count_max` of them.
    pub(crate) fn erased(
        &self,
        store: &StoreId,
        (from, to): (Sequence, Sequence),
        count_max: usize,
    ) -> Result<Vec<Sequence>, StorageError> {
        let reader = self.reader(&self.record(store)?);
        let (mut erased, mut next) = (Vec::new(), from.next());
        while next <= to && erased.len() < count_max {
            let missing = || StorageError::corrupt(format!("store {store}: no entry {next}"));
            let found = reader.find(next)?.filter(|found| found.last() >= next);
            let found = found.ok_or_else(missing)?;
            if found.record.bare == Bare::Some {
                let segment = reader.segment(next)?;
                let bare = segment.iter().filter(|(_, entry)| entry.event.is_empty());
                let within = bare.map(|(at, _)| at).filter(|at| *at >= next && *at <= to);
                erased.extend(within.take(count_max - erased.len()));
            }
            next = found.last().next();
        }
        Ok(erased)
    }

    /// The pairs of a table, in the order of their keys.
    pub(crate) fn table(
        &self,
        table: Keyspace,
    ) -> impl Iterator<Item = Result<(Vec<u8>, Vec<u8>), StorageError>> + use<> {
        let all = (Bound::<Vec<u8>>::Unbounded, Bound::Unbounded);
        self.trees.get(table).range(all).map(|pair| {
            let (key, value) = pair?;
            Ok((key.to_vec(), value.to_vec()))
        })
    }
}

/// Replaces trimmed entries with their ids.
fn without_trimmed(segment: Segment, trimmed: Sequence) -> Segment {
    if segment.is_gap() || segment.first() > trimmed {
        return segment;
    }
    let count = trimmed.min(segment.last()).next().since(segment.first());
    let gone: BTreeSet<Sequence> = (0..count).map(|n| segment.first().plus(n)).collect();
    segment.erasing(&gone).unwrap_or(segment)
}
