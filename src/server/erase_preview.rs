//! Counts what an erasure would take, so that a person can be asked before it is made.
//!
//! Keeps: nothing changes. Leaves out: the erasure (`erasures`), and who is asked (`cli`).

use super::erasures::{AT_ONCE, Erase, EraseError, blocking};
use super::handle::Server;
use crate::model::{Sequence, StoreId};
use crate::processing::of_primary_key;

/// What would be erased now.
pub(super) struct Preview {
    /// The number of entries of the store; of a whole store, those that are erased already too.
    pub(super) entries: u64,
    /// The number of its entries in quarantine.
    pub(super) quarantined: u64,
}

impl Server {
    /// What [`Server::erase`] would erase. Reads the whole store for a primary key.
    pub(super) async fn would_erase(
        &self,
        store: &StoreId,
        what: Erase,
    ) -> Result<Preview, EraseError> {
        let (storage, asked) = (self.inner().storage.clone(), store.clone());
        let size = blocking(move || storage.size(&asked)).await?;
        let quarantined = self.of_quarantine(store, &what).await?.len() as u64;
        if size.entries == 0 && size.trimmed == Sequence::ZERO && quarantined == 0 {
            return Err(EraseError::NoSuchStore(store.clone()));
        }
        let log = self.inner().erasures.stores.open(store).await?.feed.log();
        let entries = match what {
            Erase::Store => size.entries,
            Erase::Ids(ids) => {
                let known = blocking(move || {
                    let known = ids.chunks(AT_ONCE).map(|part| log.lookup(part));
                    known.collect::<Result<Vec<_>, _>>()
                });
                known.await?.iter().flatten().flatten().count() as u64
            }
            Erase::PrimaryKey(key) => {
                let mut entries = 0;
                let mut next = log.trimmed().next();
                while next <= size.head {
                    let (of_log, of_key) = (log.clone(), key.clone());
                    let range = (next, size.head);
                    let read = move || of_primary_key(&*of_log, &of_key, range, AT_ONCE);
                    let (found, read_to) = blocking(read).await?;
                    entries += found.len() as u64;
                    next = read_to.next();
                }
                entries
            }
        };
        Ok(Preview { entries, quarantined })
    }
}
