//! Tells of erasures that this process did not make: those that the storage repeated when it was opened, and those of a stopped server.
//!
//! Keeps: handlers are told of each of them at least once, also after a restart. Leaves out: erasing (`erasures`, `storage`).

use super::erasures::{AT_ONCE, EraseError, Erasures, blocking};
use crate::model::StoreId;
use crate::processing::{TrimError, forget_erased, forget_letters, has_letters};
use crate::storage::{MadeAgain, StorageError, WholeStore};

impl Erasures {
    /// Does what remains to be done for them. A failure is logged unless `is_said`, which stays until all is done.
    pub(super) async fn tell_again(&self, is_said: &mut bool) {
        loop {
            let storage = self.storage.clone();
            let failed = match blocking(move || storage.made_again()).await {
                Ok(None) => {
                    *is_said = false;
                    return;
                }
                // Whether there is something to tell is not known, and that the storage is away is logged elsewhere.
                Err(StorageError::Unavailable(cause)) => {
                    return log::debug!("what was erased again cannot be looked up: {cause}");
                }
                Err(error) => Some(error.into()),
                Ok(Some(again)) => self.tell_of(again).await.err(),
            };
            let Some(error) = failed else { continue };
            if !std::mem::replace(is_said, true) {
                log::warn!(
                    "handlers are not told yet of what was erased again; the server tries again: {error}"
                );
            }
            return;
        }
    }

    async fn tell_of(
        &self,
        MadeAgain { number, store, entries, whole }: MadeAgain,
    ) -> Result<(), EraseError> {
        if let Some(whole) = whole {
            self.forget_whole(&store, whole).await?;
        }
        for part in entries.chunks(AT_ONCE) {
            let opened = self.stores.open(&store).await?;
            let _lease = opened.feed.lease();
            let (log, asked) = (opened.feed.log(), part.to_vec());
            let known = blocking(move || log.lookup(&asked)).await?;
            let known = part.iter().zip(known).filter_map(|(id, at)| Some((at?, *id)));
            let known: Vec<_> = known.collect();
            if let Some(processor) = &self.processor
                && has_letters(&**processor.journal(), &store).await.map_err(TrimError::from)?
            {
                // A backup has dead letters of entries that were erased later.
                let storage = self.storage.clone();
                blocking(move || storage.content_is_erased()).await?;
                forget_erased(&**processor.journal(), &store, &known).await?;
            }
            self.tell(&store, &opened.feed, &known).await?;
        }
        let storage = self.storage.clone();
        Ok(blocking(move || storage.told_again(number)).await?)
    }

    /// Removes dead letters that a restored journal has of a store that was erased, also those of entries that were trimmed before.
    async fn forget_whole(
        &self,
        store: &StoreId,
        WholeStore { last, known: (at, id) }: WholeStore,
    ) -> Result<(), EraseError> {
        let Some(processor) = &self.processor else { return Ok(()) };
        let log = self.stores.open(store).await?.feed.log();
        let known = blocking(move || log.lookup(&[id])).await?;
        let journal = &**processor.journal();
        if known != [Some(at)] || !has_letters(journal, store).await.map_err(TrimError::from)? {
            return Ok(());
        }
        let storage = self.storage.clone();
        blocking(move || storage.content_is_erased()).await?;
        forget_letters(journal, store, last).await.map_err(TrimError::from)?;
        Ok(processor.count_letters().await?)
    }
}
