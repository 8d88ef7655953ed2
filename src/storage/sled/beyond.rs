//! Decides how much of a store exceeds what should be kept, and by when its entries were committed.
//!
//! Keeps: by bytes and by age, only what is in the tree is given up: the newest entries are in memory. By bytes, whole
//! segments are given up.

use super::ends::End;
use super::log::Located;
use super::segments::Reader;
use super::shared::Shared;
use super::value::segment::Bare;
use crate::model::Sequence;
use crate::storage::{Keep, StorageError};

/// The last sequence to trim, so that no more is kept than `keep` says.
pub(super) fn beyond(shared: &Shared, end: &End, keep: &Keep) -> Result<Sequence, StorageError> {
    let located = Located::at(shared, end)?;
    let reader = Reader { tree: located.trees.log(), ordinal: end.ordinal };
    let trimmed = end.trimmed();
    let mut beyond = trimmed;
    if let Some(entries_max) = keep.entries_max {
        let excess = located.size.entries.saturating_sub(entries_max);
        if excess > 0 {
            // Those of the tree, and then those that it does not have yet.
            let mut gaps = located.layout.gaps.clone();
            end.gaps(located.layout.last).iter().for_each(|gap| gaps.add(gap));
            let to = gaps.sequence(gaps.place(trimmed).plus(excess));
            beyond = beyond.max(to.min(located.head()));
        }
    }
    if let Some(bytes_max) = keep.bytes_max {
        beyond = beyond.max(by_bytes(&reader, &located, bytes_max)?);
    }
    if let Some(since_ms) = keep.since_ms {
        for time in reader.times(trimmed.next()) {
            let (at, time_ms) = time?;
            if time_ms >= since_ms {
                break;
            }
            beyond = beyond.max(at);
        }
    }
    Ok(beyond)
}

/// The times by which entries from `from` on were committed, as defined by
/// [`Storage::times`](crate::storage::Storage::times).
pub(super) fn times(
    shared: &Shared,
    end: &End,
    from: Sequence,
    count_max: usize,
) -> Result<Vec<(Sequence, u64)>, StorageError> {
    let located = Located::at(shared, end)?;
    let reader = Reader { tree: located.trees.log(), ordinal: end.ordinal };
    let mut times = reader.times(from).take(count_max).collect::<Result<Vec<_>, _>>()?;
    let room = count_max - times.len();
    times.extend(end.times(located.layout.last.next().max(from), room));
    // Clocks may step back; the reported times must ascend.
    let mut latest = 0;
    for (_, time_ms) in &mut times {
        latest = latest.max(*time_ms);
        *time_ms = latest;
    }
    Ok(times)
}

fn by_bytes(
    reader: &Reader<'_>,
    located: &Located<'_>,
    bytes_max: u64,
) -> Result<Sequence, StorageError> {
    let (layout, in_memory) = (&located.layout, located.bytes_in_memory);
    let is_kept = |bytes_before: u64| layout.bytes - bytes_before + in_memory <= bytes_max;
    for found in reader.backwards(Sequence::MAX) {
        let found = found?;
        if found.record.bare == Bare::All {
            break;
        }
        if !found.is_gap() && !is_kept(found.record.bytes_before) {
            return Ok(found.last());
        }
    }
    Ok(Sequence::ZERO)
}
