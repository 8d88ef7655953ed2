//! The records of stores in sled's tree of entries.

use super::Trees;
use crate::model::StoreId;
use crate::storage::StorageError;
use crate::storage::sled::key::StoreKey;
use crate::storage::sled::value::store::{self, StoreRecord};

/// What `log`, the tree of entries, says about `store`; `None` if it has none of its entries.
pub(crate) fn store_record(
    log: &sled::Tree,
    store: &StoreId,
) -> Result<Option<StoreRecord>, StorageError> {
    let record = log.get(StoreKey(store.clone()).to_bytes())?;
    record.map(|record| store::decode(&record)).transpose().map_err(StorageError::corrupt)
}

/// The stores whose names come after `after`, in the order of their names.
pub(crate) fn store_records(
    trees: &Trees,
    after: Option<&StoreId>,
) -> impl Iterator<Item = Result<(StoreId, StoreRecord), StorageError>> + use<> {
    trees.log().range(StoreKey::all_after(after)).map(|record| {
        let (key, record) = record?;
        let malformed = || StorageError::corrupt("malformed key of a store");
        let StoreKey(store) = StoreKey::parse(&key).ok_or_else(malformed)?;
        Ok((store, store::decode(&record).map_err(StorageError::corrupt)?))
    })
}
