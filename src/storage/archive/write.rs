//! Writes files of the archive.
//!
//! Keeps: a file gets its name once it is on disk and was read back from there; so after a crash, it is complete or is
//! written again. Leaves out: when the log file may be reused (after this has returned).

use std::fs::File;
use std::path::Path;

use super::chunk::{ChunkReader, Chunks, Plain, Press, Written};
use super::draft::Draft;
use super::head::{self, HEAD_BYTES};
use super::names::{Kind, Name};
use super::{Archive, ArchiveError, ArchivedFile, TAILS_FROM, sync_folder};
use crate::storage::commit_log::{FinishedFile, Found, FoundFrame, Position};

impl Archive {
    /// Archives the frames of `log`, unless that was already done; `draft`, if there is one, has the first of them, and the others
    /// are read from `log`. Writes nothing for a file without frames. If `log` has lost frames, the rest is archived, and
    /// reading it reports what is missing. The file is on disk when this returns.
    pub(crate) fn write_log(
        &self,
        log: &FinishedFile,
        draft: Option<Draft>,
    ) -> Result<Option<ArchivedFile>, ArchiveError> {
        if log.last < log.first {
            return Ok(None);
        }
        if let Some(file) = self.find(Kind::Log, log.number)?
            && (file.first, file.last) == (log.first, log.last)
            && let Ok(read) = read_back(&file.path)
            && read.frames == file.frames
        {
            return Ok(Some(file));
        }
        let name = Name { number: log.number, kind: Kind::Log, version: 1 };
        let draft = draft.filter(|draft| draft.begins(log));
        let from = draft.as_ref().and_then(Draft::next);
        let frames = |write: &mut dyn FnMut(FoundFrame<'_>) -> Result<(), ArchiveError>| {
            log.read(self.generation, from, |found| match found {
                Found::Frame(frame) => write(frame),
                Found::Damage(_) => Ok(()),
            })
        };
        let draft = draft.map_or_else(|| Draft::new(&name.path(&self.folder)), Ok)?;
        self.complete(draft, &name, (log.first, log.last), frames).map(Some)
    }

    /// Writes the frames from `first` to `last`, which `fill` supplies, to a file that sorts behind all others in its
    /// folder, by its number and by its first frame. These are the frames that the commit log has and no file of an
    /// archive has. The file is on disk when this returns.
    pub(crate) fn write_tail(
        &self,
        (first, last): (Position, Position),
        fill: impl FnOnce(
            &mut dyn FnMut(FoundFrame<'_>) -> Result<(), ArchiveError>,
        ) -> Result<(), ArchiveError>,
    ) -> Result<ArchivedFile, ArchiveError> {
        let name = Name { number: TAILS_FROM + first.0, kind: Kind::Log, version: 1 };
        self.write(&name, (first, last), fill)
    }

    /// Starts the archive, or starts it again. `parts` together are everything up to frame `last`, whose time was
    /// `time_ms`. `number` is that of the log file with the frames behind it. The file is on disk when this returns.
    pub(crate) fn write_base<E: Into<ArchiveError>>(
        &self,
        number: u64,
        last: Position,
        time_ms: u64,
        parts: impl IntoIterator<Item = Result<Vec<u8>, E>>,
    ) -> Result<ArchivedFile, ArchiveError> {
        let name = Name { number, kind: Kind::Base, version: 1 };
        let frames = |write: &mut dyn FnMut(FoundFrame<'_>) -> Result<(), ArchiveError>| {
            for (part, body) in (1..).map(Position).zip(parts) {
                let body = body.map_err(Into::into)?;
                write(FoundFrame { position: part, time_ms, body: &body })?;
            }
            Ok(())
        };
        self.write(&name, (last, last), frames)
    }

    /// Writes the file with this name, with the frames that `fill` gives.
    pub(super) fn write(
        &self,
        name: &Name,
        frames: (Position, Position),
        fill: impl FnOnce(
            &mut dyn FnMut(FoundFrame<'_>) -> Result<(), ArchiveError>,
        ) -> Result<(), ArchiveError>,
    ) -> Result<ArchivedFile, ArchiveError> {
        self.complete(Draft::new(&name.path(&self.folder))?, name, frames, fill)
    }

    /// Makes `draft` the file with this name, after adding the frames that `fill` gives.
    fn complete(
        &self,
        mut draft: Draft,
        name: &Name,
        (first, last): (Position, Position),
        fill: impl FnOnce(
            &mut dyn FnMut(FoundFrame<'_>) -> Result<(), ArchiveError>,
        ) -> Result<(), ArchiveError>,
    ) -> Result<ArchivedFile, ArchiveError> {
        let (mut press, mut plain) = (Press::new()?, Plain::default());
        fill(&mut |FoundFrame { position, time_ms, body }| {
            plain.add((position, time_ms), body.len(), [body]);
            if plain.is_full() {
                draft.chunks.add(&mut press, &plain)?;
                plain.clear();
            }
            Ok(())
        })?;
        draft.chunks.add(&mut press, &plain)?;
        let Chunks { file, written, .. } = &draft.chunks;
        let bytes = file.metadata()?.len().max(HEAD_BYTES);
        let Name { number, kind, version } = *name;
        let (time_ms, frames) = (written.time_ms, written.frames);
        let path = name.path(&self.folder);
        let archived =
            ArchivedFile { path, kind, number, version, first, last, time_ms, frames, bytes };
        head::write(file, &archived, self.generation)?;
        file.sync_all()?;
        forget_cached(file)?;
        if read_back(draft.path())? != *written {
            return Err(ArchiveError::ReadBack(archived.path));
        }
        draft.rename(&archived.path)?;
        sync_folder(&self.folder)?;
        Ok(archived)
    }
}

/// Reads all frames from the disk.
fn read_back(path: &Path) -> std::io::Result<Written> {
    let file = File::open(path)?;
    let mut chunks = ChunkReader::new(&file, HEAD_BYTES)?.past_cache(path);
    let mut read = Written::default();
    while let Some(chunk) = chunks.next()? {
        read.add_found(chunk.frames);
    }
    Ok(read)
}

/// Makes sure that the next read of `file` comes from the disk.
fn forget_cached(file: &File) -> std::io::Result<()> {
    #[cfg(target_os = "linux")]
    rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed)?;
    #[cfg(not(target_os = "linux"))]
    let _ = file;
    Ok(())
}
