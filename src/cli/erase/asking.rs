//! Says what an erasure would take, and asks for confirmation.

use eventlog_server::model::StoreId;
use eventlog_server::processing::of_primary_key;
use eventlog_server::storage::{StorageError, StoreLog, StoreSize};
use serde::Deserialize;

use super::{AT_ONCE, EraseCommandError, What};
use crate::cli::data_dir::{is_confirmed, is_confirmed_by};
use crate::cli::text::entries;

/// How many entries would be erased.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Preview {
    entries: u64,
    #[serde(default)]
    quarantined: u64,
}

impl Preview {
    /// Of a store of this size, in the directory of a stopped server. Blocks on disk reads.
    pub(super) fn of(
        what: &What,
        log: &dyn StoreLog,
        size: StoreSize,
        quarantined: u64,
    ) -> Result<Self, StorageError> {
        let mut entries = 0;
        if what.is_whole() {
            entries = size.entries;
        }
        for part in what.ids.chunks(AT_ONCE) {
            entries += log.lookup(part)?.iter().flatten().count() as u64;
        }
        let mut next = log.trimmed().next();
        while let Some(key) = what.primary_key.as_ref().filter(|_| next <= size.head) {
            let (found, read_to) = of_primary_key(log, key, (next, size.head), AT_ONCE)?;
            entries += found.len() as u64;
            next = read_to.next();
        }
        Ok(Self { entries, quarantined })
    }

    /// Says it, and asks. For a whole store its name has to be typed.
    pub(super) fn confirm(self, what: &What, store: &StoreId) -> Result<(), EraseCommandError> {
        let Self { entries: count, quarantined } = self;
        let (store, lose) = (store.as_str(), if count == 1 { "loses its" } else { "lose their" });
        let more = if quarantined > 0 {
            format!(" {} of it in quarantine go too.", entries(quarantined))
        } else {
            String::new()
        };
        let is_yes = if what.is_whole() {
            println!(
                "{} of store {store:?} {lose} content, and the keys of the store are removed, for good.{more}",
                entries(count)
            );
            is_confirmed_by(store)
        } else {
            let key = what.primary_key.as_ref();
            let of = key.map_or_else(String::new, |key| format!(" with the primary key {key:?}"));
            println!("{} of store {store:?}{of} {lose} content, for good.{more}", entries(count));
            is_confirmed()
        };
        if is_yes.map_err(EraseCommandError::Ask)? {
            Ok(())
        } else {
            Err(EraseCommandError::NotConfirmed)
        }
    }
}
