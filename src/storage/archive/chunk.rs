//! What a file contains after its head: chunks, each with some frames, compressed separately, so that a fault affects
//! only one. Each is preceded by a frame that zstd skips (`0x184d2a51`, 32, both little-endian), with
//!
//! ```text
//! crc32        4   over the rest of these 32 bytes
//! crc32        4   over the compressed bytes
//! compressed   4   their number
//! plain        4   the number of bytes that they become
//! first        8   the number of the first frame in it
//! last         8   of the last one
//! ```
//!
//! Uncompressed, a frame is its number (8), its time (8), the length of its body (4) and the body. A base numbers its
//! parts from 1.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::storage::commit_log::{FoundFrame, Position};
use crate::storage::direct::DirectReader;
use crate::storage::slot::{sum, u32_at, u64_at};

const SKIPPED: [u8; 8] = [0x51, 0x2a, 0x4d, 0x18, 32, 0, 0, 0];
const LABEL_BYTES: usize = SKIPPED.len() + 32;
const FRAME_HEAD_BYTES: usize = 20;

/// A chunk is closed when it has this many bytes before compression.
const PLAIN_BYTES: usize = 1 << 20;

/// The fastest level except the negative ones: archiving must keep up.
const LEVEL: i32 = 1;

/// How much is searched at once for the next chunk after a fault.
const SEARCH_BYTES: usize = 64 << 10;

/// Compresses frames into a file.
pub(super) struct ChunkWriter<'a> {
    file: &'a File,
    compressor: zstd::bulk::Compressor<'static>,
    plain: Vec<u8>,
    /// The compressed bytes of a chunk. It is kept so that its memory is reused.
    data: Vec<u8>,
    first: Position,
    written: Written,
    /// Where the next chunk goes.
    at: u64,
}

/// What was written, or read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) frames: u64,
    pub(super) last: Position,
    pub(super) time_ms: u64,
    sum: u32,
}

impl Written {
    pub(super) fn add(&mut self, frame: FoundFrame<'_>) {
        let mut sum = crc32fast::Hasher::new_with_initial(self.sum);
        sum.update(&frame_head(&frame));
        sum.update(frame.body);
        self.sum = sum.finalize();
        self.frames += 1;
        self.last = frame.position;
        self.time_ms = frame.time_ms;
    }
}

impl<'a> ChunkWriter<'a> {
    /// Writes at the current position of `file`.
    pub(super) fn new(mut file: &'a File) -> io::Result<Self> {
        let at = file.stream_position()?;
        let mut compressor = zstd::bulk::Compressor::new(LEVEL)?;
        compressor.include_checksum(true)?;
        let (plain, first) = (Vec::with_capacity(PLAIN_BYTES * 2), Position(0));
        let (data, written) = (Vec::new(), Written::default());
        Ok(Self { file, compressor, plain, data, first, written, at })
    }

    pub(super) fn write(&mut self, frame: FoundFrame<'_>) -> io::Result<()> {
        if self.plain.is_empty() {
            self.first = frame.position;
        }
        self.plain.extend_from_slice(&frame_head(&frame));
        self.plain.extend_from_slice(frame.body);
        self.written.add(frame);
        if self.plain.len() >= PLAIN_BYTES { self.flush() } else { Ok(()) }
    }

    pub(super) fn finish(mut self) -> io::Result<Written> {
        self.flush()?;
        Ok(self.written)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.plain.is_empty() {
            return Ok(());
        }
        let data = &mut self.data;
        data.clear();
        data.reserve(zstd::zstd_safe::compress_bound(self.plain.len()));
        self.compressor.compress_to_buffer(&self.plain, data)?;
        let number = |len: usize| u32::try_from(len).map_err(io::Error::other);
        let mut label = [0; LABEL_BYTES];
        label[..8].copy_from_slice(&SKIPPED);
        label[12..16].copy_from_slice(&crc32fast::hash(data).to_be_bytes());
        label[16..20].copy_from_slice(&number(data.len())?.to_be_bytes());
        label[20..24].copy_from_slice(&number(self.plain.len())?.to_be_bytes());
        label[24..32].copy_from_slice(&self.first.0.to_be_bytes());
        label[32..].copy_from_slice(&self.written.last.0.to_be_bytes());
        let sum = sum(0, &label[8..]);
        label[8..12].copy_from_slice(&sum.to_be_bytes());
        self.file.write_all(&label)?;
        self.file.write_all(data)?;
        self.plain.clear();
        let bytes = (LABEL_BYTES + data.len()) as u64;
        write_back(self.file, self.at, bytes);
        self.at += bytes;
        Ok(())
    }
}

/// Makes the system begin to write this to the disk. Otherwise all of a file waits for the sync at its end, and commits
/// wait behind that.
fn write_back(file: &File, at: u64, bytes: u64) {
    // What is written also leaves the page cache. The call may be refused: then the sync does all of it.
    #[cfg(target_os = "linux")]
    let _ = rustix::fs::fadvise(
        file,
        at,
        std::num::NonZeroU64::new(bytes),
        rustix::fs::Advice::DontNeed,
    );
    #[cfg(not(target_os = "linux"))]
    let _ = (file, at, bytes);
}

fn frame_head(frame: &FoundFrame<'_>) -> [u8; FRAME_HEAD_BYTES] {
    let mut head = [0; FRAME_HEAD_BYTES];
    head[..8].copy_from_slice(&frame.position.0.to_be_bytes());
    head[8..16].copy_from_slice(&frame.time_ms.to_be_bytes());
    head[16..].copy_from_slice(&(frame.body.len() as u32).to_be_bytes());
    head
}

/// Reads the chunks of a file.
pub(super) struct ChunkReader<'a> {
    file: &'a File,
    /// The same file, for reading without the page cache.
    direct: Option<DirectReader>,
    at: u64,
    data: Vec<u8>,
    plain: Vec<u8>,
    decompressor: zstd::bulk::Decompressor<'static>,
    fault: bool,
}

/// An undamaged chunk.
pub(super) struct Chunk<'a> {
    pub(super) frames: Frames<'a>,
    /// Whether something before it was skipped.
    pub(super) behind_fault: bool,
    /// Where it ends in the file, in bytes.
    pub(super) end: u64,
}

struct Label {
    data_sum: u32,
    data_bytes: usize,
    plain_bytes: usize,
}

impl<'a> ChunkReader<'a> {
    /// Reads from `at` on.
    pub(super) fn new(file: &'a File, at: u64) -> io::Result<Self> {
        let decompressor = zstd::bulk::Decompressor::new()?;
        let (direct, data, plain) = (None, Vec::new(), Vec::new());
        Ok(Self { file, direct, at, data, plain, decompressor, fault: false })
    }

    /// Reads without the page cache where possible, through the file at this path, which is the same.
    pub(super) fn past_cache(mut self, path: &Path) -> Self {
        self.direct = DirectReader::open(path).ok();
        self
    }

    /// Whether something was skipped between the last returned chunk and the end.
    pub(super) fn ends_with_fault(&self) -> bool {
        self.fault
    }

    /// The next undamaged chunk.
    pub(super) fn next(&mut self) -> io::Result<Option<Chunk<'_>>> {
        self.fault = false;
        let end = self.file.metadata()?.len();
        while self.at < end {
            let Some(label) = self.label(end) else {
                self.fault = true;
                self.at = self.search(end);
                continue;
            };
            let start = self.at + LABEL_BYTES as u64;
            self.at = start + label.data_bytes as u64;
            if self.load(start, &label).is_some() {
                let behind_fault = self.fault;
                return Ok(Some(Chunk { frames: Frames(&self.plain), behind_fault, end: self.at }));
            }
            self.fault = true;
        }
        Ok(None)
    }

    /// The label at `at` before a chunk, if it is undamaged, and the chunk is within the file.
    fn label(&mut self, end: u64) -> Option<Label> {
        let mut label = [0; LABEL_BYTES];
        let left = end - self.at;
        if left < LABEL_BYTES as u64 {
            return None;
        }
        read(self.file, &mut self.direct, &mut label, self.at).ok()?;
        let bytes = &label[8..];
        let label = Label {
            data_sum: u32_at(bytes, 4),
            data_bytes: u32_at(bytes, 8) as usize,
            plain_bytes: u32_at(bytes, 12) as usize,
        };
        let is_whole = sum(0, bytes) == u32_at(bytes, 0)
            && label.data_bytes as u64 <= left - LABEL_BYTES as u64;
        is_whole.then_some(label)
    }

    fn load(&mut self, start: u64, label: &Label) -> Option<()> {
        self.data.resize(label.data_bytes, 0);
        read(self.file, &mut self.direct, &mut self.data, start).ok()?;
        if crc32fast::hash(&self.data) != label.data_sum {
            return None;
        }
        self.plain.clear();
        self.plain.reserve_exact(label.plain_bytes);
        let len = self.decompressor.decompress_to_buffer(&self.data, &mut self.plain).ok()?;
        (len == label.plain_bytes).then_some(())
    }

    /// Where the next chunk might begin, after `at`.
    fn search(&self, end: u64) -> u64 {
        let mut window = vec![0; SEARCH_BYTES];
        let mut at = self.at + 1;
        while at < end {
            let len = (end - at).min(SEARCH_BYTES as u64) as usize;
            // What cannot be read is skipped.
            if self.file.read_exact_at(&mut window[..len], at).is_ok()
                && let Some(found) =
                    window[..len].windows(SKIPPED.len()).position(|bytes| bytes == SKIPPED)
            {
                return at + found as u64;
            }
            // It may cross the end of what was searched.
            at += (len - (SKIPPED.len() - 1).min(len - 1)) as u64;
        }
        end
    }
}

/// Reads past the page cache, or, where that fails, through `file`.
fn read(
    file: &File,
    direct: &mut Option<DirectReader>,
    bytes: &mut [u8],
    at: u64,
) -> io::Result<()> {
    if direct.as_mut().is_some_and(|direct| direct.read_exact_at(bytes, at).is_ok()) {
        return Ok(());
    }
    *direct = None;
    file.read_exact_at(bytes, at)
}

/// The frames of a chunk.
pub(super) struct Frames<'a>(&'a [u8]);

impl<'a> Iterator for Frames<'a> {
    type Item = FoundFrame<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let (head, rest) = self.0.split_at_checked(FRAME_HEAD_BYTES)?;
        let (body, rest) = rest.split_at_checked(u32_at(head, 16) as usize)?;
        self.0 = rest;
        Some(FoundFrame { position: Position(u64_at(head, 0)), time_ms: u64_at(head, 8), body })
    }
}
