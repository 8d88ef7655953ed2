//! A feed as a client receives it: the values of a chunk, and the entries in their data.

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

    /// The next value; `None` behind the last one.
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

    /// The next entry; `None` behind the last one.
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
