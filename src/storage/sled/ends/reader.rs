//! Reads a store, from the tree and from memory.

use super::End;
use crate::model::{Segment, Sequence};
use crate::storage::StorageError;
use crate::storage::sled::segments::Reader;

/// Reads one store.
pub(crate) struct StoreReader<'a> {
    pub(crate) tree: Reader<'a>,
    pub(crate) end: &'a End,
}

impl StoreReader<'_> {
    /// A segment that holds `at`, which must be in the log.
    pub(crate) fn segment(&self, at: Sequence) -> Result<Segment, StorageError> {
        self.end.segment(at).map_or_else(|| self.tree.segment(at), Ok)
    }

    /// Durable segments from one that holds `from` on, up to `head`, erased entries as gaps; see
    /// [`StoreLog::read`](crate::storage::StoreLog::read).
    pub(crate) fn read(
        &self,
        from: Sequence,
        head: Sequence,
        bytes_max: usize,
    ) -> Result<Vec<Segment>, StorageError> {
        let mut next = from.max(Sequence::FIRST);
        let mut segments: Vec<Segment> = Vec::new();
        let mut bytes = 0;
        // A gap takes no space, and nobody should have to ask again for what follows it.
        while next <= head && (bytes == 0 || bytes < bytes_max) {
            let whole = self.segment(next)?;
            // The last one may have entries that came after the head was read.
            let shown = head.next().since(whole.first()) as usize;
            let Some(segment) = whole.truncated(shown) else { break };
            // What was just read was written again, together with what follows: here it is again, as one.
            while let Some(again) = segments.pop_if(|read| read.last() >= segment.first()) {
                bytes -= again.records().len();
                // Erased entries of several segments are one gap.
                let before = segment.first().get().saturating_sub(again.first().get());
                if let Some(before) = again.truncated(before as usize) {
                    bytes += before.records().len();
                    segments.push(before);
                    break;
                }
            }
            next = segment.last().next();
            let pieces = self.end.shown(segment)?;
            for piece in pieces.into_iter().filter(|piece| piece.last() >= from) {
                bytes += piece.records().len();
                match segments.last_mut().and_then(|last| Some((last.erased_with(&piece)?, last))) {
                    Some((both, last)) => *last = both,
                    None => segments.push(piece),
                }
            }
        }
        Ok(segments)
    }
}
