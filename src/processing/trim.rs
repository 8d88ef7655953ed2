//! Trims the beginning of a store, and what the journal has of it.
//!
//! Keeps: no entry is trimmed that a group has not processed, whether that group runs, pauses, or is only remembered,
//! unless somebody forces it; what the journal has about the entries is removed before they are, so that nothing of
//! them is left whatever crashes. Leaves out: when a store is trimmed (`server`), and how (`storage`).

use std::collections::BTreeSet;
use std::sync::Arc;

use super::replay;
use crate::model::{Segment, Sequence, StoreId};
use crate::services::journal::layout::{self, Place};
use crate::services::journal::{
    EventJournal, JournalChanges, JournalError, JournalRange, journal_origin,
};
use crate::storage::{AppendError, StorageError, StoreLog};

/// How much is read at once, in bytes.
const READ_BYTES: usize = 1 << 20;

/// A group that has not processed all entries that are to be trimmed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupBehind {
    /// Its name.
    pub name: Arc<str>,
    /// The last sequence that it has processed.
    pub position: Sequence,
}

/// The result of a trim.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Trimming {
    /// The last sequence that is trimmed now.
    pub trimmed: Sequence,
    /// The last sequence that should be trimmed: greater while groups are waited for.
    pub wanted: Sequence,
    /// The groups that the trim waits for, or would have waited for.
    pub behind: Vec<GroupBehind>,
}

/// Nothing more was trimmed or erased, or the outcome is unknown. The call should be repeated.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrimError {
    /// The journal failed.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The store cannot be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The erasure could not be stored, or it is not known whether it was.
    #[error("{}", told("erased", .0))]
    Append(#[from] AppendError),
    /// The trim could not be stored, or it is not known whether it was.
    #[error("{}", told("trimmed", .0))]
    Trim(AppendError),
}

/// An append's error, in the words of what was to be done.
fn told(done: &str, error: &AppendError) -> String {
    match error {
        AppendError::Definite(cause) => format!("nothing was {done}: {cause}"),
        AppendError::Indefinite(cause) => {
            format!("it is not known whether it was {done}, try again: {cause}")
        }
        AppendError::Overtaken => format!("nothing was {done}: another server was faster"),
        AppendError::Stale => format!("nothing was {done}: keys or rights have changed"),
    }
}

/// Trims the store of `log` up to `last`, which must be durable, or as far as all groups that `journal` knows have
/// processed it; with `force`, regardless of them.
pub async fn trim(
    journal: Option<&dyn EventJournal>,
    store: &StoreId,
    log: &Arc<dyn StoreLog>,
    last: Sequence,
    force: bool,
) -> Result<Trimming, TrimError> {
    let behind = match journal {
        Some(journal) => groups_behind(journal, store, last).await?,
        None => Vec::new(),
    };
    let processed = behind.iter().map(|group| group.position).min();
    let to = processed.filter(|_| !force).map_or(last, |position| position.min(last));
    if to > log.trimmed() {
        if let Some(journal) = journal {
            forget_rows(journal, store, log, to).await?;
        }
        log.trim(to).await.map_err(TrimError::Trim)?;
    }
    Ok(Trimming { trimmed: log.trimmed(), wanted: last, behind })
}

/// The groups that have not processed `store` up to `last`.
async fn groups_behind(
    journal: &dyn EventJournal,
    store: &StoreId,
    last: Sequence,
) -> Result<Vec<GroupBehind>, JournalError> {
    let known = journal.read(vec![layout::groups()]).await?;
    let names = known.iter().flatten().map(|group| Ok(layout::read_group(group)?.0));
    let names = names.collect::<Result<BTreeSet<String>, JournalError>>()?;
    let origin = journal_origin(store);
    let places = names.iter().map(|name| JournalRange::one(layout::place(origin, name)));
    let found = journal.read(places.collect()).await?;
    let mut behind = Vec::new();
    for (name, place) in names.iter().zip(&found) {
        let place = place.first().map(|(_, value)| layout::read_place(value)).transpose()?;
        let position = place.unwrap_or(Place::at(Sequence::ZERO)).position;
        if position < last {
            behind.push(GroupBehind { name: name.as_str().into(), position });
        }
    }
    Ok(behind)
}

/// Removes the rows of all entries up to `last`.
async fn forget_rows(
    journal: &dyn EventJournal,
    store: &StoreId,
    log: &Arc<dyn StoreLog>,
    last: Sequence,
) -> Result<(), TrimError> {
    let origin = journal_origin(store);
    let any = journal.read(vec![layout::rows(origin, 1)]).await?;
    if any.iter().all(Vec::is_empty) {
        return Ok(());
    }
    let mut next = log.trimmed().next();
    while next <= last {
        let of_log = log.clone();
        let read = replay::read_blocking(move || of_log.read(next, READ_BYTES)).await;
        let segments = read.map_err(StorageError::unavailable)?;
        let mut changes = JournalChanges::default();
        let entries = segments.iter().flat_map(Segment::iter);
        for (_, entry) in entries.filter(|(at, _)| (next..=last).contains(at)) {
            changes.remove(&layout::row(origin, &layout::subject(&entry), entry.id));
        }
        if !changes.is_empty() {
            journal.write(changes).await?;
        }
        let Some(read) = segments.last() else { break };
        next = read.last().next();
    }
    Ok(())
}
