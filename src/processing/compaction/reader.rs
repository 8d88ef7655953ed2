//! Reads scattered entries of a log, upwards: each segment is read once.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::model::{EntryRef, MalformedRecord, RecordReader, Segment, Sequence};
use crate::storage::{StorageError, StoreLog};

/// Goes through a log upwards.
pub(super) struct LogReader {
    log: Arc<dyn StoreLog>,
    /// How many bytes to read at once.
    ahead: usize,
    /// What was read and is not behind the position.
    segments: VecDeque<Segment>,
    /// The next entry of the first segment.
    next: Sequence,
    /// Where its record begins.
    offset: usize,
}

impl LogReader {
    /// Reads from `log`, about `ahead` bytes at once, and at least a segment.
    pub(super) fn new(log: &Arc<dyn StoreLog>, ahead: usize) -> Self {
        let (log, segments) = (log.clone(), VecDeque::new());
        Self { log, ahead, segments, next: Sequence::ZERO, offset: 0 }
    }

    /// The durable entry at `sequence`, which must be above that of the previous call. Blocks on disk reads.
    pub(super) fn entry(&mut self, sequence: Sequence) -> Result<EntryRef<'_>, StorageError> {
        self.enter_segment_of(sequence)?;
        let missing = || StorageError::corrupt(format_args!("there is no entry {sequence}"));
        let records = self.segments.front().ok_or_else(missing)?.records();
        let mut reader = RecordReader::new(&records[self.offset..]);
        for _ in 0..sequence.since(self.next) {
            reader.skip_one().map_err(StorageError::corrupt)?;
        }
        let entry = reader.next().unwrap_or(Err(MalformedRecord)).map_err(StorageError::corrupt)?;
        self.next = sequence.next();
        self.offset = records.len() - reader.remaining();
        Ok(entry)
    }

    /// `sequence`, or the first one after the gap that contains it.
    pub(super) fn behind_gaps(&mut self, mut sequence: Sequence) -> Result<Sequence, StorageError> {
        loop {
            self.enter_segment_of(sequence)?;
            match self.segments.front() {
                Some(gap) if gap.is_gap() => sequence = gap.last().next(),
                _ => return Ok(sequence),
            }
        }
    }

    fn enter_segment_of(&mut self, sequence: Sequence) -> Result<(), StorageError> {
        if self.segments.front().is_some_and(|segment| segment.last() >= sequence) {
            return Ok(());
        }
        while self.segments.front().is_some_and(|segment| segment.last() < sequence) {
            self.segments.pop_front();
        }
        if self.segments.is_empty() {
            self.segments = self.log.read(sequence, self.ahead)?.into();
        }
        self.offset = 0;
        self.next = self.segments.front().map_or(Sequence::ZERO, Segment::first);
        Ok(())
    }
}

/// Calls `see` with every entry from `from` to `last`, both durable, until it returns `false`; returns whether it never
/// did. Blocks on disk reads.
pub(super) fn scan(
    log: &Arc<dyn StoreLog>,
    (from, last): (Sequence, Sequence),
    mut see: impl FnMut(Sequence, EntryRef<'_>) -> bool,
) -> Result<bool, StorageError> {
    let mut next = from;
    while next <= last {
        let segments = log.read(next, SCAN_BYTES)?;
        if segments.is_empty() {
            return Err(StorageError::corrupt(format_args!("there is no entry {next}")));
        }
        for (sequence, entry) in segments.iter().flat_map(Segment::iter) {
            if sequence >= next && sequence <= last && !see(sequence, entry) {
                return Ok(false);
            }
        }
        next = segments.last().map_or(next, |segment| segment.last().next());
    }
    Ok(true)
}

/// How much a scan reads at once.
const SCAN_BYTES: usize = 256 * 1_024;
