//! Reads an archive: the state at its base, and every frame since.

use std::fs::File;
use std::path::PathBuf;

use super::chunk::ChunkReader;
use super::head::HEAD_BYTES;
use super::names::Kind;
use super::{
    Archive, ArchiveDamage, ArchiveDamageKind, ArchiveError, ArchivedFile, Listing, Unreadable,
};
use crate::storage::Work;
use crate::storage::commit_log::{FoundFrame, Position};

/// What a read finds, in order.
#[derive(Debug)]
pub(crate) enum Archived<'a> {
    /// A part of the base.
    Base(&'a [u8]),
    /// A frame.
    Frame(FoundFrame<'a>),
    /// Missing frames, or missing parts of the base, in which case the base is reported as lost. With `Ok` the caller
    /// accepts that; what comes after them follows.
    Damage(&'a ArchiveDamage),
}

impl Archive {
    /// Passes to `visit` the parts of the newest base with a valid head, and every frame after it, in order. Returns
    /// the last frame.
    pub(crate) fn read<E: From<ArchiveError>>(
        &self,
        mut visit: impl FnMut(Archived<'_>) -> Result<(), E>,
    ) -> Result<Position, E> {
        let listing = self.files().map_err(ArchiveError::from)?;
        let base = listing.files.iter().rfind(|file| file.kind == Kind::Base);
        self.work.expect(base.map_or(0, |base| base.bytes));
        self.expect_files(&listing, base.map_or(Position(0), |base| base.last));
        let from = match base {
            Some(base) => {
                base.visit(Position(0), &self.work, &mut visit)?;
                base.last
            }
            None => self.without_base(&listing, &mut visit)?,
        };
        self.read_files(&listing, from, visit)
    }

    /// Passes to `visit` every frame after `from`, in order. Returns the last one; `from` if there is none.
    pub(crate) fn read_behind<E: From<ArchiveError>>(
        &self,
        from: Position,
        visit: impl FnMut(Archived<'_>) -> Result<(), E>,
    ) -> Result<Position, E> {
        let listing = self.files().map_err(ArchiveError::from)?;
        self.expect_files(&listing, from);
        self.read_files(&listing, from, visit)
    }

    /// The files with frames after `from` are going to be read.
    fn expect_files(&self, listing: &Listing, from: Position) {
        let wanted = listing.files.iter().filter(|file| file.kind == Kind::Log && file.last > from);
        self.work.expect(wanted.map(|file| file.bytes).sum());
    }

    /// Reports that there is no base; what it stood for ends before the first existing frame.
    fn without_base<E>(
        &self,
        listing: &Listing,
        visit: &mut impl FnMut(Archived<'_>) -> Result<(), E>,
    ) -> Result<Position, E> {
        let to = listing.files.first().map(|file| file.first.before());
        let unreadable = listing.unreadable.iter().rfind(|file| file.kind == Kind::Base);
        let (path, kind) = self.fault(unreadable);
        visit(Archived::Damage(&ArchiveDamage { path, kind, from: Position(0), to }))?;
        Ok(to.unwrap_or_default())
    }

    fn read_files<E: From<ArchiveError>>(
        &self,
        listing: &Listing,
        from: Position,
        mut visit: impl FnMut(Archived<'_>) -> Result<(), E>,
    ) -> Result<Position, E> {
        let (mut last, mut number) = (from, 0);
        let unreadable_in = |numbers: std::ops::RangeInclusive<u64>| {
            let is_in =
                |file: &&Unreadable| file.kind == Kind::Log && numbers.contains(&file.number);
            listing.unreadable.iter().find(is_in)
        };
        for file in listing.files.iter().filter(|file| file.kind == Kind::Log) {
            if file.last > last {
                if file.first > last.next() {
                    let (path, kind) = self.fault(unreadable_in(number..=file.number));
                    let (from, to) = (last.next(), Some(file.first.before()));
                    visit(Archived::Damage(&ArchiveDamage { path, kind, from, to }))?;
                }
                file.visit(last, &self.work, &mut visit)?;
                last = file.last;
            }
            number = file.number;
        }
        // Nothing says how many frames it had.
        if let Some(file) = unreadable_in(number..=u64::MAX) {
            let (path, kind) = self.fault(Some(file));
            visit(Archived::Damage(&ArchiveDamage { path, kind, from: last.next(), to: None }))?;
        }
        Ok(last)
    }

    /// What is wrong where a file should be.
    fn fault(&self, unreadable: Option<&Unreadable>) -> (PathBuf, ArchiveDamageKind) {
        unreadable.map_or_else(
            || (self.folder.clone(), ArchiveDamageKind::Missing),
            |file| (file.path.clone(), file.fault),
        )
    }
}

impl ArchivedFile {
    /// Passes to `visit` what the file has after `from`.
    fn visit<E: From<ArchiveError>>(
        &self,
        from: Position,
        work: &Work,
        visit: &mut impl FnMut(Archived<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.read(from, work, |found| match (found, self.kind) {
            (Ok(part), Kind::Base) => visit(Archived::Base(part.body)),
            (Ok(frame), Kind::Log) => visit(Archived::Frame(frame)),
            (Err(damage), Kind::Log) => visit(Archived::Damage(&damage)),
            (Err(damage), Kind::Base) => {
                let (from, to) = (Position(0), Some(self.last));
                visit(Archived::Damage(&ArchiveDamage { from, to, ..damage }))
            }
        })
    }

    fn read<E: From<ArchiveError>>(
        &self,
        from: Position,
        work: &Work,
        mut visit: impl FnMut(Result<FoundFrame<'_>, ArchiveDamage>) -> Result<(), E>,
    ) -> Result<(), E> {
        let (first, last) = match self.kind {
            Kind::Base => (Position(1), Position(self.frames)),
            Kind::Log => (self.first.max(from.next()), self.last),
        };
        let file = File::open(&self.path).map_err(ArchiveError::from)?;
        let mut chunks = ChunkReader::new(&file, HEAD_BYTES).map_err(ArchiveError::from)?;
        let mut expected = first;
        let missing = |expected: Position, to: Position, is_fault: bool| {
            let kind = if is_fault { ArchiveDamageKind::Chunk } else { ArchiveDamageKind::Gap };
            ArchiveDamage { path: self.path.clone(), kind, from: expected, to: Some(to) }
        };
        let mut counted = 0;
        while let Some(chunk) = chunks.next().map_err(ArchiveError::from)? {
            work.add(chunk.end - counted);
            counted = chunk.end;
            for frame in chunk.frames.skip_while(|frame| frame.position < first) {
                if frame.position > expected {
                    let to = frame.position.before();
                    visit(Err(missing(expected, to, chunk.behind_fault)))?;
                }
                expected = frame.position.next();
                visit(Ok(frame))?;
            }
        }
        work.add(self.bytes.saturating_sub(counted));
        if expected <= last {
            visit(Err(missing(expected, last, chunks.ends_with_fault())))?;
        }
        Ok(())
    }
}
