//! Removes what earlier formats had instead of the index of ids: summaries of blocks of them. The first request for an
//! id rebuilds the index, as it does for any missing index.

use bytes::Buf;

use super::packs::write;
use crate::model::varint::read_uvarint;
use crate::storage::sled::files::Files;
use crate::storage::sled::key::{IdsKey, Ordinal};
use crate::storage::sled::options::OpenFailure;
use crate::storage::sled::segments::{Arena, Portion};
use crate::storage::sled::tree::{self, Trees};

/// Removes the blocks of all stores.
pub(super) fn remove(trees: &Trees, files: &Files) -> Result<(), OpenFailure> {
    let mut arena = Arena::open(trees.log())?;
    for record in tree::store_records(trees, None) {
        remove_blocks(trees, files, &mut arena, record?.1.ordinal)?;
    }
    Ok(())
}

fn remove_blocks(
    trees: &Trees,
    files: &Files,
    arena: &mut Arena,
    ordinal: Ordinal,
) -> Result<(), OpenFailure> {
    let mut portion = Portion::new(trees.log(), arena);
    for record in trees.log().range(IdsKey::of_store(ordinal)) {
        let (key, summary) = record?;
        let slot = slot_of(&summary);
        let slot =
            slot.ok_or_else(|| OpenFailure::Corrupt("malformed block summary".to_owned()))?;
        portion.free_slots(slot, 1);
        portion.remove(&key);
    }
    let ops = portion.finish();
    Ok(write(trees, files, arena, ops)?)
}

/// Where the fingerprints of a block are: `version 1 (1) | count, uvarint | slot, uvarint`, and ranges.
fn slot_of(mut summary: &[u8]) -> Option<u64> {
    let is_known = summary.try_get_u8() == Ok(1);
    read_uvarint(&mut summary)?;
    read_uvarint(&mut summary).filter(|_| is_known)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Sequence;
    use crate::model::varint::write_uvarint;
    use crate::storage::Storage;
    use crate::storage::sled::ids::{SEAL_IDS_MAX, SEAL_IDS_MIN};
    use crate::storage::sled::key::SlotKey;
    use crate::storage::sled::{Database, DatabaseOptions, SledStorage};
    use crate::testing::storage::{append, ids};
    use crate::testing::store as named;

    fn storage(directory: &std::path::Path) -> SledStorage {
        let database = Database::open(directory, DatabaseOptions::default()).expect("open");
        SledStorage::new(database)
    }

    #[test]
    fn ids_are_known_without_the_blocks() {
        let directory = tempfile::tempdir().expect("a directory");
        let stores = [("many", ids(2 * SEAL_IDS_MAX + SEAL_IDS_MIN)), ("few", ids(5))];
        let written = storage(directory.path());
        for (name, ids) in &stores {
            append(&*written.open(&named(name)).expect("open"), ids, 5);
        }
        written.database.close().expect("closed");
        drop(written);

        let files = Files::unlocked(directory.path());
        let trees = tree::open(&files, &DatabaseOptions::default(), 0).expect("sled");
        // As an earlier version left it.
        for record in trees.log().range(IdsKey::of_store(0)).keys() {
            trees.log().remove(record.expect("a key")).expect("removed");
        }
        let slot = SlotKey::new(1_000_000).to_bytes();
        trees.log().insert(slot, b"fingerprints").expect("written");
        let mut summary = vec![1];
        [8_192, 1_000_000, 0].iter().for_each(|number| write_uvarint(&mut summary, *number));
        let block = IdsKey { ordinal: 0, number: 1 }.to_bytes();
        trees.log().insert(block, summary).expect("written");

        remove(&trees, &files).expect("removed");
        assert_eq!(trees.log().get(slot).expect("a read").as_deref(), Some(&[][..]));
        assert_eq!(trees.log().range(IdsKey::of_store(0)).count(), 0);
        tree::close(trees).expect("closed");
        let storage = storage(directory.path());
        for (name, ids) in &stores {
            let found = storage.open(&named(name)).expect("open").lookup(ids).expect("looked up");
            assert!(found.into_iter().zip(1..).all(|(at, n)| at == Some(Sequence::ZERO.plus(n))));
        }
    }
}
