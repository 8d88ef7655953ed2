//! `erase --store S` without other options, for a stopped server: erases the whole store and removes its keys.

use std::sync::Arc;

use eventlog_server::model::{PublicKey, StoreId};
use eventlog_server::processing::{TrimError, erase, first_entries, forget_entries, trim};
use eventlog_server::services::journal::SledJournal;
use eventlog_server::services::registry::SledRegistry;
use eventlog_server::services::{RegistryError, StoreRegistry};
use eventlog_server::storage::sled::{Database, SledStorage};
use eventlog_server::storage::{Storage, StoreLog};

use super::erase::{AT_ONCE, EraseCommandError};

/// Erases a store. Returns the number of erased entries and of removed keys.
pub(super) async fn erase_store(
    database: &Database,
    store: &StoreId,
) -> Result<(u64, u64), EraseCommandError> {
    let storage = SledStorage::new(database.clone());
    let keys = remove_keys(&SledRegistry::new(database.clone()), &storage, store).await?;
    let log = storage.open(store)?;
    let journal = SledJournal::new(database.clone());
    let last = log.head();
    let known = log.first_known()?;
    let (mut next, mut erased) = (log.trimmed().next(), 0);
    while next <= last {
        let (found, read_to) = first_entries(&*log, (next, last), AT_ONCE)?;
        erase(Some(&journal), store, &Arc::<dyn StoreLog>::clone(&log), &found).await?;
        erased += found.len() as u64;
        next = read_to.next();
    }
    if let Some(known) = known {
        log.note_erased(last, known).map_err(TrimError::from)?;
    }
    // Dead letters have content, also those of entries that were trimmed before.
    storage.content_is_erased()?;
    forget_entries(&journal, store).await.map_err(TrimError::from)?;
    trim(Some(&journal), store, &log, last, true).await?;
    Ok((erased, keys))
}

async fn remove_keys(
    registry: &SledRegistry,
    storage: &SledStorage,
    store: &StoreId,
) -> Result<u64, EraseCommandError> {
    let (mut after, mut removed): (Option<PublicKey>, _) = (None, 0);
    loop {
        let page = registry.list(after.as_ref(), AT_ONCE).await?;
        let Some((last, _)) = page.last() else { break };
        after = Some(last.clone());
        for (key, _) in page.iter().filter(|(_, of)| of == store) {
            match registry.remove(key).await {
                Ok(_) | Err(RegistryError::NotMapped { .. }) => removed += 1,
                Err(error) => return Err(error.into()),
            }
            storage.used_keys().release(key).await?;
        }
    }
    // Keys that something else than the registry assigned.
    loop {
        let keys = storage.used_keys().of(store, AT_ONCE).await?;
        if keys.is_empty() {
            return Ok(removed);
        }
        for key in &keys {
            storage.used_keys().release(key).await?;
            removed += 1;
        }
    }
}
