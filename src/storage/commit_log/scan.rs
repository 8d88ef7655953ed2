//! Reads the frames of one log file, and finds out what comes after the last one.
//!
//! Keeps: a frame is returned if all its blocks are there and were written together; a single changed bit is repaired.
//! Leaves out: what the frames in other files say about it (`open`).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::block::{BLOCK_BYTES, Block, Label, Seal};
use super::frame::Taking;
use super::header::Header;
use super::{DamageKind, Place, Position};
use crate::storage::direct::{self, Aligned};

/// How many blocks are read at once.
const WINDOW_BLOCKS: u32 = 1_024;

/// A place in a file and what is wrong there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) place: u32,
    pub(super) kind: DamageKind,
}

/// What comes next in a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A frame; its body is in [`FileScan::body`].
    Frame { position: Position, time: u64 },
    /// Frames are missing; the next one comes after `to`.
    Gap { fault: Fault, to: Position },
    /// No further frame. If this cannot be where a crash cut the log off, `fault` says why.
    End { place: u32, fault: Option<Fault> },
}

/// A repaired block.
pub(super) type Repair = (u32, [u8; BLOCK_BYTES]);

/// Reads one file from front to back.
pub(super) struct FileScan<'a> {
    blocks: Blocks<'a>,
    /// Where the next frame begins.
    place: u32,
    /// Its number.
    position: Position,
    body: Vec<u8>,
    repaired: Vec<Repair>,
    highest: Position,
}

impl<'a> FileScan<'a> {
    /// From the first frame on.
    pub(super) fn new(file: &'a File, header: &Header) -> io::Result<Self> {
        Self::at(file, header, Place::first(header.first))
    }

    /// From the frame on that begins at `place`, if it exists.
    pub(super) fn at(file: &'a File, header: &Header, place: Place) -> io::Result<Self> {
        Ok(Self {
            blocks: Blocks::new(file, header)?,
            place: place.block,
            position: place.position,
            body: Vec::new(),
            repaired: Vec::new(),
            highest: Position(0),
        })
    }

    /// Reads without the page cache where possible, through the file at this path, which is the same: nobody reads it
    /// again soon.
    pub(super) fn past_cache(mut self, path: &Path) -> Self {
        self.blocks.direct = direct::open_to_read(path).ok();
        self
    }

    /// The body of the last frame that was found.
    pub(super) fn body(&self) -> &[u8] {
        &self.body
    }

    /// The number of the frame that would come next.
    pub(super) fn position(&self) -> Position {
        self.position
    }

    /// The highest number seen on a block while looking for what comes after the last frame.
    pub(super) fn highest(&self) -> Position {
        self.highest
    }

    /// The blocks of frames that were repaired since the last call.
    pub(super) fn take_repaired(&mut self) -> Vec<Repair> {
        std::mem::take(&mut self.repaired)
    }

    /// The next frame below `until`; what the file has from there on is void.
    pub(super) fn next(&mut self, until: Option<Position>) -> Next {
        if until.is_some_and(|until| self.position >= until) {
            return Next::End { place: self.place, fault: None };
        }
        match self.frame() {
            Ok((time, blocks)) => {
                let (position, end) = (self.position, self.place + blocks);
                let put_right = self.blocks.repaired.extract_if(.., |(place, _)| *place < end);
                self.repaired.extend(put_right);
                self.place = end;
                self.position = position.next();
                Next::Frame { position, time }
            }
            Err(fault) => self.behind(fault, until),
        }
    }

    /// Reads the frame at `place`: its time, and how many blocks it has.
    fn frame(&mut self) -> Result<(u64, u32), Fault> {
        let (start, position) = (self.place, self.position);
        self.expect(start, 0)?;
        let wrong = Err(Fault { place: start, kind: DamageKind::Frame });
        let first = self.blocks.bytes(start);
        let Some(mut taking) = Taking::begin(first, position, &mut self.body) else { return wrong };
        let Ok(blocks) = u32::try_from(taking.blocks()) else { return wrong };
        if blocks > self.blocks.end - start {
            return wrong;
        }
        for index in 1..blocks {
            self.expect(start + index, index)?;
            taking.add(self.blocks.bytes(start + index), &mut self.body);
        }
        match taking.end(&mut self.body) {
            Some(time) => Ok((time, blocks)),
            None => wrong,
        }
    }

    /// Whether the block at `place` is block `index` of the next frame.
    fn expect(&mut self, place: u32, index: u32) -> Result<(), Fault> {
        let expected = Label { frame: self.position.0, index };
        let kind = match self.blocks.check(place) {
            Block::Whole(label) | Block::Repaired(label) if label == expected => return Ok(()),
            Block::Whole(_) | Block::Repaired(_) => DamageKind::Misplaced,
            Block::Changed => DamageKind::Block,
            Block::Unreadable => DamageKind::Unreadable,
            Block::Absent if self.blocks.short => DamageKind::Short,
            Block::Absent => DamageKind::BlockMissing,
        };
        Err(Fault { place, kind })
    }

    /// The frame at `place` is not there, because of `fault`: looks for a later one.
    fn behind(&mut self, fault: Fault, until: Option<Position>) -> Next {
        let mut contradiction = (fault.kind != DamageKind::BlockMissing).then_some(fault);
        for place in self.place..self.blocks.readable {
            let kind = match self.blocks.check(place) {
                Block::Absent => continue,
                Block::Changed => DamageKind::Block,
                Block::Unreadable => DamageKind::Unreadable,
                Block::Whole(label) | Block::Repaired(label) => {
                    let found = Position(label.frame);
                    if until.is_some_and(|until| found >= until) {
                        break;
                    }
                    self.highest = self.highest.max(found);
                    if found > self.position && label.index == 0 {
                        self.place = place;
                        self.position = found;
                        return Next::Gap { fault, to: found.before() };
                    }
                    if found > self.position {
                        contradiction.get_or_insert(fault);
                        continue;
                    }
                    if found == self.position && label.index == place - self.place {
                        continue;
                    }
                    DamageKind::Misplaced
                }
            };
            contradiction.get_or_insert(Fault { place, kind });
        }
        Next::End { place: self.place, fault: contradiction }
    }
}

/// The blocks of a file, read some at a time.
struct Blocks<'a> {
    file: &'a File,
    /// The same file, for reading without the page cache.
    direct: Option<File>,
    seal: Seal,
    /// The place after the last one that can belong to a frame.
    end: u32,
    /// The same, according to what the file really has.
    readable: u32,
    /// Whether it has less than it was made with, even if only the second header is missing.
    short: bool,
    window: Aligned,
    window_at: u32,
    /// Places in the window that the disk cannot read.
    unreadable: Vec<u32>,
    /// Repaired blocks.
    repaired: Vec<Repair>,
}

impl<'a> Blocks<'a> {
    fn new(file: &'a File, header: &Header) -> io::Result<Self> {
        let bytes = file.metadata()?.len();
        let blocks = u32::try_from(bytes / BLOCK_BYTES as u64).unwrap_or(u32::MAX);
        Ok(Self {
            file,
            direct: None,
            seal: header.seal(),
            end: header.end(),
            readable: blocks.min(header.end()),
            short: bytes < header.file_bytes(),
            window: Aligned::default(),
            window_at: 0,
            unreadable: Vec::new(),
            repaired: Vec::new(),
        })
    }

    fn check(&mut self, place: u32) -> Block {
        if place >= self.readable {
            return Block::Absent;
        }
        self.load(place);
        if self.unreadable.contains(&place) {
            return Block::Unreadable;
        }
        let at = self.at(place);
        let block = &mut self.window[at..at + BLOCK_BYTES];
        let checked = self.seal.check(block);
        if let Block::Repaired(_) = checked {
            let mut copy = [0; BLOCK_BYTES];
            copy.copy_from_slice(block);
            self.repaired.push((place, copy));
        }
        checked
    }

    /// The last block that was checked, repaired if necessary.
    fn bytes(&self, place: u32) -> &[u8] {
        let at = self.at(place);
        &self.window[at..at + BLOCK_BYTES]
    }

    fn at(&self, place: u32) -> usize {
        (place - self.window_at) as usize * BLOCK_BYTES
    }

    fn load(&mut self, place: u32) {
        let held = (self.window.len() / BLOCK_BYTES) as u32;
        if (self.window_at..self.window_at + held).contains(&place) {
            return;
        }
        let blocks = WINDOW_BLOCKS.min(self.readable - place);
        self.window.reset(blocks as usize * BLOCK_BYTES);
        self.window.resize(blocks as usize * BLOCK_BYTES);
        self.window_at = place;
        self.unreadable.clear();
        let offset = |place: u32| u64::from(place) * BLOCK_BYTES as u64;
        if let Some(direct) = &self.direct {
            if direct.read_exact_at(&mut self.window, offset(place)).is_ok() {
                return;
            }
            self.direct = None;
        }
        if self.file.read_exact_at(&mut self.window, offset(place)).is_ok() {
            return;
        }
        // One bad sector must not take its neighbours with it.
        for (place, block) in (place..).zip(self.window.chunks_exact_mut(BLOCK_BYTES)) {
            if self.file.read_exact_at(block, offset(place)).is_err() {
                self.unreadable.push(place);
            }
        }
    }
}
