//! Erases entries of a store: what has to be so before it, and the record in the commit log.
//!
//! Keeps: what is not there, or is something else than was said, is refused as a whole. Leaves out: when the tree is rid of the
//! bytes (`checkpoint`).

use std::sync::Arc;

use super::commit::{Answer, Job, Writes};
use super::reindex;
use super::shared::Shared;
use crate::model::{EntryId, Sequence};
use crate::storage::{AppendError, ERASE_MAX};

/// Queues what erases these entries. Blocks on disk reads.
pub(super) fn erase(
    shared: &Shared,
    writes: &Arc<Writes>,
    entries: &[(Sequence, EntryId)],
    answer: Answer,
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
    if let Some(((at, id), _)) = pairs.find(|((at, _), known)| **known != Some(*at) || *at > head) {
        return Err(refused(format!("entry {at} is not there, or is not {id}")));
    }
    let mut sequences: Vec<Sequence> = entries.iter().map(|(at, _)| *at).collect();
    sequences.sort_unstable();
    sequences.dedup();
    let (writes, sequences) = (writes.clone(), sequences.into());
    shared.queue.enqueue(Job::Erase { writes, sequences, answer });
    Ok(())
}
