//! The strings of a column of a large write, to which rows refer by number.
//!
//! Keeps: a few KiB of memory, however many there are; the rest is recorded in a table.

use super::cursor::{Cursor, Span};
use super::{LargeError, Source, Table};
use crate::protocol::rpc::window::Malformed;

/// The most recently used texts: there are few different events, and rows refer to them all the time.
const KNOWN_MAX: usize = 64;
const KNOWN_BYTES_MAX: u64 = 1_024;

/// A text of a row: where it is, and its number if the row refers to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct TextAt {
    pub(super) span: Span,
    number: Option<u64>,
}

struct Known {
    number: u64,
    span: Span,
    text: Option<Box<[u8]>>,
}

/// See the module's description.
pub(super) struct Texts {
    /// Where the length of each is.
    table: Box<dyn Table>,
    known: [Option<Known>; KNOWN_MAX],
}

impl Texts {
    pub(super) fn new(source: &dyn Source) -> Result<Self, LargeError> {
        Ok(Self { table: source.table()?, known: [const { None }; KNOWN_MAX] })
    }

    /// A row has the text at `span`, with its length at `at`.
    pub(super) fn add(&mut self, at: u64, span: Span) -> Result<TextAt, LargeError> {
        self.table.push(at)?;
        Ok(TextAt { span, number: None })
    }

    /// A row refers to text `number` of the earlier ones.
    pub(super) fn again(&mut self, number: u64, cursor: &mut Cursor) -> Result<TextAt, LargeError> {
        let place = &mut self.known[number as usize % KNOWN_MAX];
        if let Some(known) = place.as_ref().filter(|known| known.number == number) {
            return Ok(TextAt { span: known.span, number: Some(number) });
        }
        let at = self.table.get(number)?;
        let at = at.ok_or(Malformed::new("a string that was there before"))?;
        let span = cursor.cell_at(at)?;
        *place = Some(Known { number, span, text: None });
        Ok(TextAt { span, number: Some(number) })
    }

    /// Reads a text into `into`, which is cleared first.
    pub(super) fn load(
        &mut self,
        text: TextAt,
        cursor: &Cursor,
        into: &mut Vec<u8>,
    ) -> Result<(), LargeError> {
        into.clear();
        let place = text.number.and_then(|number| {
            let known = self.known[number as usize % KNOWN_MAX].as_mut()?;
            (known.number == number).then_some(known)
        });
        if let Some(Known { text: Some(text), .. }) = &place {
            into.extend_from_slice(text);
            return Ok(());
        }
        // A text that is loaded was checked to be no longer than an entry may be.
        into.resize(text.span.len as usize, 0);
        cursor.read(text.span, into)?;
        if let Some(known) = place.filter(|_| text.span.len <= KNOWN_BYTES_MAX) {
            known.text = Some(into.as_slice().into());
        }
        Ok(())
    }
}
