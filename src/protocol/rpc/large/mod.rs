//! A write that is too large for one batch: read from its source in pieces, twice or more often.
//!
//! Keeps: the same entries, or the same refusal, as [`WriteEntries`](super::WriteEntries) for the same bytes; memory
//! for one piece and a few buffers, whatever the size of the write. Leaves out: where the bytes are ([`Source`]), and
//! in which order pieces are checked and stored.

mod cursor;
mod entries;
mod entry;
mod source;
mod texts;

#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;

use self::cursor::{Cursor, Span};
pub use self::entries::{EntriesPiece, LargeEntries};
pub use self::entry::LargeEntry;
pub use self::source::{Source, Table};
use super::fields::SeenIds;
use super::ids::{DEFAULT_HEADER, ENTRIES, PUBLIC_KEY, STORE_ID};
use super::window::{Malformed, text};
use super::write::BatchFault;

/// No meaningful name is longer, in bytes.
const NAME_BYTES_MAX: u64 = 4 * 1_024;

/// Why a large write cannot be read to its end.
#[derive(Debug, thiserror::Error)]
pub enum LargeError {
    /// Its source fails. It may work another time.
    #[error("the write cannot be read back: {0}")]
    Source(#[from] io::Error),
    /// It is not a write.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// It is a write, but one of its entries is refused.
    #[error(transparent)]
    Invalid(#[from] BatchFault),
}

/// A large write whose entries have not been looked at yet.
pub struct LargeWrite {
    /// Who writes. Any text, even empty.
    pub public_key: String,
    /// The store. Any text, even empty.
    pub store_id: String,
    source: Arc<dyn Source>,
    entries: Span,
}

impl LargeWrite {
    /// Reads the names in the data of a write. Waits for its source.
    pub fn open(source: Arc<dyn Source>) -> Result<Self, LargeError> {
        let all = Span { at: 0, len: source.bytes() };
        let mut cursor = Cursor::new(source.clone(), all);
        if cursor.uvarint()? != cursor.left() {
            return Err(Malformed::new("exactly one frame").into());
        }
        if cursor.byte()? != DEFAULT_HEADER {
            return Err(Malformed::new("a frame with field ids").into());
        }
        let [public_key, store_id, entries] = fields(&mut cursor)?;
        Ok(Self {
            public_key: name(&cursor, public_key)?,
            store_id: name(&cursor, store_id)?,
            entries,
            source,
        })
    }

    /// Its size in bytes.
    pub fn bytes(&self) -> u64 {
        self.source.bytes()
    }

    /// Its entries, from the first on.
    pub fn entries(&self) -> Result<LargeEntries, LargeError> {
        LargeEntries::new(&self.source, self.entries)
    }
}

/// The fields of a write, to the end of what `cursor` reads.
fn fields(cursor: &mut Cursor) -> Result<[Span; 3], LargeError> {
    const KNOWN: [u32; 3] = [PUBLIC_KEY, STORE_ID, ENTRIES];
    let mut found = [None; 3];
    let mut seen = SeenIds::default();
    while cursor.left() > 0 {
        let (id, kind) = cursor.field_tag()?;
        seen.add(u64::from(id))?;
        match KNOWN.iter().position(|known| *known == id && kind == 0) {
            Some(at) => {
                let len = cursor.uvarint()?;
                found[at] = Some(cursor.take(len)?);
            }
            None => skip_field(cursor, id, kind)?,
        }
    }
    seen.all_differ()?;
    let [Some(public_key), Some(store_id), Some(entries)] = found else {
        return Err(Malformed::new("every required field").into());
    };
    Ok([public_key, store_id, entries])
}

fn skip_field(cursor: &mut Cursor, id: u32, kind: u8) -> Result<(), LargeError> {
    match kind {
        0 => {
            let len = cursor.uvarint()?;
            cursor.take(len)?;
        }
        _ if id == 0 => return Err(Malformed::new("an extra block with a length").into()),
        1 => skip_varint(cursor)?,
        2 => drop(cursor.take(8)?),
        5 => {
            skip_varint(cursor)?;
            skip_varint(cursor)?;
        }
        6 => drop(cursor.take(4)?),
        _ => {}
    }
    Ok(())
}

fn skip_varint(cursor: &mut Cursor) -> Result<(), LargeError> {
    while cursor.byte()? >= 0x80 {}
    Ok(())
}

fn name(cursor: &Cursor, span: Span) -> Result<String, LargeError> {
    if span.len > NAME_BYTES_MAX {
        return Err(Malformed::new("a name of a length that names have").into());
    }
    let mut bytes = vec![0; span.len as usize];
    cursor.read(span, &mut bytes)?;
    Ok(text(&bytes)?.to_owned())
}
