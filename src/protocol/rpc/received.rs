//! A feed as a client receives it: the values of a chunk, and the entries in their data.

use bytes::Bytes;

use super::call::{Part, sequence};
use super::fields::{Field, Fields, sized};
use super::frame::open;
use super::ids::{
    CHUNKED, DATA, ENTRY, EVENT, ID, PAYLOAD, PRIMARY_KEY, REMOTE_SEQUENCE, SINGLE, VARIANT,
};
use super::rows::{Column, Rows, bytes_column};
use super::window::{Malformed, Window, natural, text, whole_int};
use crate::model::{EntryId, EntryRef, Sequence};

/// The values of one [`Envelope::Chunk`](super::Envelope::Chunk).
#[derive(Clone, Copy, Debug)]
pub struct ChangesValues<'a> {
    window: Window<'a>,
    left: u64,
}

/// One value of a feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangesValue<'a> {
    /// Data for [`RemoteEntries`] to decode.
    Single(&'a [u8]),
    /// A part of such data.
    Chunked(Part<'a>),
}

impl<'a> ChangesValues<'a> {
    /// Begins to read the frame in a chunk.
    pub fn decode(values: &'a [u8]) -> Result<Self, Malformed> {
        let mut window = open(values)?;
        match window.count()? {
            0 => Err(Malformed::new("at least one value")),
            left => Ok(Self { window, left }),
        }
    }

    /// The next value; `None` after the last one.
    pub fn next_value(&mut self) -> Result<Option<ChangesValue<'a>>, Malformed> {
        if self.left == 0 {
            return self.window.end().map(|()| None);
        }
        self.left -= 1;
        let mut value = Window::new(self.window.sized()?);
        if value.byte()? != VARIANT {
            return Err(Malformed::new("a variant"));
        }
        match u32::from_le_bytes(value.array()?) {
            SINGLE => {
                let fields = Fields::read(value, &[sized(DATA)])?;
                Ok(Some(ChangesValue::Single(fields.sized(0)?)))
            }
            CHUNKED => Part::read(value).map(|part| Some(ChangesValue::Chunked(part))),
            _ => Err(Malformed::new("Single or Chunked")),
        }
    }
}

/// The entries in the data of a single value, or of all parts of a chunked one.
#[derive(Debug)]
pub struct RemoteEntries<'a>(Rows<'a, 2>);

const REMOTE_ENTRY: [Column; 2] = [bytes_column(REMOTE_SEQUENCE), bytes_column(ENTRY)];
const ENTRY_FIELDS: [Field; 4] = [sized(ID), sized(EVENT), sized(PRIMARY_KEY), sized(PAYLOAD)];

impl<'a> RemoteEntries<'a> {
    /// Begins to read `data`.
    pub fn decode(data: &'a [u8]) -> Result<Self, Malformed> {
        let rows = Rows::read(open(data)?, &REMOTE_ENTRY)?;
        if rows.left() == 0 {
            return Err(Malformed::new("at least one entry"));
        }
        Ok(Self(rows))
    }

    /// The next entry; `None` after the last one.
    pub fn next_entry(&mut self) -> Result<Option<(Sequence, EntryRef<'a>)>, Malformed> {
        let Some([at, entry]) = self.0.next_row()? else { return Ok(None) };
        let at = sequence(natural(whole_int(at.bytes())?)?)?;
        let fields = Fields::read(Window::new(entry.bytes()), &ENTRY_FIELDS)?;
        let id = EntryId::from_slice(fields.sized(0)?);
        let entry = EntryRef {
            id: id.ok_or(Malformed::new("an entry id of 16 bytes"))?,
            event: text(fields.sized(1)?)?,
            primary_key: text(fields.sized(2)?)?,
            payload: fields.sized(3)?,
        };
        Ok(Some((at, entry)))
    }
}

/// The entries in the data of a value, validated and still in the frame they arrived in. Cheap to clone; keeps the
/// frame alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceivedEntries {
    count: usize,
    last: Sequence,
    data: Bytes,
}

impl ReceivedEntries {
    /// Reads all of `data` once: checks that everything in it is an entry, and that sequences do not descend.
    pub fn decode(data: Bytes) -> Result<Self, Malformed> {
        let mut entries = RemoteEntries::decode(&data)?;
        let (mut count, mut last) = (0, Sequence::ZERO);
        while let Some((sequence, _)) = entries.next_entry()? {
            if sequence < last {
                return Err(Malformed::new("sequences that do not descend"));
            }
            last = sequence;
            count += 1;
        }
        Ok(Self { count, last, data })
    }

    /// Number of entries, at least one.
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Never: data has at least one entry.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The sequence of the last entry, the greatest of all.
    pub const fn last(&self) -> Sequence {
        self.last
    }

    /// Bytes that the entries take in the frame.
    pub const fn bytes(&self) -> usize {
        self.data.len()
    }

    /// The same entries in memory of their own, so that the frame is not kept alive.
    #[must_use]
    pub fn detached(&self) -> Self {
        Self { data: Bytes::copy_from_slice(&self.data), ..self.clone() }
    }

    /// The entries with their sequences.
    pub fn iter(&self) -> impl Iterator<Item = (Sequence, EntryRef<'_>)> {
        // Everything was read before, so nothing is malformed.
        let mut entries = RemoteEntries::decode(&self.data).ok();
        std::iter::from_fn(move || entries.as_mut()?.next_entry().ok()?)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{EncodedRemoteEntries, Envelope, FrameReader, RequestId, encode_changes};
    use super::*;

    /// The data of a message that a server sends with entries at these sequences.
    fn data(sequences: &[u64]) -> Bytes {
        let payload = super::super::frame::frame(&[]);
        let entry = |n: &u64| {
            let id = EntryId::from_bytes(u128::from(*n).to_be_bytes());
            let at = Sequence::new(*n).expect("a sequence");
            (at, EntryRef { id, event: "E", primary_key: "", payload: &payload })
        };
        let encoded = EncodedRemoteEntries::new(sequences.iter().map(entry));
        let runs = [encoded.run(Sequence::ZERO, Sequence::MAX)];
        let mut message = encode_changes(&RequestId::from_number(1), &runs, 0).remove(0);
        let body = FrameReader::new(usize::MAX).next_body(&mut message);
        let body = body.expect("a frame").expect("complete");
        let Ok(Envelope::Chunk { values, .. }) = Envelope::decode(&body) else { panic!("none") };
        match ChangesValues::decode(values).expect("values").next_value() {
            Ok(Some(ChangesValue::Single(data))) => body.slice_ref(data),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn entries_are_counted_and_can_be_read_again() {
        let received = ReceivedEntries::decode(data(&[3, 4, 4, 9])).expect("entries");
        assert_eq!((received.len(), received.last().get()), (4, 9));
        for received in [&received, &received.detached()] {
            let sequences = received.iter().map(|(sequence, _)| sequence.get());
            assert_eq!(sequences.collect::<Vec<_>>(), [3, 4, 4, 9]);
        }
    }

    #[test]
    fn entries_out_of_order_are_refused() {
        let swapped = {
            // The two sequences are the last bytes of their rows.
            let mut bytes = data(&[3, 4]).to_vec();
            let at: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] == 6).collect();
            bytes[*at.last().expect("the first sequence")] = 10;
            Bytes::from(bytes)
        };
        assert!(ReceivedEntries::decode(swapped).is_err());
    }

    proptest! {
        #[test]
        fn damaged_entries_are_refused_or_read_but_never_panic(at: usize, byte: u8) {
            let mut bytes = data(&[1, 2, 3]).to_vec();
            let at = at % bytes.len();
            bytes[at] = byte;
            if let Ok(received) = ReceivedEntries::decode(bytes.into()) {
                prop_assert_eq!(received.iter().count(), received.len());
            }
        }
    }
}
