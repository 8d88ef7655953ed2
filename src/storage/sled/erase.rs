//! Erases entries of a store: the checks before it, the ledger, and the record in the commit log.
//!
//! Keeps: if an entry is missing or is not the one that was named, the whole request is refused; everything that is erased in the commit log
//! is in the ledger. Leaves out: when the bytes are removed from the tree (`checkpoint`).

use std::sync::Arc;

use super::commit::{Answer, Job, Writes};
use super::reindex;
use super::scrub::Noted;
use super::shared::Shared;
use crate::model::{EntryId, Sequence, StoreId};
use crate::storage::ledger::Erased;
use crate::storage::{AppendError, ERASE_MAX};

/// Checks that these entries exist, and that they may be erased at once. Blocks on disk reads.
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

/// Records in the ledger that these existing entries are erased, and queues the erasure. Blocks on the disk.
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
    // It counts as under way before it is in the ledger.
    let noted = Noted::new(shared.scrub.clone());
    note(shared, &writes.store, &Erased::Entries(ids))?;
    let mut sequences: Vec<Sequence> = entries.iter().map(|(at, _)| *at).collect();
    sequences.sort_unstable();
    sequences.dedup();
    let (writes, sequences) = (writes.clone(), sequences.into());
    shared.queue.enqueue(Job::Erase { writes, sequences, answer, noted });
    Ok(())
}

/// Records in the ledger what is about to be erased.
pub(super) fn note(shared: &Shared, store: &StoreId, what: &Erased) -> Result<(), AppendError> {
    let Some(erasures) = &mut *shared.erasures.lock() else { return Ok(()) };
    // The record may be there. If so, the next start applies it.
    let failed = |error| AppendError::Indefinite(format!("the erasure ledger: {error}").into());
    erasures.note(store, what).map_err(failed)
}
