//! How far the beginning of a store is trimmed: what is no longer shown, and how much of that the tree has released by
//! now.
//!
//! The first is durable as soon as a trim is answered. The second follows: the entries become bare ids
//! (`checkpoint::sweep`), because ids stay known forever.

use crate::model::Sequence;
use crate::model::varint::{read_uvarint, write_uvarint};

/// As stored in the record of a store; all zero for a store that was never trimmed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Trimmed {
    /// The last sequence that was trimmed.
    pub(crate) last: Sequence,
    /// The last one of which the tree has only the id.
    pub(crate) swept: Sequence,
    /// The original bytes of the records up to there.
    pub(crate) bytes: u64,
}

impl Trimmed {
    /// Whether the tree still has entries that were trimmed.
    pub(crate) fn is_due(&self) -> bool {
        self.swept < self.last
    }

    /// Adds it to a record: three numbers.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let Self { last, swept, bytes } = *self;
        for number in [last.get(), swept.get(), bytes] {
            write_uvarint(out, number);
        }
    }

    /// Reads what [`Trimmed::write`] wrote.
    pub(crate) fn read(rest: &mut &[u8]) -> Option<Self> {
        let last = Sequence::new(read_uvarint(rest)?).ok()?;
        let swept = Sequence::new(read_uvarint(rest)?).ok()?;
        let bytes = read_uvarint(rest)?;
        (Sequence::ZERO < last && swept <= last).then_some(Self { last, swept, bytes })
    }
}
