//! Takes entries over into the journal, each with what it causes.
//!
//! Keeps: the effect of one entry begins after the one before is durable in the journal, and an entry without an effect
//! costs no write of its own. Leaves out: what an effect is (`replay`).

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::model::{RemoteEntry, RemoteId, Sequence};
use crate::services::journal::{Conflicts, EventJournal, JournalError};

/// What happens to entries as they are journaled.
pub trait SideEffect: Send {
    /// Whether [`SideEffect::run`] wants the entries of `event`. Others are journaled without a conflict lookup, together
    /// with the next one.
    fn wants(&self, event: &str) -> bool;

    /// Runs on one entry, before it is journaled and after all before it were, durably. Failures are its own to deal
    /// with: the entry counts as processed. A break ends the write before the entry is journaled.
    fn run(
        &mut self,
        entry: Arc<RemoteEntry>,
        conflicts: Conflicts,
    ) -> impl Future<Output = ControlFlow<()>> + Send;
}

/// Takes `entries` of `origin`, ascending by sequence, over into the journal, running `effect` on each it wants;
/// then moves the position behind `through`, so that sequences without an entry here stay passed over.
///
/// `next` is where the journal is known to stand: entries before it are passed over. It moves on with every
/// durable append, and so stays right after an error or a dropped future; after an error the journal itself may
/// tell a position that is not durable.
///
/// The effect of one entry begins after the one before is durable in the journal: after a crash at most one
/// effect is repeated, and after an error or a dropped future that of the entry which was under way.
pub async fn write_from_remote(
    journal: &dyn EventJournal,
    origin: RemoteId,
    next: &mut Sequence,
    entries: Vec<RemoteEntry>,
    through: Sequence,
    effect: &mut impl SideEffect,
) -> Result<(), JournalError> {
    // Not journaled yet, and of no interest to the lookups below: a conflict has an event that is wanted.
    let mut pending = Vec::new();
    let start = *next;
    for entry in entries.into_iter().skip_while(|entry| entry.remote_sequence < start) {
        let sequence = entry.remote_sequence;
        let entry = Arc::new(entry);
        pending.push(Arc::clone(&entry));
        if effect.wants(&entry.entry.event) {
            let conflicts = journal.conflicts(origin, &entry.entry).await?;
            if effect.run(entry, conflicts).await.is_break() {
                return Ok(());
            }
            journal.append(origin, std::mem::take(&mut pending), sequence).await?;
            *next = sequence.next();
        }
    }
    if through >= *next {
        journal.append(origin, pending, through).await?;
        *next = through.next();
    }
    Ok(())
}
