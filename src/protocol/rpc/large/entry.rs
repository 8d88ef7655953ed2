//! An entry of a large write that exceeds the limit for entries.
//!
//! Keeps: it may be larger than memory, so it is read one range at a time. Leaves out: what happens to it.

use std::fmt;
use std::io;
use std::sync::Arc;

use super::Source;
use super::cursor::Span;
use crate::model::EntryId;
use crate::model::varint::uvarint_len;

/// Where the parts of an entry that is too large are.
#[derive(Clone)]
pub struct LargeEntry {
    /// Its slot in the write.
    pub slot: usize,
    /// Its id.
    pub id: EntryId,
    /// Event, primary key, payload.
    spans: [Span; 3],
    source: Arc<dyn Source>,
}

impl LargeEntry {
    pub(super) fn new(slot: usize, id: EntryId, spans: [Span; 3], source: Arc<dyn Source>) -> Self {
        Self { slot, id, spans, source }
    }

    /// How many bytes its event, its primary key and its payload have.
    pub fn lengths(&self) -> [u64; 3] {
        self.spans.map(|span| span.len)
    }

    /// Its size, as counted against the limit for entries.
    pub fn bytes(&self) -> u64 {
        let sized = |len: u64| uvarint_len(len) as u64 + len;
        EntryId::LEN as u64 + self.lengths().into_iter().map(sized).sum::<u64>()
    }

    /// Fills `into` with what is at `at` in the three parts, taken one after the other. Fails at their end. Waits for
    /// the source.
    pub fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        let (mut skip, mut filled) = (at, 0);
        for Span { at, len } in self.spans {
            let there = len.saturating_sub(skip).min((into.len() - filled) as u64) as usize;
            self.source.read_at(at + skip.min(len), &mut into[filled..filled + there])?;
            skip = skip.saturating_sub(len);
            filled += there;
        }
        if filled < into.len() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }
}

impl fmt::Debug for LargeEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { slot, id, spans, source: _ } = self;
        f.debug_struct("LargeEntry")
            .field("slot", slot)
            .field("id", id)
            .field("spans", spans)
            .finish()
    }
}
