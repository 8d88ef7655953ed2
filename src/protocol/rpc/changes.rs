//! A feed on its way to a client.
//!
//! Entries are encoded once, for all subscribers; a message is then a few bytes, a copy of the rows that it needs, and
//! the subscriber's request id. Keeps: an entry whose payload is not one complete frame is never sent, because it would
//! stop every client that knows its event. Leaves out: what goes into one message, and when it is sent.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::call::Part;
use super::envelope::{RequestId, begin_chunk, chunk_len, end_chunk};
use super::fields::{begin_sized_field, sized_field_len, write_int_field, write_sized_field};
use super::frame::{begin_frame, frame_len, payload_is_complete_frame};
use super::ids::{
    CHUNKED, DATA, ENTRY, EVENT, ID, PAYLOAD, PRIMARY_KEY, REMOTE_SEQUENCE, SINGLE, VARIANT,
};
use super::rows::{FIRST_SHAPE, begin_cell, cell_len};
use super::varint::{natural_len, sized_len, uvarint_len, write_natural, write_uvarint};
use crate::model::limits::CHUNK_BYTES;
use crate::model::{EntryId, EntryRef, Segment, Sequence};
use crate::protocol::chunk;

/// By how many bytes a row is longer than the record of its entry: tags of the four fields (18), lengths of the row and
/// of the entry, the sequence.
const ROW_RECORD_GAIN_BYTES: usize = 32;

/// Entries of a feed, encoded for messages. Cheap to clone.
#[derive(Clone, Debug)]
pub struct EncodedRemoteEntries {
    /// One row after the other, each as if another row had declared its shape.
    rows: Bytes,
    index: Arc<[Row]>,
    withheld: usize,
}

#[derive(Clone, Copy, Debug)]
struct Row {
    sequence: Sequence,
    /// Where the row's two values begin in `rows`, after its length and the number of its shape.
    values: usize,
    /// Where it ends.
    end: usize,
}

impl EncodedRemoteEntries {
    /// Encodes the entries of a segment.
    pub fn from_segment(segment: &Segment) -> Self {
        Self::sized(segment.iter(), segment.len(), segment.records().len())
    }

    /// Encodes entries that do not come from a segment; they come in the order of their sequences.
    pub fn new<'a>(entries: impl IntoIterator<Item = (Sequence, EntryRef<'a>)>) -> Self {
        Self::sized(entries, 0, 0)
    }

    /// The same for entries whose size is known, such as the result of compaction: there are `count`, and they take
    /// `record_bytes` as records. These numbers are only used to reserve space, and do not have to be exact.
    pub fn sized<'a>(
        entries: impl IntoIterator<Item = (Sequence, EntryRef<'a>)>,
        count: usize,
        record_bytes: usize,
    ) -> Self {
        let bytes = record_bytes + count * ROW_RECORD_GAIN_BYTES;
        let mut withheld = 0;
        let readable = entries.into_iter().filter(|(_, entry)| {
            let is_readable = payload_is_complete_frame(entry.payload);
            withheld += usize::from(!is_readable);
            is_readable
        });
        let encoded = Self::encode(readable, bytes);
        Self { withheld, ..encoded }
    }

    /// `bytes` says how much space to reserve.
    pub(super) fn encode<'a>(
        entries: impl Iterator<Item = (Sequence, EntryRef<'a>)>,
        bytes: usize,
    ) -> Self {
        let (mut rows, mut index) = (Vec::with_capacity(bytes), Vec::new());
        for (sequence, entry) in entries {
            index.push(write_row(&mut rows, sequence, &entry));
        }
        Self { rows: rows.into(), index: index.into(), withheld: 0 }
    }

    /// How many entries there are to send.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// How many entries were left out because their payload is not one complete frame.
    pub const fn withheld(&self) -> usize {
        self.withheld
    }

    /// The entries from sequence `first` to `last`.
    pub fn run(&self, first: Sequence, last: Sequence) -> Run<'_> {
        let start = self.index.partition_point(|row| row.sequence < first);
        let end = self.index.partition_point(|row| row.sequence <= last);
        Run { entries: self, positions: start..end.max(start) }
    }

    /// Where the row at `position` begins, or the last one ends.
    fn offset(&self, position: usize) -> usize {
        match position {
            0 => 0,
            _ => self.index[position - 1].end,
        }
    }
}

/// Consecutive encoded entries.
#[derive(Clone, Debug)]
pub struct Run<'a> {
    entries: &'a EncodedRemoteEntries,
    positions: Range<usize>,
}

impl<'a> Run<'a> {
    /// How many entries.
    pub fn len(&self) -> usize {
        self.positions.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }

    /// How many bytes they take in a message.
    pub fn bytes(&self) -> usize {
        self.rows(self.positions.clone()).len()
    }

    fn rows(&self, positions: Range<usize>) -> &'a [u8] {
        &self.entries.rows[self.entries.offset(positions.start)..self.entries.offset(positions.end)]
    }

    /// The first entry, and the rows of the others.
    fn split_first(&self) -> Option<(FirstRow<'a>, &'a [u8])> {
        let Range { start, end } = self.positions;
        let row = self.entries.index[..end].get(start)?;
        let sequence = row.sequence.get();
        let sequence_at = row.end - cell_len(natural_len(sequence));
        let rows = &self.entries.rows;
        let (entry, sequence) = (&rows[row.values..sequence_at], &rows[sequence_at..row.end]);
        Some((FirstRow { entry, sequence }, self.rows(start + 1..end)))
    }
}

/// The two values of a row that has to declare its shape, each with its length.
#[derive(Clone, Copy, Debug)]
struct FirstRow<'a> {
    entry: &'a [u8],
    sequence: &'a [u8],
}

impl FirstRow<'_> {
    const IDS_LEN: usize = uvarint_len(ENTRY as u64) + uvarint_len(REMOTE_SEQUENCE as u64);

    const fn body_len(&self) -> usize {
        1 + Self::IDS_LEN + self.entry.len() + self.sequence.len()
    }

    fn write(&self, out: &mut Vec<u8>) {
        write_uvarint(out, self.body_len() as u64);
        out.push(0);
        write_uvarint(out, u64::from(ENTRY));
        out.extend_from_slice(self.entry);
        write_uvarint(out, u64::from(REMOTE_SEQUENCE));
        out.extend_from_slice(self.sequence);
    }
}

/// Appends an entry as a row of the shape (entry, sequence).
fn write_row(rows: &mut Vec<u8>, sequence: Sequence, entry: &EntryRef<'_>) -> Row {
    let number = sequence.get();
    let entry_len = sized_field_len(PAYLOAD, entry.payload.len())
        + sized_field_len(ID, EntryId::LEN)
        + sized_field_len(PRIMARY_KEY, entry.primary_key.len())
        + sized_field_len(EVENT, entry.event.len());
    write_uvarint(rows, (1 + cell_len(entry_len) + cell_len(natural_len(number))) as u64);
    rows.push(FIRST_SHAPE);
    let values = rows.len();
    begin_cell(rows, entry_len);
    write_sized_field(rows, PAYLOAD, entry.payload);
    write_sized_field(rows, ID, entry.id.as_bytes());
    write_sized_field(rows, PRIMARY_KEY, entry.primary_key.as_bytes());
    write_sized_field(rows, EVENT, entry.event.as_bytes());
    begin_cell(rows, natural_len(number));
    write_natural(rows, number);
    Row { sequence, values, end: rows.len() }
}

/// The messages that deliver these entries, in this order, to the subscription with request `id`: none for no entries,
/// one if they take at most 512,000 bytes, otherwise one for each part of that size.
///
/// The client acknowledges each message. `parts_id` identifies the parts; no two calls for one subscription may use the
/// same one.
pub fn encode_changes(id: &RequestId, runs: &[Run<'_>], parts_id: u32) -> Vec<Bytes> {
    let Some(array) = Array::of(runs) else { return Vec::new() };
    let data_len = frame_len(array.len);
    if data_len <= CHUNK_BYTES {
        return vec![single_message(id, data_len, |out| array.write(out))];
    }
    let data = array.to_data();
    let parts = chunk::split(data.len());
    let total = parts.len() as u64;
    let part = |(index, range)| Part { id: parts_id.into(), index, total, data: &data[range] };
    (0..).zip(parts).map(|part_at| part_message(id, &part(part_at))).collect()
}

/// The data that delivers these entries; `None` for no entries.
#[cfg(test)]
pub(super) fn encode_data(runs: &[Run<'_>]) -> Option<Vec<u8>> {
    Array::of(runs).map(|array| array.to_data())
}

/// A message with all its data in one value.
pub(super) fn single_message(
    id: &RequestId,
    data_len: usize,
    write_data: impl FnOnce(&mut Vec<u8>),
) -> Bytes {
    message(id, SINGLE, &[], data_len, write_data)
}

/// A message with a part of some data.
pub(super) fn part_message(id: &RequestId, part: &Part<'_>) -> Bytes {
    let mut place = Vec::with_capacity(32);
    write_int_field(&mut place, ID, part.id);
    part.write_place(&mut place);
    message(id, CHUNKED, &place, part.data.len(), |out| out.extend_from_slice(part.data))
}

/// A message with one value: the variant `variant`, whose fields are `head` and `data_len` bytes of data.
fn message(
    id: &RequestId,
    variant: u32,
    head: &[u8],
    data_len: usize,
    write_data: impl FnOnce(&mut Vec<u8>),
) -> Bytes {
    let value_len = 1 + size_of_val(&variant) + head.len() + sized_field_len(DATA, data_len);
    let array_len = 1 + sized_len(value_len);
    let frame_len = frame_len(array_len);
    let mut out = Vec::with_capacity(chunk_len(id, frame_len));
    begin_chunk(&mut out, id, frame_len);
    begin_frame(&mut out, array_len);
    out.push(1);
    write_uvarint(&mut out, value_len as u64);
    out.push(VARIANT);
    out.extend_from_slice(&variant.to_le_bytes());
    out.extend_from_slice(head);
    begin_sized_field(&mut out, DATA, data_len);
    write_data(&mut out);
    end_chunk(&mut out, id);
    debug_assert_eq!(out.len(), chunk_len(id, frame_len));
    out.into()
}

/// All rows of a message, measured.
struct Array<'a> {
    count: usize,
    first: FirstRow<'a>,
    /// The rows after the first, of each run.
    others: Vec<&'a [u8]>,
    len: usize,
}

impl<'a> Array<'a> {
    /// `None` if there are no rows.
    fn of(runs: &[Run<'a>]) -> Option<Self> {
        let mut runs = runs.iter().filter(|run| !run.is_empty());
        let head = runs.next()?;
        let (first, rest) = head.split_first()?;
        let (mut count, mut others) = (head.len(), vec![rest]);
        for run in runs {
            count += run.len();
            others.push(run.rows(run.positions.clone()));
        }
        let others_len: usize = others.iter().map(|rows| rows.len()).sum();
        let len = uvarint_len(count as u64) + sized_len(first.body_len()) + others_len;
        Some(Self { count, first, others, len })
    }

    fn to_data(&self) -> Vec<u8> {
        let mut data = Vec::with_capacity(frame_len(self.len));
        self.write(&mut data);
        data
    }

    /// Appends the frame.
    fn write(&self, out: &mut Vec<u8>) {
        begin_frame(out, self.len);
        write_uvarint(out, self.count as u64);
        self.first.write(out);
        self.others.iter().for_each(|rows| out.extend_from_slice(rows));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::frame::FrameReader;
    use super::super::{ChangesValue, ChangesValues, Envelope, RemoteEntries};
    use super::*;

    fn at(sequence: u64) -> Sequence {
        Sequence::new(sequence).expect("a sequence")
    }

    fn entry(number: u64, payload: &[u8]) -> EntryRef<'_> {
        let mut id = [0; 16];
        id[8..].copy_from_slice(&number.to_be_bytes());
        EntryRef { id: EntryId::from_bytes(id), event: "Event", primary_key: "key", payload }
    }

    /// A payload that is a frame of `len` bytes of value.
    fn payload(len: usize) -> Vec<u8> {
        super::super::frame::frame(&vec![7; len])
    }

    /// The sequences that a client gets from these messages, and the lengths of their payloads.
    fn received(id: &RequestId, messages: &[Bytes]) -> Vec<(u64, usize)> {
        let mut joined = Vec::new();
        let mut data = Vec::new();
        for message in messages {
            let mut reader = FrameReader::new(usize::MAX);
            let mut message = message.clone();
            let body = reader.next_body(&mut message).expect("a frame").expect("complete");
            assert!(message.is_empty());
            let Ok(Envelope::Chunk { id: to, values }) = Envelope::decode(&body) else {
                panic!("no chunk")
            };
            assert_eq!(to, id.as_ref());
            let mut values = ChangesValues::decode(values).expect("values");
            match values.next_value().expect("a value").expect("one") {
                ChangesValue::Single(single) => data.push(single.to_vec()),
                ChangesValue::Chunked(part) => {
                    assert!(part.data.len() <= CHUNK_BYTES);
                    joined.extend_from_slice(part.data);
                    if part.index + 1 == part.total {
                        data.push(std::mem::take(&mut joined));
                    }
                }
            }
            assert_eq!(values.next_value(), Ok(None));
        }
        let mut found = Vec::new();
        for data in data {
            let mut entries = RemoteEntries::decode(&data).expect("entries");
            while let Some((sequence, entry)) = entries.next_entry().expect("an entry") {
                assert_eq!(entry, super::tests::entry(sequence.get(), entry.payload));
                found.push((sequence.get(), entry.payload.len()));
            }
        }
        found
    }

    #[test]
    fn nothing_to_send_is_no_message() {
        let none = EncodedRemoteEntries::new([]);
        let id = RequestId::from_number(1);
        assert!(encode_changes(&id, &[], 0).is_empty());
        assert!(encode_changes(&id, &[none.run(Sequence::ZERO, Sequence::MAX)], 0).is_empty());
    }

    #[test]
    fn entries_that_would_stop_a_client_are_withheld() {
        let good = payload(3);
        let entries = [(at(1), entry(1, &good)), (at(2), entry(2, b"x")), (at(3), entry(3, &good))];
        let encoded = EncodedRemoteEntries::new(entries);
        assert_eq!((encoded.len(), encoded.withheld()), (2, 1));
        let id = RequestId::from_number(1);
        let messages = encode_changes(&id, &[encoded.run(at(1), at(3))], 0);
        assert_eq!(received(&id, &messages), [(1, 5), (3, 5)]);
        assert!(encode_changes(&id, &[encoded.run(at(2), at(2))], 0).is_empty());
    }

    #[test]
    fn a_large_array_travels_in_parts() {
        let payload = payload(400_000);
        let entries = (1..=4).map(|n| (at(n), entry(n, &payload)));
        let encoded = EncodedRemoteEntries::new(entries);
        let id = RequestId::from_number(70_000);
        let messages = encode_changes(&id, &[encoded.run(at(1), at(4))], 3);
        assert_eq!(messages.len(), 4);
        assert!(messages.iter().all(|message| message.len() <= CHUNK_BYTES + 64));
        let expected: Vec<_> = (1..=4).map(|n| (n, payload.len())).collect();
        assert_eq!(received(&id, &messages), expected);
    }

    proptest! {
        #[test]
        fn any_runs_are_received_as_they_were_sent(
            lens in proptest::collection::vec(0..300_usize, 1..40),
            first in prop_oneof![1..500_u64, 1..1_u64 << 52],
            cuts in proptest::collection::vec((any::<u8>(), any::<u8>()), 0..4),
        ) {
            let payloads: Vec<_> = lens.iter().map(|len| payload(*len)).collect();
            let all = || (first..).zip(&payloads);
            let encoded = EncodedRemoteEntries::new(all().map(|(n, p)| (at(n), entry(n, p))));
            let bounds = |(from, count): &(u8, u8)| {
                let from = first + u64::from(*from) % lens.len() as u64;
                from..=from + u64::from(*count) % 8
            };
            let ranges: Vec<_> = cuts.iter().map(bounds).collect();
            let runs: Vec<_> =
                ranges.iter().map(|range| encoded.run(at(*range.start()), at(*range.end()))).collect();
            let id = RequestId::from_number(9);
            let expected: Vec<_> = ranges
                .iter()
                .flat_map(|range| all().filter(|(n, _)| range.contains(n)))
                .map(|(n, payload)| (n, payload.len()))
                .collect();
            prop_assert_eq!(runs.iter().map(Run::len).sum::<usize>(), expected.len());
            prop_assert_eq!(received(&id, &encode_changes(&id, &runs, 0)), expected);
        }
    }
}
