//! Decides what happens to trimmed entries in the tree: bare ids, in as few segments as possible.
//!
//! Keeps: ids stay, with their sequences; a partially trimmed segment is split there, so that nothing else of the
//! trimmed part stays.

use super::layout::{Head, put, remove};
use super::portion::Portion;
use super::reader::{Found, Reader};
use crate::model::record::write_bare;
use crate::model::{EntryId, Origin, Segment, SegmentBuilder, Sequence};
use crate::storage::StorageError;
use crate::storage::sled::key::{Ordinal, SegmentKey, TimeKey};
use crate::storage::sled::trimmed::Trimmed;
use crate::storage::sled::value::body;
use crate::storage::sled::value::segment::Bare;

/// The trimmed part of one store, while it is turned into bare ids.
pub(crate) struct Sweep<'a, 'b> {
    reader: Reader<'a>,
    portion: &'b mut Portion<'a>,
    trimmed: Trimmed,
    /// Consecutive bare ids.
    bare: SegmentBuilder,
    record: Vec<u8>,
    ids: u64,
}

impl<'a, 'b> Sweep<'a, 'b> {
    /// For a store that is `trimmed` this far, with changes that go to `portion`.
    pub(crate) fn new(
        (portion, ordinal): (&'b mut Portion<'a>, Ordinal),
        trimmed: Trimmed,
    ) -> Self {
        let reader = Reader { tree: portion.tree(), ordinal };
        let bare = SegmentBuilder::new(trimmed.swept.next());
        Self { reader, portion, trimmed, bare, record: Vec::new(), ids: 0 }
    }

    /// Continues up to `to`, which is in the tree, or until the records that were read have `bytes_max` bytes. Returns
    /// how far the store is then, and how many more entries are now only ids.
    pub(crate) fn run(
        mut self,
        to: Sequence,
        bytes_max: u64,
    ) -> Result<(Trimmed, u64), StorageError> {
        let begun = self.trimmed.bytes;
        while self.trimmed.swept < to && self.trimmed.bytes - begun < bytes_max {
            let next = self.trimmed.swept.next();
            let found = self.reader.find(next)?.filter(|found| found.last() >= next);
            let missing = || StorageError::corrupt(format!("no segment has entry {next}"));
            let found = found.ok_or_else(missing)?;
            if found.is_gap() {
                self.flush();
                self.trimmed.swept = found.last().min(to);
                self.bare = SegmentBuilder::new(self.trimmed.swept.next());
            } else {
                self.entries(&found, to)?;
            }
        }
        self.flush();
        self.forget_times()?;
        Ok((self.trimmed, self.ids))
    }

    fn entries(&mut self, found: &Found, to: Sequence) -> Result<(), StorageError> {
        let next = self.trimmed.swept.next();
        let whole = self.reader.segment(next)?;
        if whole.first() != next {
            let first = whole.first();
            let finding = format!("entry {next} is in a segment from {first} on");
            return Err(StorageError::corrupt(finding));
        }
        let last = whole.last().min(to);
        whole.ids().take_while(|(at, _)| *at <= last).for_each(|(_, id)| self.push(id));
        remove(self.portion, self.reader.ordinal, found);
        let rest = whole.skipping(last.next().since(next) as usize);
        let rest_bytes = rest.as_ref().map_or(0, |rest| rest.records().len() as u64);
        self.trimmed.swept = last;
        self.trimmed.bytes = found.record.bytes_before + (found.record.bytes - rest_bytes);
        if let Some(rest) = rest {
            let bare = if rest.may_be_bare() { Bare::Some } else { Bare::No };
            self.put(&rest, rest_bytes, bare);
        }
        Ok(())
    }

    /// Nobody asks any more when the removed entries were committed.
    fn forget_times(&mut self) -> Result<(), StorageError> {
        let ordinal = self.reader.ordinal;
        for time in self.reader.times(Sequence::FIRST) {
            let (last, _) = time?;
            // The last one stays: what follows is compared with it.
            if last > self.trimmed.swept {
                break;
            }
            if self.reader.times(last.next()).next().is_some() {
                self.portion.remove(&TimeKey { ordinal, last }.to_bytes());
            }
        }
        Ok(())
    }

    fn push(&mut self, id: EntryId) {
        self.record.clear();
        write_bare(&mut self.record, id);
        // Who wrote it is removed as well.
        self.bare.push(&self.record, &Origin::Server { run_handlers: false });
        self.ids += 1;
    }

    /// Adds writing the ids since the last gap.
    fn flush(&mut self) {
        let next = self.bare.next();
        let bare = std::mem::replace(&mut self.bare, SegmentBuilder::new(next));
        for segment in bare.finish() {
            // Counted before it, so that the bytes of what follows do not change.
            self.put(&segment, 0, Bare::All);
        }
    }

    fn put(&mut self, segment: &Segment, bytes: u64, bare: Bare) {
        let key = SegmentKey { ordinal: self.reader.ordinal, first: segment.first() };
        let bytes_before = self.trimmed.bytes;
        let head = Head { count: segment.len() as u32, bytes_before, bytes, bare };
        put(self.portion, key, head, body::encode(std::slice::from_ref(segment)));
    }
}
