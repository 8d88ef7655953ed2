//! Erases entries of a store: what has to be so before it, the ledger, and the record in the commit log.
//!
//! Keeps: what is not there, or is something else than was said, is refused as a whole; what the commit log says is erased, the ledger has. Leaves out: when the tree is rid of the
//! bytes (`checkpoint`).

use std::sync::Arc;

use super::commit::{Answer, Job, Writes};
use super::reindex;
use super::scrub::Noted;
use super::shared::Shared;
use crate::model::{EntryId, Sequence, StoreId};
use crate::storage::ledger::Erased;
use crate::storage::{AppendError, ERASE_MAX};

/// Whether these entries are there, and may be erased at once. Blocks on disk reads.
pub(super) fn check(
    shared: &Shared,
    writes: &Writes,
    entries: &[(Sequence, EntryId)],
) -> Result<(), AppendError> {
    let refused = |why: String| AppendError::Definite(why.into());
    if entries.len() > ERASE_MAX {
        return Err(refused(format!(
            "{} entries at once, {ERASE_MAX} are the most",
            entries.len()
        )));
    }
    let ids: Vec<EntryId> = entries.iter().map(|(_, id)| *id).collect();
    let known = shared.noting(&writes.store, || reindex::look_up(shared, writes, &ids));
    let known = known.map_err(|error| refused(error.to_string()))?;
    let head = writes.head();
    let mut pairs = entries.iter().zip(&known);
    match pairs.find(|((at, _), known)| **known != Some(*at) || *at > head) {
        Some(((at, id), _)) => Err(refused(format!("entry {at} is not there, or is not {id}"))),
        None => Ok(()),
    }
}

/// Writes to the ledger that these entries, which are there, are erased, and queues that. Blocks on the disk.
pub(super) fn erase(
    shared: &Shared,
    writes: &Arc<Writes>,
    entries: &[(Sequence, EntryId)],
    answer: Answer,
) -> Result<(), AppendError> {
    if !entries.is_empty() {
        let failed = |error| AppendError::Definite(format!("it cannot be noted: {error}").into());
        shared.scrub.begin(&shared.files).map_err(failed)?;
    }
    let ids = entries.iter().map(|(_, id)| *id).collect();
    note(shared, &writes.store, &Erased::Entries(ids))?;
    let mut sequences: Vec<Sequence> = entries.iter().map(|(at, _)| *at).collect();
    sequences.sort_unstable();
    sequences.dedup();
    let noted = Noted::new(shared.scrub.clone());
    let (writes, sequences) = (writes.clone(), sequences.into());
    shared.queue.enqueue(Job::Erase { writes, sequences, answer, noted });
    Ok(())
}

/// Writes to the ledger what is about to be erased.
pub(super) fn note(shared: &Shared, store: &StoreId, what: &Erased) -> Result<(), AppendError> {
    let Some(erasures) = &mut *shared.erasures.lock() else { return Ok(()) };
    // It may be there: then the next start makes it so.
    let failed = |error| AppendError::Indefinite(format!("the erasure ledger: {error}").into());
    erasures.note(store, what).map_err(failed)
}
