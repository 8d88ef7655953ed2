//! Appends frames.
//!
//! Keeps: a frame is acknowledged when it is on disk, and at most one is not; after a failure nothing is written to
//! that file again, and nothing at all until [`LogWriter::reopen_after_failure`]. A frame costs one write to existing
//! blocks and one sync. Leaves out: who writes what, and when.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::acked::Acked;
use super::block::{BLOCK_BYTES, Seal};
use super::files::{Begun, LogFiles};
use super::frame::{Frame, blocks_for};
use super::scan::{Fault, FileScan, Next};
use super::seam::{self, LogStep};
use super::{BODY_BYTES_MAX, DamageKind, Place, Position, folder};
use crate::storage::direct::{self, Aligned};

/// Appends to a log. There is only one.
pub(crate) struct LogWriter {
    files: LogFiles,
    acked: Acked,
    current: Begun,
    seal: Seal,
    /// Where the next frame goes.
    place: u32,
    last: Position,
    /// The time of the last frame.
    time: u64,
    buffer: Aligned,
    /// The current file, for writes without the page cache; `None` where that is impossible.
    direct: Option<File>,
    failed: bool,
    /// What was found after the last good frame, until it is in a new file.
    salvaged: Option<Salvaged>,
}

/// A frame that is on disk, and still in memory.
#[derive(Debug)]
pub(crate) struct Appended {
    /// Its number.
    pub(crate) position: Position,
    /// When it was appended: milliseconds since 1970.
    pub(crate) time_ms: u64,
    /// The number of the first frame of its file.
    pub(crate) file_first: Position,
    /// Where the next frame of its file begins.
    pub(crate) next: Place,
    frame: Frame,
}

impl Appended {
    /// The number of its file.
    pub(crate) fn file(&self) -> u64 {
        self.frame.file()
    }

    /// The length of its body in bytes.
    pub(crate) fn body_bytes(&self) -> u64 {
        self.frame.body_bytes()
    }

    /// What was written to it, in parts.
    pub(crate) fn body(&self) -> impl Iterator<Item = &[u8]> {
        self.frame.body()
    }
}

/// A frame whose append failed, but which is on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Salvaged {
    /// Its number.
    pub(crate) position: Position,
    /// When it was appended.
    pub(crate) time_ms: u64,
    /// What was written to it.
    pub(crate) body: Vec<u8>,
}

impl LogWriter {
    pub(super) fn new(files: LogFiles, acked: Acked, current: Begun) -> Self {
        let header = current.header;
        let direct = direct::open(&current.path, true).ok();
        Self {
            files,
            acked,
            seal: header.seal(),
            current,
            place: 1,
            last: header.first.before(),
            time: header.time,
            buffer: Aligned::default(),
            direct,
            failed: false,
            salvaged: None,
        }
    }

    /// The last frame that is on disk.
    pub(crate) fn last(&self) -> Position {
        self.last
    }

    /// An empty frame for up to `body_bytes_max` bytes. If the current file has no space for that many, a new one is
    /// begun, so that [`Frame::file`] is certain. The buffer that was given back last is reused.
    ///
    /// After an error the writer accepts nothing until [`Self::reopen_after_failure`].
    pub(crate) fn frame(&mut self, body_bytes_max: u64) -> io::Result<Frame> {
        self.alive()?;
        if body_bytes_max > BODY_BYTES_MAX {
            return Err(too_large());
        }
        let blocks = blocks_for(body_bytes_max);
        if blocks > u64::from(self.current.header.end() - self.place) {
            self.begin(blocks).inspect_err(|_| self.failed = true)?;
        }
        Ok(Frame::new(std::mem::take(&mut self.buffer), blocks, self.current.header.file))
    }

    /// Appends `frame`, which was made after the last append, and syncs it. `now_ms` is milliseconds since 1970; the
    /// frame gets that, or the time of the previous one if that is greater.
    ///
    /// After an error the frame may be there or not, and the writer accepts nothing until
    /// [`Self::reopen_after_failure`]. A frame that is larger than announced, so that it does not fit, is refused as
    /// [`io::ErrorKind::InvalidInput`], and everything stays as it was.
    pub(crate) fn append(&mut self, mut frame: Frame, now_ms: u64) -> io::Result<Appended> {
        self.alive()?;
        let room = u64::from(self.current.header.end() - self.place);
        if frame.file() != self.current.header.file || frame.blocks() > room {
            return Err(too_large());
        }
        let (position, time) = (self.last.next(), self.time.max(now_ms));
        let bytes = frame.close(self.seal, position, time);
        let blocks = (bytes.len() / BLOCK_BYTES) as u32;
        self.write(bytes).inspect_err(|_| self.failed = true)?;
        self.place += blocks;
        self.last = position;
        self.time = time;
        self.acked.reached(position);
        let next = self.place();
        let file_first = self.current.header.first;
        Ok(Appended { position, time_ms: time, file_first, next, frame })
    }

    /// Takes the memory of a frame that nobody needs any more, for the next one.
    pub(crate) fn reuse(&mut self, appended: Appended) {
        self.buffer = appended.frame.into_buffer();
    }

    /// Begins a new file, unless the current one has no frames: then what was appended so far can be released.
    pub(crate) fn finish_file(&mut self) -> io::Result<()> {
        self.alive()?;
        if self.place > 1 {
            self.begin(1).inspect_err(|_| self.failed = true)?;
        }
        Ok(())
    }

    /// Makes a failed writer accept frames again, in a new file. A frame whose append failed, but which the disk has,
    /// is returned, and then counts as appended; otherwise it is gone, and its number is free.
    ///
    /// After an error the writer stays as it was, and this can be tried again.
    pub(crate) fn reopen_after_failure(&mut self) -> io::Result<Option<Salvaged>> {
        if !self.failed {
            return Ok(None);
        }
        if self.salvaged.is_none() {
            let seam = self.files.options().seam.clone();
            self.salvaged = seam::take(seam.as_ref(), LogStep::Salvage, || self.salvage())?;
        }
        let blocks = self.salvaged.as_ref().map_or(1, |found| blocks_for(found.body.len() as u64));
        self.begin(blocks)?;
        if let Some(Salvaged { position, time_ms, body }) = &self.salvaged {
            let mut frame = Frame::new(Aligned::default(), blocks, self.current.header.file);
            frame.write(body);
            self.write(frame.close(self.seal, *position, *time_ms))?;
            self.place += frame.blocks() as u32;
            self.last = *position;
            self.time = *time_ms;
            self.acked.reached(self.last);
        }
        self.failed = false;
        Ok(self.salvaged.take())
    }

    /// Ends the log: notes that nothing comes after the last frame.
    pub(crate) fn close(self) -> io::Result<()> {
        if self.failed { Ok(()) } else { self.acked.close() }
    }

    /// Waits until the reach of the log is noted: the next note is then the writer's own.
    #[cfg(test)]
    pub(super) fn wait_until_noted(&self) {
        self.acked.wait_until_noted();
    }

    /// Where the next frame goes.
    const fn place(&self) -> Place {
        Place { position: self.last.next(), block: self.place }
    }

    fn alive(&self) -> io::Result<()> {
        if self.failed {
            Err(io::Error::other("an earlier write to the log failed"))
        } else {
            Ok(())
        }
    }

    fn begin(&mut self, blocks: u64) -> io::Result<()> {
        let begun = self.files.begin(self.last.next(), self.time, blocks)?;
        self.files.note(&begun)?;
        self.seal = begun.header.seal();
        self.direct = direct::open(&begun.path, true).ok();
        self.current = begun;
        self.place = 1;
        Ok(())
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let seam = self.files.options().seam.as_ref();
        let offset = u64::from(self.place) * BLOCK_BYTES as u64;
        let is_synced = seam::take(seam, LogStep::Write, || {
            if let Some(direct) = &self.direct
                && direct::write(direct, bytes, offset)?
            {
                return Ok(true);
            }
            self.current.file.write_all_at(bytes, offset).map(|()| false)
        })?;
        seam::take(seam, LogStep::Sync, || {
            if is_synced { Ok(()) } else { self.current.file.sync_data() }
        })
    }

    /// What the disk, not a cache, has after the last good frame.
    fn salvage(&self) -> io::Result<Option<Salvaged>> {
        let Begun { file, header, .. } = &self.current;
        // Pages that are still dirty are not dropped; and this sync may well fail too.
        drop(file.sync_data());
        folder::forget_cached(file)?;
        let mut scan = FileScan::at(file, header, self.place())?;
        Ok(match scan.next(Some(self.last.next().next())) {
            Next::Frame { position, time } => {
                Some(Salvaged { position, time_ms: time, body: scan.body().to_vec() })
            }
            Next::End { fault: Some(Fault { kind: DamageKind::Unreadable, .. }), .. } => {
                return Err(io::Error::other("what is behind the last frame cannot be read"));
            }
            Next::Gap { .. } | Next::End { .. } => None,
        })
    }
}

fn too_large() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "the frame is larger than was said")
}
