//! Makes a data directory from the content of another storage.
//!
//! Keeps: nobody can serve the directory before [`Filling::end`]; the next attempt removes what an unfinished one left. Leaves out: where
//! the content comes from (`migrate`).

use std::path::{Path, PathBuf};

use super::backup::{MARK, Restoring};
use super::dump::Dump;
use super::files::Files;
use super::key::Ordinal;
use super::keyspace::Keyspace;
use super::options::{DatabaseOptions, OpenError, OpenFailure};
use super::rebuild;
use super::record::RecordWriter;
use super::renew::{self, Identity, Show};
use crate::model::{RemoteId, Sequence, StoreId};
use crate::storage::StorageError;
use crate::storage::commit_log::Position;
use crate::storage::migrate::Piece;
use crate::storage::witness::FrameSalt;

/// How much is shown at once, in bytes.
const FRAME_BYTES: usize = 1 << 20;

/// A directory that is being made.
pub(crate) struct Filling {
    path: PathBuf,
    restoring: Restoring,
}

impl Filling {
    /// Starts to make the data directory `path`, which is missing, empty, or left by an earlier attempt.
    pub(crate) fn begin(path: &Path) -> Result<Self, OpenError> {
        let restoring = Restoring::begin(path);
        let restoring = restoring.map_err(|error| OpenError::unavailable(path, &error))?;
        Ok(Self { path: path.to_owned(), restoring })
    }

    /// Whether an unfinished attempt left the data directory `path`.
    pub(crate) fn is_begun(path: &Path) -> bool {
        path.join(MARK).is_file()
    }

    /// Fills the directory of the server `remote_id` with what `fill` passes. Blocks on disk.
    pub(crate) fn fill(
        &self,
        options: &DatabaseOptions,
        remote_id: RemoteId,
        fill: impl FnOnce(&mut Filler<'_, '_>) -> Result<(), StorageError>,
    ) -> Result<(), OpenError> {
        let (files, _) = Files::open_any(&self.path, options.ballast_bytes)?;
        let identity = Identity { remote_id, floor: Sequence::ZERO, jumps: 0 };
        let filled = renew::fill(&files, options, identity, |show| {
            let mut filler = Filler {
                show,
                writer: RecordWriter::default(),
                frame: Vec::with_capacity(FRAME_BYTES),
                next: 0,
                failed: None,
            };
            let filled = fill(&mut filler);
            // This is the cause of the other failure.
            if let Some(failure) = filler.failed.take() {
                return Err(failure);
            }
            filled?;
            filler.flush()?;
            Ok(Position(0))
        });
        filled.map(drop).map_err(|failure| failure.of(&self.path))
    }

    /// Reads the content after it was filled.
    pub(crate) fn read(&self, options: &DatabaseOptions) -> Result<Dump, OpenError> {
        Dump::open_any(&self.path, options)
    }

    /// Marks the directory as complete. It may be served.
    pub(crate) fn end(self) -> Result<(), OpenError> {
        let Self { path, restoring } = self;
        restoring.end().map_err(|error| OpenError::unavailable(&path, &error))
    }
}

/// Receives the content of the directory: a store, its pieces in order, and how far it is trimmed; then the next store; then the tables.
pub(crate) struct Filler<'a, 'b> {
    show: &'a mut Show<'b>,
    writer: RecordWriter,
    frame: Vec<u8>,
    /// The ordinal of the next store.
    next: Ordinal,
    failed: Option<OpenFailure>,
}

impl Filler<'_, '_> {
    /// Begins `store`. What follows belongs to it.
    pub(crate) fn store(&mut self, store: &StoreId) -> Result<(), StorageError> {
        let ordinal = self.next;
        let full = || StorageError::unavailable("there are more stores than a directory can have");
        self.next = ordinal.checked_add(1).ok_or_else(full)?;
        self.write(|writer, frame| writer.store(ordinal, store, frame))
    }

    pub(crate) fn piece(&mut self, Piece { segment, time_ms }: &Piece) -> Result<(), StorageError> {
        let ordinal = self.next.saturating_sub(1);
        // Both are in one frame: the time applies to what follows in that frame.
        self.write(|writer, frame| {
            writer.time(*time_ms, &mut *frame);
            writer.entries(ordinal, segment, frame);
        })
    }

    /// Records that the store is trimmed up to `last`.
    pub(crate) fn trim(&mut self, last: Sequence) -> Result<(), StorageError> {
        let ordinal = self.next.saturating_sub(1);
        self.write(|writer, frame| writer.trim(ordinal, last, frame))
    }

    pub(crate) fn pair(
        &mut self,
        table: Keyspace,
        key: &[u8],
        value: &[u8],
    ) -> Result<(), StorageError> {
        self.write(|writer, frame| writer.change(table, key, Some(value), frame))
    }

    fn write(
        &mut self,
        write: impl FnOnce(&mut RecordWriter, &mut dyn FnMut(&[u8])),
    ) -> Result<(), StorageError> {
        if self.frame.is_empty() {
            let salt = FrameSalt::random();
            self.writer.salt(&salt, |bytes| self.frame.extend_from_slice(bytes));
        }
        let frame = &mut self.frame;
        write(&mut self.writer, &mut |bytes| frame.extend_from_slice(bytes));
        if self.frame.len() < FRAME_BYTES {
            return Ok(());
        }
        self.flush().map_err(|failure| {
            let told = StorageError::unavailable("the directory cannot be filled");
            self.failed = Some(failure);
            told
        })
    }

    fn flush(&mut self) -> Result<(), OpenFailure> {
        let shown = (self.show)(rebuild::of_base(&self.frame));
        self.frame.clear();
        shown
    }
}
