//! Removes the content of erased entries from the tree: their segments are written again, with bare ids in their place.
//!
//! Keeps: a segment stays where it is, with the same entries and the same counted bytes; doing it again changes
//! nothing. Leaves out: what is only in memory (`ends`).

use std::collections::BTreeSet;
use std::ops::Bound;

use super::layout::{Head, put, remove};
use super::portion::Portion;
use super::reader::Reader;
use crate::model::Sequence;
use crate::storage::StorageError;
use crate::storage::sled::key::{Ordinal, SegmentKey};
use crate::storage::sled::value::body;
use crate::storage::sled::value::segment::Bare;

/// Adds to `portion` the erasure of the entries `gone` of a store, all of which are in the tree, in order, until the
/// segments have `bytes_max` bytes, but at least one segment. Returns the last sequence up to which that is done.
pub(crate) fn erase(
    (ordinal, portion): (Ordinal, &mut Portion<'_>),
    gone: &BTreeSet<Sequence>,
    bytes_max: u64,
) -> Result<Sequence, StorageError> {
    let reader = Reader { tree: portion.tree(), ordinal };
    let (mut done, mut bytes) = (Sequence::ZERO, 0);
    while bytes < bytes_max
        && let Some(next) = gone.range((Bound::Excluded(done), Bound::Unbounded)).next()
    {
        let found = reader.find(*next)?.filter(|found| found.last() >= *next);
        let missing = || StorageError::corrupt(format!("no segment has entry {next}"));
        let found = found.ok_or_else(missing)?;
        done = found.last();
        if found.is_gap() || found.record.bare == Bare::All {
            continue;
        }
        let segment = reader.segment(found.first)?;
        bytes += segment.records().len() as u64;
        if segment.first() != found.first {
            let (first, there) = (segment.first(), found.first);
            let finding = format!("the segment from {there} on begins with entry {first}");
            return Err(StorageError::corrupt(finding));
        }
        if let Some(erased) = segment.erasing(gone) {
            remove(portion, ordinal, &found);
            let (count, bytes_before) = (found.record.count, found.record.bytes_before);
            let head = Head { count, bytes_before, bytes: found.record.bytes, bare: Bare::Some };
            let key = SegmentKey { ordinal, first: found.first };
            put(portion, key, head, body::encode(std::slice::from_ref(&erased)));
        }
    }
    Ok(done)
}
