//! Erases entries of a store, and what the journal has of them.
//!
//! Keeps: rows and dead letters are removed before the entries, because they are found by their content, so that
//! nothing of them is left whatever crashes; and once more afterwards, for what a running handler has written. Leaves
//! out: which entries are erased (`server`), and how (`storage`).

use std::collections::BTreeSet;
use std::sync::Arc;

use super::replay;
use super::trim::TrimError;
use crate::model::{EntryId, EntryRef, Segment, Sequence, StoreId};
use crate::services::journal::layout;
use crate::services::journal::{
    EventJournal, JournalChanges, JournalError, JournalRange, journal_origin,
};
use crate::storage::{StorageError, StoreLog};

/// How much is read at once, in bytes.
const READ_BYTES: usize = 1 << 20;
/// How much of the journal of a whole store is removed at once.
const FORGOTTEN_AT_ONCE: usize = 1_000;

/// Erases these entries of the store of `log`, which must be durable, at most [`ERASE_MAX`](crate::storage::ERASE_MAX)
/// of them. Entries that were already erased or trimmed may be among them.
pub async fn erase(
    journal: Option<&dyn EventJournal>,
    store: &StoreId,
    log: &Arc<dyn StoreLog>,
    entries: &[(Sequence, EntryId)],
) -> Result<(), TrimError> {
    let mut changes = Vec::new();
    if let Some(journal) = journal {
        changes = of_journal(journal, store, log, entries).await?;
        forget(journal, &changes).await?;
    }
    let (of_log, gone) = (log.clone(), entries.to_vec());
    let erased = tokio::task::spawn_blocking(move || of_log.erase(&gone)).await;
    erased.map_err(StorageError::unavailable)?.await?;
    if let Some(journal) = journal {
        forget(journal, &changes).await?;
    }
    Ok(())
}

/// The first `count` entries of a primary key within these sequences, and the sequence up to which these are all.
/// Blocks on disk reads.
pub fn of_primary_key(
    log: &dyn StoreLog,
    key: &str,
    range: (Sequence, Sequence),
    count: usize,
) -> Result<(Vec<(Sequence, EntryId)>, Sequence), StorageError> {
    find(log, |entry| entry.primary_key == key, range, count)
}

/// The first `count` entries within these sequences, and up to where that is all. Blocks on disk reads.
pub fn first_entries(
    log: &dyn StoreLog,
    range: (Sequence, Sequence),
    count: usize,
) -> Result<(Vec<(Sequence, EntryId)>, Sequence), StorageError> {
    find(log, |_| true, range, count)
}

fn find(
    log: &dyn StoreLog,
    is_wanted: impl Fn(&EntryRef<'_>) -> bool,
    (from, to): (Sequence, Sequence),
    count: usize,
) -> Result<(Vec<(Sequence, EntryId)>, Sequence), StorageError> {
    let (mut found, mut next) = (Vec::new(), from);
    while next <= to {
        let segments = log.read(next, READ_BYTES)?;
        let entries = segments.iter().flat_map(Segment::iter);
        for (at, entry) in entries.filter(|(at, _)| (next..=to).contains(at)) {
            if is_wanted(&entry) {
                found.push((at, entry.id));
            }
            if found.len() == count {
                return Ok((found, at));
            }
        }
        let Some(last) = segments.last() else { break };
        next = last.last().next();
    }
    Ok((found, to))
}

/// Whether there are dead letters of entries of a store.
pub async fn has_letters(
    journal: &dyn EventJournal,
    store: &StoreId,
) -> Result<bool, JournalError> {
    let groups = journal.read(vec![layout::groups()]).await?;
    let names = groups.iter().flatten().map(|group| Ok(layout::read_group(group)?.0));
    let names = names.collect::<Result<Vec<_>, JournalError>>()?;
    let origin = journal_origin(store);
    let ranges = names.iter().map(|name| layout::letters_in(name, origin, 1));
    Ok(journal.read(ranges.collect()).await?.iter().any(|found| !found.is_empty()))
}

/// Removes the dead letters of these entries, whose content is erased already.
pub async fn forget_erased(
    journal: &dyn EventJournal,
    store: &StoreId,
    entries: &[(Sequence, EntryId)],
) -> Result<(), TrimError> {
    let letters = letters(journal, store, entries).await?;
    forget(journal, &letters).await
}

/// Removes the dead letters of entries of a store up to `last`.
pub async fn forget_letters(
    journal: &dyn EventJournal,
    store: &StoreId,
    last: Sequence,
) -> Result<(), JournalError> {
    let origin = journal_origin(store);
    let groups = journal.read(vec![layout::groups()]).await?;
    for group in groups.iter().flatten() {
        let (name, _) = layout::read_group(group)?;
        let up_to = layout::letter(&name, origin, last);
        let range = layout::letters_in(&name, origin, FORGOTTEN_AT_ONCE);
        forget_range(journal, JournalRange { last: up_to, ..range }).await?;
    }
    Ok(())
}

/// Removes everything that the journal has about entries of a store, trimmed ones too. How far groups are in it stays.
pub async fn forget_entries(
    journal: &dyn EventJournal,
    store: &StoreId,
) -> Result<(), JournalError> {
    let origin = journal_origin(store);
    let groups = journal.read(vec![layout::groups()]).await?;
    let mut ranges = vec![layout::rows(origin, FORGOTTEN_AT_ONCE)];
    for group in groups.iter().flatten() {
        let (name, _) = layout::read_group(group)?;
        ranges.push(layout::letters_in(&name, origin, FORGOTTEN_AT_ONCE));
    }
    for range in ranges {
        forget_range(journal, range).await?;
    }
    Ok(())
}

async fn forget_range(journal: &dyn EventJournal, range: JournalRange) -> Result<(), JournalError> {
    loop {
        let found = journal.read(vec![range.clone()]).await?;
        let mut changes = JournalChanges::default();
        found.iter().flatten().for_each(|(key, _)| changes.remove(key));
        if changes.is_empty() {
            return Ok(());
        }
        journal.write(changes).await?;
    }
}

/// The keys that the journal may have for these entries.
async fn of_journal(
    journal: &dyn EventJournal,
    store: &StoreId,
    log: &Arc<dyn StoreLog>,
    entries: &[(Sequence, EntryId)],
) -> Result<Vec<Vec<u8>>, TrimError> {
    let origin = journal_origin(store);
    let mut keys = letters(journal, store, entries).await?;
    let wanted: BTreeSet<Sequence> = entries.iter().map(|(at, _)| *at).collect();
    let mut next = Sequence::FIRST;
    while let Some(at) = wanted.range(next..).next().copied() {
        let of_log = log.clone();
        let read = replay::read_blocking(move || of_log.read(at, READ_BYTES)).await;
        let segments = read.map_err(StorageError::unavailable)?;
        for (_, entry) in
            segments.iter().flat_map(Segment::iter).filter(|(at, _)| wanted.contains(at))
        {
            keys.push(layout::row(origin, &layout::subject(&entry), entry.id).to_vec());
        }
        let Some(read) = segments.last() else { break };
        next = read.last().next();
    }
    Ok(keys)
}

/// The keys of their dead letters, if there are any.
async fn letters(
    journal: &dyn EventJournal,
    store: &StoreId,
    entries: &[(Sequence, EntryId)],
) -> Result<Vec<Vec<u8>>, JournalError> {
    let origin = journal_origin(store);
    let mut keys = Vec::new();
    let groups = journal.read(vec![layout::groups()]).await?;
    for group in groups.iter().flatten() {
        let (name, _) = layout::read_group(group)?;
        keys.extend(entries.iter().map(|(at, _)| layout::letter(&name, origin, *at)));
    }
    Ok(keys)
}

async fn forget(journal: &dyn EventJournal, keys: &[Vec<u8>]) -> Result<(), TrimError> {
    let mut changes = JournalChanges::default();
    keys.iter().for_each(|key| changes.remove(key));
    if !changes.is_empty() {
        journal.write(changes).await?;
    }
    Ok(())
}
