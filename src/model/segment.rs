//! A run of consecutive entries of one store, in one buffer; or a gap in its feed, which has no entries.

#[cfg(feature = "sled")]
mod bare;
mod erased;

use bytes::Bytes;
use smallvec::SmallVec;

use super::limits::SEGMENT_BYTES_TARGET;
use super::record::{MalformedRecord, RecordReader};
use super::{EntryId, EntryRef, Origin, Sequence};

/// Consecutive entries of one store: they are appended, kept, read and fanned out as one piece. Cheap to clone.
///
/// A [gap](Segment::gap) says that some sequences have no entry and never will. It is appended, kept and read like
/// entries, so segments follow each other without a hole whatever happened to a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    first: Sequence,
    count: u32,
    records: Bytes,
    origins: Origins,
    /// For entries: some of the records may be bare ids. For a gap: there were entries, which were erased.
    bare: bool,
}

/// Small segments nearly always have one run.
type Origins = SmallVec<[OriginRun; 1]>;

/// Consecutive entries with one origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginRun {
    /// How many entries, at least one.
    pub count: u32,
    /// Who wrote them.
    pub origin: Origin,
}

impl Segment {
    /// A segment from its parts; reads every record once.
    ///
    /// # Errors
    /// If there are no records, one is malformed or has names that are not UTF-8, or the origins do not cover exactly
    /// the entries.
    pub fn from_parts(
        first: Sequence,
        records: Bytes,
        origins: Vec<OriginRun>,
    ) -> Result<Self, MalformedRecord> {
        let (mut count, mut bare) = (0_u32, false);
        for record in RecordReader::new(&records) {
            bare |= record?.event.is_empty();
            count += 1;
        }
        let origin_count: u64 = origins.iter().map(|run| u64::from(run.count)).sum();
        if count == 0 || origin_count != u64::from(count) {
            return Err(MalformedRecord);
        }
        Ok(Self { first, count, records, origins: origins.into(), bare })
    }

    /// Says that the `count` sequences from `first` on have no entry. `None` if `count` is zero, or the gap goes beyond
    /// [`Sequence::MAX`].
    pub fn gap(first: Sequence, count: u32) -> Option<Self> {
        let last = first.get().checked_add(u64::from(count.checked_sub(1)?))?;
        Sequence::new(last).ok().filter(|_| first > Sequence::ZERO)?;
        Some(Self { first, count, records: Bytes::new(), origins: Origins::new(), bare: false })
    }

    /// Like [`Segment::gap`], from `first` to `last`, in as many segments as it takes; none if `last` is before
    /// `first`.
    pub fn gaps(first: Sequence, last: Sequence) -> Vec<Self> {
        let mut gaps: Vec<Self> = Vec::new();
        let mut next = first;
        while next <= last
            && let Some(gap) = Self::gap(next, last.next().since(next).min(u32::MAX.into()) as u32)
        {
            next = gap.last().next();
            gaps.push(gap);
        }
        gaps
    }

    /// Like [`Segment::from_parts`], for the records of an earlier segment whose count is known and whose bytes are
    /// covered by a checksum: does not read them.
    ///
    /// # Errors
    /// If `count` is zero, there are no records, or the origins do not cover exactly the entries.
    #[cfg(feature = "sled")]
    pub(crate) fn from_counted_parts(
        first: Sequence,
        count: u32,
        records: Bytes,
        origins: Vec<OriginRun>,
    ) -> Result<Self, MalformedRecord> {
        let origin_count: u64 = origins.iter().map(|run| u64::from(run.count)).sum();
        if count == 0 || records.is_empty() || origin_count != u64::from(count) {
            return Err(MalformedRecord);
        }
        Ok(Self { first, count, records, origins: origins.into(), bare: false })
    }

    /// Joins segments that follow each other; `None` if there are none. No gap may be among them, unless it is the only
    /// one.
    pub fn joined(pieces: &[Self]) -> Option<Self> {
        let [head, rest @ ..] = pieces else { return None };
        if rest.is_empty() {
            return Some(head.clone());
        }
        let bytes = pieces.iter().map(|piece| piece.records.len()).sum();
        let mut records = Vec::with_capacity(bytes);
        let mut origins = Origins::new();
        for piece in pieces {
            records.extend_from_slice(&piece.records);
            for run in &piece.origins {
                match origins.last_mut() {
                    Some(last) if last.origin == run.origin => last.count += run.count,
                    _ => origins.push(run.clone()),
                }
            }
        }
        let count = pieces.iter().map(|piece| piece.count).sum();
        let bare = pieces.iter().any(|piece| piece.bare);
        Some(Self { first: head.first, count, records: records.into(), origins, bare })
    }

    /// The first `count` sequences, or all if there are fewer. `None` for zero, and if that many entries cannot be
    /// read.
    pub fn truncated(&self, count: usize) -> Option<Self> {
        if count == 0 {
            return None;
        }
        if count as u64 >= self.span() {
            return Some(self.clone());
        }
        if self.is_gap() {
            return Some(Self { count: count as u32, ..self.clone() });
        }
        let mut reader = RecordReader::new(&self.records);
        (0..count).try_for_each(|_| reader.skip_one().map(drop)).ok()?;
        let records = self.records.slice(..self.records.len() - reader.remaining());
        let mut left = count as u32;
        let mut origins = Origins::new();
        for run in &self.origins {
            if left == 0 {
                break;
            }
            let count = run.count.min(left);
            origins.push(OriginRun { count, origin: run.origin.clone() });
            left -= count;
        }
        Some(Self { first: self.first, count: count as u32, records, origins, bare: self.bare })
    }

    /// Everything after the first `count` sequences; `None` if nothing is left, or that many entries cannot be read.
    pub(crate) fn skipping(&self, count: usize) -> Option<Self> {
        if count as u64 >= self.span() {
            return None;
        }
        if self.is_gap() {
            let first = self.first.plus(count as u64);
            return Some(Self { first, count: self.count - count as u32, ..self.clone() });
        }
        let mut reader = RecordReader::new(&self.records);
        (0..count).try_for_each(|_| reader.skip_one().map(drop)).ok()?;
        let records = self.records.slice(self.records.len() - reader.remaining()..);
        let mut skipped = count as u32;
        let mut origins = Origins::new();
        for run in &self.origins {
            let left = run.count.saturating_sub(skipped);
            skipped -= run.count - left;
            if left > 0 {
                origins.push(OriginRun { count: left, origin: run.origin.clone() });
            }
        }
        let first = self.first.plus(count as u64);
        let count = self.count - count as u32;
        Some(Self { first, count, records, origins, bare: self.bare })
    }

    /// The sequence of its first entry; for a gap, the first empty one.
    pub const fn first(&self) -> Sequence {
        self.first
    }

    /// The sequence of its last entry; for a gap, the last empty one.
    pub const fn last(&self) -> Sequence {
        self.first.plus(self.count as u64 - 1)
    }

    /// Number of entries, at least one; zero for a gap.
    pub const fn len(&self) -> usize {
        if self.is_gap() { 0 } else { self.count as usize }
    }

    /// Whether it has no entries, like [`Segment::is_gap`].
    pub const fn is_empty(&self) -> bool {
        self.is_gap()
    }

    /// Whether its sequences have no entries.
    pub const fn is_gap(&self) -> bool {
        // The shortest record has 19 bytes.
        self.records.is_empty()
    }

    /// Number of sequences, at least one.
    pub const fn span(&self) -> u64 {
        self.count as u64
    }

    /// The records, one after the other.
    pub const fn records(&self) -> &Bytes {
        &self.records
    }

    /// Who wrote its entries, in order.
    pub fn origins(&self) -> &[OriginRun] {
        &self.origins
    }

    /// Its entries with their sequences, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Sequence, EntryRef<'_>)> {
        let sequences = (0..).map(|n| self.first.plus(n));
        // Records are read when a segment is made, or were read when they were stored, so all of them can be read.
        let told = |_: &MalformedRecord| self.ends_early();
        sequences.zip(
            RecordReader::new(&self.records).map_while(move |entry| entry.inspect_err(told).ok()),
        )
    }

    #[cold]
    fn ends_early(&self) {
        log::error!(
            "the segment from sequence {} on holds what is no entry, and ends there",
            self.first
        );
    }

    /// Its ids with their sequences, in order; cheaper than [`Segment::iter`].
    pub fn ids(&self) -> impl Iterator<Item = (Sequence, EntryId)> {
        let mut reader = RecordReader::new(&self.records);
        let sequences = (0..self.len() as u64).map(|n| self.first.plus(n));
        sequences.map_while(move |sequence| reader.skip_one().ok().map(|id| (sequence, id)))
    }

    /// The origin of each entry, in order.
    pub fn origin_of_each(&self) -> impl Iterator<Item = &Origin> {
        self.origins.iter().flat_map(|run| std::iter::repeat_n(&run.origin, run.count as usize))
    }
}

/// Collects records into segments of at most some tens of KiB; a larger record becomes a segment of its own.
#[derive(Debug)]
pub struct SegmentBuilder {
    next: Sequence,
    done: Vec<Segment>,
    records: Vec<u8>,
    count: u32,
    origins: Origins,
    /// How many bytes are still expected.
    expected: usize,
}

impl SegmentBuilder {
    /// Starts at `first`.
    pub const fn new(first: Sequence) -> Self {
        Self::expecting(first, 0)
    }

    /// Starts at `first`, and most likely gets this many bytes of records.
    pub(crate) const fn expecting(first: Sequence, bytes: usize) -> Self {
        let origins = Origins::new_const();
        let records = Vec::new();
        Self { next: first, done: Vec::new(), records, count: 0, origins, expected: bytes }
    }

    /// Appends one record, as [`Batch::record`](super::Batch::record) gives it, and returns its sequence.
    pub fn push(&mut self, record: &[u8], origin: &Origin) -> Sequence {
        if self.count > 0 && self.records.len() + record.len() > SEGMENT_BYTES_TARGET {
            self.close();
        }
        if self.count == 0 {
            // Otherwise it grows several times, and is copied each time.
            self.records.reserve_exact(self.expected.min(SEGMENT_BYTES_TARGET));
        }
        self.expected = self.expected.saturating_sub(record.len());
        self.records.extend_from_slice(record);
        self.count += 1;
        match self.origins.last_mut() {
            Some(run) if run.origin == *origin => run.count += 1,
            _ => self.origins.push(OriginRun { count: 1, origin: origin.clone() }),
        }
        let sequence = self.next;
        self.next = sequence.next();
        sequence
    }

    /// The sequence that the next record gets.
    pub const fn next(&self) -> Sequence {
        self.next
    }

    /// Whether nothing was pushed.
    pub fn is_empty(&self) -> bool {
        self.count == 0 && self.done.is_empty()
    }

    /// The segments, in order.
    pub fn finish(mut self) -> Vec<Segment> {
        if self.count > 0 {
            self.close();
        }
        self.done
    }

    fn close(&mut self) {
        let first = Sequence::new(self.next.get() - u64::from(self.count)).unwrap_or(Sequence::MAX);
        if self.done.is_empty() {
            // Often there is only one, and a vector starts with capacity for four.
            self.done.reserve_exact(1);
        }
        if self.records.capacity() / 2 > self.records.len() {
            self.records.shrink_to_fit();
        }
        self.done.push(Segment {
            first,
            count: std::mem::take(&mut self.count),
            records: std::mem::take(&mut self.records).into(),
            origins: std::mem::take(&mut self.origins),
            bare: false,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Batch;

    fn batch(count: usize, payload: usize) -> Batch {
        let payload = vec![1; payload];
        let ids: Vec<EntryId> = (0..count).map(|_| EntryId::now()).collect();
        Batch::from_entries(ids.iter().map(|id| EntryRef {
            id: *id,
            event: "E",
            primary_key: "k",
            payload: &payload,
        }))
    }

    #[test]
    fn segments_are_consecutive_and_bounded() {
        let batch = batch(1_000, 100);
        let origin = Origin::Server { run_handlers: true };
        let mut builder = SegmentBuilder::new(Sequence::FIRST);
        for slot in 0..batch.len() {
            builder.push(batch.record(slot).expect("a slot"), &origin);
        }
        let segments = builder.finish();
        let mut next = Sequence::FIRST;
        for segment in &segments {
            assert_eq!(segment.first(), next);
            assert!(segment.records().len() <= SEGMENT_BYTES_TARGET);
            next = segment.last().next();
        }
        assert_eq!(next.get(), 1_001);
        let ids = segments.iter().flat_map(Segment::ids).map(|(_, id)| id);
        assert!(ids.eq(batch.ids()));
        let entries = segments.iter().flat_map(Segment::iter).map(|(_, entry)| entry);
        assert!(entries.eq(batch.iter()));
    }

    #[test]
    fn an_entry_above_the_target_stands_alone() {
        let (large, small) = (batch(1, 100_000), batch(1, 1));
        let origin = Origin::Server { run_handlers: false };
        let mut builder = SegmentBuilder::new(Sequence::FIRST);
        for batch in [&small, &large, &small] {
            builder.push(batch.record(0).expect("a slot"), &origin);
        }
        assert_eq!(builder.finish().iter().map(Segment::len).collect::<Vec<_>>(), [1, 1, 1]);
    }

    #[test]
    fn origins_are_kept_in_runs() {
        let batch = batch(3, 1);
        let key = crate::model::PublicKey::new("alice").expect("a key");
        let origins = [
            Origin::Client(key.clone()),
            Origin::Client(key),
            Origin::Server { run_handlers: false },
        ];
        let mut builder = SegmentBuilder::new(Sequence::FIRST);
        for (slot, origin) in origins.iter().enumerate() {
            builder.push(batch.record(slot).expect("a slot"), origin);
        }
        let segments = builder.finish();
        assert_eq!(segments[0].origins().len(), 2);
        assert!(segments[0].origin_of_each().eq(&origins));
        let parts = Segment::from_parts(
            Sequence::FIRST,
            segments[0].records().clone(),
            segments[0].origins().to_vec(),
        );
        assert_eq!(parts.as_ref(), Ok(&segments[0]));
    }

    #[test]
    fn what_is_no_segment_is_refused() {
        let entry = EntryRef { id: EntryId::now(), event: "E", primary_key: "k", payload: b"" };
        let mut record = Vec::new();
        crate::model::write_record(&mut record, &entry);
        let made = |records: &[u8], count| {
            let run = OriginRun { count, origin: Origin::Server { run_handlers: false } };
            let records = Bytes::copy_from_slice(records);
            Segment::from_parts(Sequence::FIRST, records, vec![run]).map(|made| made.iter().count())
        };
        assert_eq!(made(&record, 1), Ok(1));
        assert_eq!(made(&record, 2), Err(MalformedRecord));
        assert_eq!(made(&[], 0), Err(MalformedRecord));
        assert_eq!(made(&record[1..], 1), Err(MalformedRecord));
        // The event's only letter, after the id and a length.
        record[EntryId::LEN + 1] = 0xff;
        assert_eq!(made(&record, 1), Err(MalformedRecord), "no UTF-8");
    }

    #[test]
    fn joined_segments_have_the_entries_of_all_in_order() {
        let batch = batch(6, 3);
        let mut builder = SegmentBuilder::new(Sequence::FIRST);
        for slot in 0..batch.len() {
            let origin = Origin::Server { run_handlers: !(2..5).contains(&slot) };
            builder.push(batch.record(slot).expect("a slot"), &origin);
        }
        let whole = builder.finish().remove(0);
        assert_eq!(Segment::joined(&[]), None);
        for cut in 1..6 {
            let first = whole.truncated(cut).expect("entries");
            let mut builder = SegmentBuilder::new(first.last().next());
            for (slot, origin) in (0..).zip(whole.origin_of_each()).skip(cut) {
                builder.push(batch.record(slot).expect("a slot"), origin);
            }
            assert_eq!(Segment::joined(&[first, builder.finish().remove(0)]), Some(whole.clone()));
        }
    }

    #[test]
    fn a_truncated_segment_has_the_first_entries_and_their_origins() {
        let batch = batch(5, 3);
        let mut builder = SegmentBuilder::new(Sequence::FIRST);
        for slot in 0..batch.len() {
            let origin = Origin::Server { run_handlers: slot < 2 };
            builder.push(batch.record(slot).expect("a slot"), &origin);
        }
        let whole = builder.finish().remove(0);
        assert_eq!(whole.truncated(0), None);
        for count in 1..7 {
            let cut = whole.truncated(count).expect("entries");
            assert!(cut.iter().eq(whole.iter().take(count)));
            assert!(cut.origin_of_each().eq(whole.origin_of_each().take(count)));
            assert_eq!(cut.len(), count.min(5));
            let parts = (cut.first(), cut.records().clone(), cut.origins().to_vec());
            assert_eq!(Segment::from_parts(parts.0, parts.1, parts.2), Ok(cut));
        }
    }

    #[cfg(feature = "sled")]
    #[test]
    fn what_is_cut_off_and_what_is_left_are_the_whole() {
        let batch = batch(6, 3);
        let mut builder = SegmentBuilder::new(Sequence::FIRST);
        for slot in 0..batch.len() {
            let origin = Origin::Server { run_handlers: slot < 2 };
            builder.push(batch.record(slot).expect("a slot"), &origin);
        }
        let whole = builder.finish().remove(0);
        assert_eq!((whole.skipping(0).as_ref(), whole.skipping(6)), (Some(&whole), None));
        for count in 1..6 {
            let both = [whole.truncated(count), whole.skipping(count)].map(|it| it.expect("some"));
            assert_eq!(Segment::joined(&both), Some(whole.clone()));
        }
    }
}
