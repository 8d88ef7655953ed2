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
use std::io;
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

/// Frames that are compressed together, before that.
#[derive(Debug, Default)]
pub(crate) struct Plain {
    bytes: Vec<u8>,
    frames: u64,
    first: Position,
    last: Position,
    time_ms: u64,
}

impl Plain {
    /// Adds a frame that follows the last one; `body` is the parts of its body, which has this many bytes.
    pub(crate) fn add<'a>(
        &mut self,
        (position, time_ms): (Position, u64),
        body_bytes: usize,
        body: impl IntoIterator<Item = &'a [u8]>,
    ) {
        if self.frames == 0 {
            self.first = position;
        }
        self.bytes.reserve(FRAME_HEAD_BYTES + body_bytes);
        self.bytes.extend_from_slice(&frame_head((position, time_ms), body_bytes));
        body.into_iter().for_each(|part| self.bytes.extend_from_slice(part));
        (self.last, self.time_ms) = (position, time_ms);
        self.frames += 1;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.frames == 0
    }

    /// Whether it has as much as a chunk should have.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes.len() >= PLAIN_BYTES
    }

    /// Its size in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The number of its first frame.
    pub(crate) fn first(&self) -> Position {
        self.first
    }

    /// Removes the frames, and keeps the memory unless it is far more than a chunk needs.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(PLAIN_BYTES * 2);
        self.frames = 0;
    }
}

/// Compresses. Its memory is reused.
pub(crate) struct Press {
    compressor: zstd::bulk::Compressor<'static>,
    data: Vec<u8>,
}

impl Press {
    pub(crate) fn new() -> io::Result<Self> {
        let mut compressor = zstd::bulk::Compressor::new(LEVEL)?;
        compressor.include_checksum(true)?;
        Ok(Self { compressor, data: Vec::new() })
    }

    /// The chunk of `plain`: its label, and the compressed bytes.
    fn press(&mut self, plain: &Plain) -> io::Result<([u8; LABEL_BYTES], &[u8])> {
        let Self { compressor, data } = self;
        data.clear();
        data.reserve(zstd::zstd_safe::compress_bound(plain.bytes.len()));
        compressor.compress_to_buffer(&plain.bytes, data)?;
        let number = |len: usize| u32::try_from(len).map_err(io::Error::other);
        let mut label = [0; LABEL_BYTES];
        label[..8].copy_from_slice(&SKIPPED);
        label[12..16].copy_from_slice(&crc32fast::hash(data).to_be_bytes());
        label[16..20].copy_from_slice(&number(data.len())?.to_be_bytes());
        label[20..24].copy_from_slice(&number(plain.bytes.len())?.to_be_bytes());
        label[24..32].copy_from_slice(&plain.first.0.to_be_bytes());
        label[32..].copy_from_slice(&plain.last.0.to_be_bytes());
        let sum = sum(0, &label[8..]);
        label[8..12].copy_from_slice(&sum.to_be_bytes());
        Ok((label, data))
    }
}

/// The chunks of a file that is being written.
#[derive(Debug)]
pub(super) struct Chunks {
    pub(super) file: File,
    /// Where the next chunk goes.
    at: u64,
    pub(super) written: Written,
}

impl Chunks {
    /// Of an empty file: the first chunk goes to `at`.
    pub(super) fn new(file: File, at: u64) -> Self {
        Self { file, at, written: Written::default() }
    }

    /// Adds a chunk with the frames of `plain`, unless it has none.
    pub(super) fn add(&mut self, press: &mut Press, plain: &Plain) -> io::Result<()> {
        if plain.is_empty() {
            return Ok(());
        }
        let (label, data) = press.press(plain)?;
        self.file.write_all_at(&label, self.at)?;
        self.file.write_all_at(data, self.at + LABEL_BYTES as u64)?;
        let bytes = (LABEL_BYTES + data.len()) as u64;
        write_back(&self.file, self.at, bytes);
        self.at += bytes;
        self.written.add(plain);
        Ok(())
    }
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
    fn add(&mut self, plain: &Plain) {
        self.sum_up(&plain.bytes);
        self.frames += plain.frames;
        (self.last, self.time_ms) = (plain.last, plain.time_ms);
    }

    /// Adds what a chunk was found to have.
    pub(super) fn add_found(&mut self, found: Frames<'_>) {
        self.sum_up(found.0);
        for frame in found {
            self.frames += 1;
            (self.last, self.time_ms) = (frame.position, frame.time_ms);
        }
    }

    fn sum_up(&mut self, bytes: &[u8]) {
        let mut sum = crc32fast::Hasher::new_with_initial(self.sum);
        sum.update(bytes);
        self.sum = sum.finalize();
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

fn frame_head((position, time_ms): (Position, u64), body_bytes: usize) -> [u8; FRAME_HEAD_BYTES] {
    let mut head = [0; FRAME_HEAD_BYTES];
    head[..8].copy_from_slice(&position.0.to_be_bytes());
    head[8..16].copy_from_slice(&time_ms.to_be_bytes());
    head[16..].copy_from_slice(&(body_bytes as u32).to_be_bytes());
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
