//! Writes files of the archive.
//!
//! Keeps: a file gets its name once it is on disk and was read back from there; so after a crash, it is complete or is
//! written again. Leaves out: when the log file may be reused (after this has returned).

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom};
use std::path::Path;

use super::chunk::{ChunkReader, ChunkWriter, Written};
use super::head::{self, HEAD_BYTES};
use super::names::{self, Kind, Name};
use super::{Archive, ArchiveError, ArchivedFile, TAILS_FROM, sync_folder};
use crate::storage::commit_log::{FinishedFile, Found, FoundFrame, Position};

impl Archive {
    /// Archives the frames of `log`, unless that was already done. Writes nothing for a file without frames. If `log`
    /// has lost frames, the rest is archived, and reading it reports what is missing. The file is on disk when this
    /// returns.
    pub(crate) fn write_log(
        &self,
        log: &FinishedFile,
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
        let frames = |write: &mut dyn FnMut(FoundFrame<'_>) -> Result<(), ArchiveError>| {
            log.read(self.generation, |found| match found {
                Found::Frame(frame) => write(frame),
                Found::Damage(_) => Ok(()),
            })
        };
        self.write(&name, (log.first, log.last), frames).map(Some)
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
        (first, last): (Position, Position),
        fill: impl FnOnce(
            &mut dyn FnMut(FoundFrame<'_>) -> Result<(), ArchiveError>,
        ) -> Result<(), ArchiveError>,
    ) -> Result<ArchivedFile, ArchiveError> {
        let path = name.path(&self.folder);
        let new = names::unfinished(&path);
        let written = (|| {
            let mut file =
                OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&new)?;
            file.seek(SeekFrom::Start(HEAD_BYTES))?;
            let mut chunks = ChunkWriter::new(&file)?;
            fill(&mut |frame| Ok(chunks.write(frame)?))?;
            let written = chunks.finish()?;
            let bytes = file.metadata()?.len().max(HEAD_BYTES);
            let Name { number, kind, version } = *name;
            let (time_ms, frames) = (written.time_ms, written.frames);
            let path = path.clone();
            let archived =
                ArchivedFile { path, kind, number, version, first, last, time_ms, frames, bytes };
            head::write(&file, &archived, self.generation)?;
            file.sync_all()?;
            forget_cached(&file)?;
            if read_back(&new)? != written {
                return Err(ArchiveError::ReadBack(archived.path));
            }
            std::fs::rename(&new, &archived.path)?;
            sync_folder(&self.folder)?;
            Ok(archived)
        })();
        if written.is_err() {
            // If the file stays, the next opening removes it.
            drop(std::fs::remove_file(&new));
        }
        written
    }
}

/// Reads all frames from the disk.
fn read_back(path: &Path) -> std::io::Result<Written> {
    let file = File::open(path)?;
    let mut chunks = ChunkReader::new(&file, HEAD_BYTES)?.past_cache(path);
    let mut read = Written::default();
    while let Some(chunk) = chunks.next()? {
        chunk.frames.for_each(|frame| read.add(frame));
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
