//! Erases a store as a whole.
//!
//! Keeps: its name, last sequence and ids stay, so that what is later written to a store of that name comes after them; an erasure that
//! has begun is completed even after a restart. Leaves out: single entries (`erasures`).

use super::erasures::{AT_ONCE, Begun, EraseError, Erased, Erasures, blocking};
use crate::actors::audit::By;
use crate::actors::registry::{Change, Release, Remove};
use crate::actors::stores::unavailable;
use crate::model::{EntryId, PublicKey, Sequence, StoreId};
use crate::processing::{Processor, TrimError, first_entries, forget_entries, trim};
use crate::services::RegistryError;
use crate::storage::StorageError;

/// The end of the record's key after the name of the store. Entries have numbers there.
pub(super) const WHOLE: &str = "whole";
/// How many keys are read at a time.
const KEYS_PAGE: usize = 1_000;

impl Erasures {
    /// Erases everything that the store has by now, and removes its keys.
    pub(super) async fn erase_store(&self, by: &By, store: &StoreId) -> Result<Erased, EraseError> {
        let feed = self.up_to_date(store).await?.feed.clone();
        let (log, last) = (feed.log(), feed.head());
        // One of its entries later identifies this store, in case another one has the same name.
        let first = blocking(move || match log.first_known()? {
            Some(first) => Ok(vec![first]),
            None => Ok(first_entries(&*log, (Sequence::FIRST, last), 1)?.0),
        })
        .await?;
        let name = format!("{store}/{WHOLE}");
        let begun = Begun::whole(&first, last);
        self.under_way.lock().insert(name.clone());
        self.own.lock().insert(name.clone());
        let done = async {
            self.begun.set(&name, begun).await?;
            self.carry_out_whole(by, store, last, &first).await
        };
        let done = done.await;
        self.under_way.lock().remove(&name);
        let erased = done?;
        self.begun.remove(&name, |begun| begun.up_to == Some(last.get())).await?;
        self.own.lock().remove(&name);
        Ok(erased)
    }

    /// Does all of that, or the rest of it.
    pub(super) async fn carry_out_whole(
        &self,
        by: &By,
        store: &StoreId,
        last: Sequence,
        first: &[(Sequence, EntryId)],
    ) -> Result<Erased, EraseError> {
        // This comes first, so that nobody writes with the keys meanwhile.
        let mut erased = Erased { keys: self.remove_keys(by, store).await?, ..Erased::default() };
        let opened = self.stores.open(store).await?;
        let _lease = opened.feed.lease();
        let log = opened.feed.log();
        let mut next = log.trimmed().next();
        while next <= last {
            let of_log = log.clone();
            let page = blocking(move || first_entries(&*of_log, (next, last), AT_ONCE)).await?;
            self.erase(store, &page.0).await?;
            erased.entries += page.0.len() as u64;
            next = page.1.next();
        }
        if let Some(first) = first.first().copied() {
            let of_log = log.clone();
            let noted = tokio::task::spawn_blocking(move || of_log.note_erased(last, first)).await;
            noted.map_err(StorageError::unavailable)?.map_err(TrimError::from)?;
        }
        if let Some(processor) = &self.processor {
            // The positions of groups in this store must be known.
            let begun = processor.begin(&[(store.clone(), opened.feed.head())]).await;
            begun.map_err(TrimError::from)?;
            self.forget_trimmed(processor, store).await?;
        }
        let journal = self.processor.as_ref().map(|processor| &**processor.journal());
        trim(journal, store, &log, last, true).await?;
        opened.feed.trimmed();
        Ok(erased)
    }

    /// Removes what the journal has about entries that were trimmed before. The others are gone.
    async fn forget_trimmed(
        &self,
        processor: &Processor,
        store: &StoreId,
    ) -> Result<(), EraseError> {
        // Dead letters have content. A removal from files that runs meanwhile may be too early, so it is requested again afterwards.
        for is_last in [false, true] {
            let storage = self.storage.clone();
            blocking(move || storage.content_is_erased()).await?;
            if !is_last {
                let forgotten = forget_entries(&**processor.journal(), store).await;
                forgotten.map_err(TrimError::from)?;
            }
        }
        Ok(processor.count_letters().await?)
    }

    /// Removes all keys of a store, and tells their connections. Returns the number of keys.
    async fn remove_keys(&self, by: &By, store: &StoreId) -> Result<u64, EraseError> {
        let (mut after, mut removed): (Option<PublicKey>, _) = (None, 0);
        loop {
            let page = self.registry.list(after.as_ref(), KEYS_PAGE).await?;
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            for (key, _) in page.into_iter().filter(|(_, of)| of == store) {
                let change = Change { by: by.clone(), message: Remove { public_key: key.clone() } };
                match self.stores.registry().send(change).await.map_err(unavailable)? {
                    Ok(_) | Err(RegistryError::NotMapped { .. }) => removed += 1,
                    Err(error) => return Err(error.into()),
                }
                let change = Change { by: by.clone(), message: Release { public_key: key } };
                self.stores.registry().send(change).await.map_err(unavailable)??;
            }
        }
        // Keys that something else than the registry assigned.
        loop {
            let keys = self.storage.used_keys().of(store, KEYS_PAGE).await?;
            if keys.is_empty() {
                return Ok(removed);
            }
            for public_key in keys {
                let change = Change { by: by.clone(), message: Release { public_key } };
                self.stores.registry().send(change).await.map_err(unavailable)??;
                removed += 1;
            }
        }
    }
}
