//! Finds ids in a store, and has the index of its ids rebuilt from its entries if it is damaged or far behind them.
//!
//! Keeps: the entries are read here, by the caller, without a lock; as many ids as are sealed at once are in memory;
//! checkpoints seal them, and what others write gets into sled with the same checkpoints. Leaves out: the index
//! (`ids`).

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::commit::Writes;
use super::ends::{End, StoreReader};
use super::ids::Unknown;
use super::log::Located;
use super::segments::Reader;
use super::shared::Shared;
use crate::model::{EntryId, Sequence};
use crate::storage::StorageError;

/// How often an index may turn out to be damaged in one lookup: if that continues, the disk is unusable.
const TRIES: usize = 3;
/// How often to check whether somebody still seals what was passed on.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long that may take while checkpoints fail.
const PATIENCE: Duration = Duration::from_secs(10);

/// The sequence of each of `wanted`, if the store has it.
pub(super) fn look_up(
    shared: &Shared,
    writes: &Writes,
    wanted: &[EntryId],
) -> Result<Vec<Option<Sequence>>, StorageError> {
    for _ in 0..TRIES {
        let trees = shared.access.trees()?;
        let end = writes.end.get();
        // Of no store, if it has no entries: then nothing is read.
        let ordinal = end.map_or(0, |end| end.ordinal);
        let found = writes.ids.lookup(wanted, &Reader { tree: trees.log(), ordinal });
        drop(trees);
        match (found, end) {
            (Ok(found), _) => return Ok(found),
            (Err(Unknown::Failed(error)), _) => return Err(error),
            (Err(Unknown::Damaged(seed, finding)), Some(end)) => {
                shared.ids_are_damaged(&end.name, &finding);
                let Located { trees, layout: _nothing_is_staged, .. } = Located::at(shared, end)?;
                let reader = Reader { tree: trees.log(), ordinal };
                writes.ids.begin_again(seed, trees.generation, || reader.no_ids())?;
            }
            (Err(Unknown::Gap), Some(_)) => {}
            (Err(_), None) => break,
        }
        if let Some(end) = end {
            fill(shared, writes, end)?;
        }
    }
    Err(StorageError::corrupt("the index of ids is damaged again and again"))
}

/// Indexes all ids that are neither in the index nor in memory.
fn fill(shared: &Shared, writes: &Writes, end: &Arc<End>) -> Result<(), StorageError> {
    let ids = &writes.ids;
    let _one_at_a_time = ids.filling();
    let mut count = 0;
    while let Some(gap) = ids.gap() {
        let first = *gap.start();
        let entries = ids.sequence(first)..=ids.sequence(*gap.end());
        let read = read(shared, end, entries)?;
        count += read.len();
        ids.fill(first, read);
        wait(shared, writes, end, first)?;
    }
    if count > 0 {
        log::info!("{count} ids of store {:?} were indexed", end.name);
    }
    Ok(())
}

/// The ids of these entries.
fn read(
    shared: &Shared,
    end: &End,
    entries: RangeInclusive<Sequence>,
) -> Result<Vec<EntryId>, StorageError> {
    let (mut next, last) = entries.into_inner();
    let mut ids = Vec::new();
    while next <= last {
        // This is done each time, so that nobody who reopens sled has to wait for all of it.
        let trees = shared.access.trees()?;
        let tree = Reader { tree: trees.log(), ordinal: end.ordinal };
        let segment = StoreReader { tree, end }.segment(next)?;
        let wanted = segment.ids().filter(|(sequence, _)| (next..=last).contains(sequence));
        ids.extend(wanted.map(|(_, id)| id));
        next = segment.last().next();
    }
    Ok(ids)
}

/// Waits until what was passed on, from `first` on, is sealed.
fn wait(
    shared: &Shared,
    writes: &Writes,
    end: &Arc<End>,
    first: Sequence,
) -> Result<(), StorageError> {
    let begun = Instant::now();
    loop {
        shared.ends.note_changed(end);
        shared.signal.ask_at_once();
        if writes.ids.wait_for_seal(first, LOOK_EVERY) {
            return Ok(());
        }
        let is_open_again = end.ids.lock().as_ptr() != Arc::as_ptr(&writes.ids);
        if shared.queue.is_closing() || is_open_again {
            return Err(StorageError::unavailable("the store was closed while ids were indexed"));
        }
        let failure = shared.checkpoint_failure.lock().clone();
        if let Some(failure) = failure.filter(|_| begun.elapsed() > PATIENCE) {
            return Err(StorageError::Unavailable(failure));
        }
    }
}
