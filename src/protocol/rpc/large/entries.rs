//! The entries of a large write, one piece after another.

use std::sync::Arc;

use super::cursor::{Cursor, Span};
use super::texts::{TextAt, Texts};
use super::{LargeEntry, LargeError, Source};
use crate::model::varint::uvarint_len;
use crate::model::{Batch, EntryId, EntryRef, Limits};
use crate::protocol::rpc::fields::{FEWER_FIELDS, FIELDS_MAX, SeenIds};
use crate::protocol::rpc::frame::payload_is_complete_frame;
use crate::protocol::rpc::ids::{EVENT, ID, PAYLOAD, PRIMARY_KEY};
use crate::protocol::rpc::rows::Shapes;
use crate::protocol::rpc::window::{Malformed, text};
use crate::protocol::rpc::write::{BatchFault, EXPANSION_MAX};

/// Most entries and bytes of records in a piece, but at least one entry: small enough that others get their turn
/// between two pieces.
const PIECE_ENTRIES_MAX: usize = 10_000;
const PIECE_BYTES_MAX: usize = 1_024 * 1_024;

/// Consecutive entries of a large write.
#[derive(Clone, Debug)]
pub struct EntriesPiece {
    /// The entries.
    pub batch: Batch,
    /// Set if this piece is one entry that is too large. Then `batch` has it without its payload, so that its
    /// permission can be checked: texts longer than `message_bytes_max` are cut off.
    pub too_large: Option<LargeEntry>,
    /// Bytes of the records of all entries of the write so far, including these, written out.
    pub bytes_so_far: u64,
    /// Whether no entry comes after them.
    pub is_last: bool,
}

/// Where an entry is.
#[derive(Clone, Copy)]
struct Row {
    id: Span,
    event: TextAt,
    primary_key: TextAt,
    payload: Span,
}

#[derive(Clone, Copy)]
enum Cell {
    Bytes(Span),
    Text(TextAt),
}

/// The columns, and which of them have texts.
const COLUMNS: [(u32, Option<usize>); 4] =
    [(ID, None), (EVENT, Some(0)), (PRIMARY_KEY, Some(1)), (PAYLOAD, None)];

const UNKNOWN: u8 = u8::MAX;

/// Reads the entries of a large write from first to last.
pub struct LargeEntries {
    cursor: Cursor,
    /// Unread rows, according to the writer.
    left: u64,
    /// The slot of the next row.
    slot: usize,
    shapes: Shapes,
    fields: Vec<u8>,
    texts: [Texts; 2],
    /// Already read, but it did not fit in the last piece.
    next: Option<Row>,
    /// The bytes of the rows that were read, written out.
    bytes: u64,
    scratch: [Vec<u8>; 3],
}

impl LargeEntries {
    pub(super) fn new(source: &Arc<dyn Source>, span: Span) -> Result<Self, LargeError> {
        let mut cursor = Cursor::new(source.clone(), span);
        let left = cursor.uvarint()?;
        if left > cursor.left() {
            return Err(Malformed::new("a count that the bytes can hold").into());
        }
        let texts = [Texts::new(&**source)?, Texts::new(&**source)?];
        Ok(Self {
            cursor,
            left,
            slot: 0,
            shapes: Shapes::default(),
            fields: Vec::new(),
            texts,
            next: None,
            bytes: 0,
            scratch: Default::default(),
        })
    }

    /// The next piece; there is at least one, which may be empty. Must not be called after the last one. Waits for the
    /// source.
    pub fn next_piece(&mut self, limits: &Limits) -> Result<EntriesPiece, LargeError> {
        let first_slot = self.slot - usize::from(self.next.is_some());
        let entries_max = limits.batch_entries_max.min(PIECE_ENTRIES_MAX);
        let bytes_max = limits.message_bytes_max.min(PIECE_BYTES_MAX) as u64;
        let entry_bytes_max = limits.entry_bytes() as u64;
        let (mut batch, mut too_large) = (Batch::beginning_at(first_slot), None);
        while batch.len() < entries_max && too_large.is_none() {
            let Some(row) = self.next_row(limits)? else { break };
            let bytes = row.record_bytes();
            let (slot, is_too_large) = (first_slot + batch.len(), bytes > entry_bytes_max);
            if !batch.is_empty() && (is_too_large || batch.bytes() as u64 + bytes > bytes_max) {
                self.next = Some(row);
                break;
            }
            if is_too_large {
                too_large = Some(self.name(row, slot, limits.message_bytes_max, &mut batch)?);
            } else {
                self.load(row, slot, &mut batch)?;
            }
        }
        let is_last = self.next.is_none() && self.left == 0;
        if is_last {
            self.cursor.finish()?;
        }
        let bytes_so_far = self.bytes - self.next.as_ref().map_or(0, Row::record_bytes);
        Ok(EntriesPiece { batch, too_large, bytes_so_far, is_last })
    }

    fn next_row(&mut self, limits: &Limits) -> Result<Option<Row>, LargeError> {
        if let Some(row) = self.next.take() {
            return Ok(Some(row));
        }
        if self.left == 0 {
            return Ok(None);
        }
        let slot = self.slot;
        self.left -= 1;
        self.slot += 1;
        let row = self.read_row().map_err(|error| in_slot(error, slot))?;
        self.bytes = self.bytes.saturating_add(row.record_bytes());
        let bytes = self.cursor.source().bytes();
        let bytes_max = written_bytes_max(bytes, limits);
        if self.bytes > bytes_max {
            return Err(BatchFault::Expansion { slot, bytes, bytes_max }.into());
        }
        Ok(Some(row))
    }

    fn read_row(&mut self) -> Result<Row, LargeError> {
        let len = self.cursor.uvarint()?;
        let end = self.cursor.enter(len)?;
        let mut cells = [None; 4];
        match self.cursor.uvarint()? {
            0 => self.declare(&mut cells)?,
            shape => {
                for field in self.shapes.fields(shape)? {
                    self.cell(self.fields[field as usize], &mut cells)?;
                }
            }
        }
        self.cursor.leave(end)?;
        let [
            Some(Cell::Bytes(id)),
            Some(Cell::Text(event)),
            Some(Cell::Text(primary_key)),
            Some(payload),
        ] = cells
        else {
            return Err(Malformed::new("a row with every required field").into());
        };
        let Cell::Bytes(payload) = payload else {
            return Err(Malformed::new("a row with every required field").into());
        };
        Ok(Row { id, event, primary_key, payload })
    }

    fn declare(&mut self, cells: &mut [Option<Cell>; 4]) -> Result<(), LargeError> {
        let mut seen = SeenIds::default();
        while self.cursor.left() > 0 {
            let id = self.cursor.uvarint()?;
            seen.add(id)?;
            let column = COLUMNS.iter().position(|(column, _)| u64::from(*column) == id);
            let field = column.map_or(UNKNOWN, |column| column as u8);
            if self.fields.len() == FIELDS_MAX {
                return Err(FEWER_FIELDS.into());
            }
            self.fields.push(field);
            self.cell(field, cells)?;
        }
        self.shapes.declare(self.fields.len());
        Ok(seen.all_differ()?)
    }

    fn cell(&mut self, field: u8, cells: &mut [Option<Cell>; 4]) -> Result<(), LargeError> {
        let at = self.cursor.at();
        let code = self.cursor.uvarint()?;
        let written = if code & 1 == 0 { Some(self.cursor.take(code >> 1)?) } else { None };
        if field == UNKNOWN {
            return Ok(());
        }
        let column = usize::from(field);
        let cell = match (written, COLUMNS[column].1) {
            (Some(span), None) => Cell::Bytes(span),
            (Some(span), Some(texts)) => Cell::Text(self.texts[texts].add(at, span)?),
            (None, Some(texts)) => {
                Cell::Text(self.texts[texts].again(code >> 1, &mut self.cursor)?)
            }
            (None, None) => return Err(Malformed::new("a string that was there before").into()),
        };
        cells[column] = Some(cell);
        Ok(())
    }

    fn id(&self, row: &Row, slot: usize) -> Result<EntryId, LargeError> {
        let mut id = [0; EntryId::LEN];
        if row.id.len != EntryId::LEN as u64 {
            let bytes = usize::try_from(row.id.len).unwrap_or(usize::MAX);
            return Err(BatchFault::IdLength { slot, bytes }.into());
        }
        self.cursor.read(row.id, &mut id)?;
        Ok(EntryId::from_bytes(id))
    }

    /// An entry that is too large: it is put into `batch` without its payload.
    fn name(
        &self,
        row: Row,
        slot: usize,
        text_bytes_max: usize,
        batch: &mut Batch,
    ) -> Result<LargeEntry, LargeError> {
        let id = self.id(&row, slot)?;
        let beginning = |of: TextAt| {
            let bytes = of.span.len.min(text_bytes_max as u64);
            let mut text = vec![0; bytes as usize];
            self.cursor.read(Span { len: bytes, ..of.span }, &mut text)?;
            Ok::<_, LargeError>(String::from_utf8_lossy(&text).into_owned())
        };
        let (event, primary_key) = (beginning(row.event)?, beginning(row.primary_key)?);
        let entry = EntryRef { id, event: &event, primary_key: &primary_key, payload: &[] };
        batch.push(&entry);
        let spans = [row.event.span, row.primary_key.span, row.payload];
        Ok(LargeEntry::new(slot, id, spans, self.cursor.source().clone()))
    }

    fn load(&mut self, row: Row, slot: usize, batch: &mut Batch) -> Result<(), LargeError> {
        let id = self.id(&row, slot)?;
        let [event, primary_key, payload] = &mut self.scratch;
        self.texts[0].load(row.event, &self.cursor, event)?;
        self.texts[1].load(row.primary_key, &self.cursor, primary_key)?;
        payload.resize(row.payload.len as usize, 0);
        self.cursor.read(row.payload, payload)?;
        if !payload_is_complete_frame(payload) {
            return Err(BatchFault::PayloadNotAFrame { slot, id }.into());
        }
        let unreadable = |malformed| BatchFault::Unreadable { slot, malformed };
        batch.push(&EntryRef {
            id,
            event: text(event).map_err(unreadable)?,
            primary_key: text(primary_key).map_err(unreadable)?,
            payload,
        });
        // Most entries are small: the memory of a large one is not kept for all that follow.
        self.scratch.iter_mut().for_each(|some| some.shrink_to(PIECE_BYTES_MAX));
        Ok(())
    }
}

impl Row {
    /// Its size as a record.
    fn record_bytes(&self) -> u64 {
        let sized = |len: u64| uvarint_len(len) as u64 + len;
        EntryId::LEN as u64
            + sized(self.event.span.len)
            + sized(self.primary_key.span.len)
            + sized(self.payload.len)
    }
}

/// Rows refer to earlier texts, so a few bytes may stand for many. A write of this size may take the permitted multiple
/// of it, or as much as a write that is not read in pieces.
fn written_bytes_max(bytes: u64, limits: &Limits) -> u64 {
    let more = limits.message_bytes_max.saturating_mul(EXPANSION_MAX) as u64;
    bytes.saturating_mul(limits.write_expansion_max as u64).saturating_add(more)
}

/// A malformed value is in an entry, which is named.
fn in_slot(error: LargeError, slot: usize) -> LargeError {
    match error {
        LargeError::Malformed(malformed) => BatchFault::Unreadable { slot, malformed }.into(),
        LargeError::Source(_) | LargeError::Invalid(_) => error,
    }
}
