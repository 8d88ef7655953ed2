//! Indexes the ids of all stores. Earlier formats had summaries of blocks of ids instead.

use bytes::Buf;

use super::packs::write;
use crate::model::varint::read_uvarint;
use crate::model::{EntryId, Sequence};
use crate::storage::sled::files::Files;
use crate::storage::sled::ids::{Index, SEAL_IDS_MAX, SEAL_IDS_MIN};
use crate::storage::sled::key::{IdsKey, Ordinal, StoreKey};
use crate::storage::sled::options::OpenFailure;
use crate::storage::sled::segments::{Arena, Portion, Reader};
use crate::storage::sled::tree::Trees;
use crate::storage::sled::value::store;

/// So many ids are merged at once.
const MERGED_AT_ONCE: usize = 1 << 16;

/// Indexes ids, and removes what was there instead.
pub(super) fn index(trees: &Trees, files: &Files) -> Result<(), OpenFailure> {
    let mut arena = Arena::open(trees.log())?;
    for record in trees.log().range(StoreKey::all_after(None)) {
        let ordinal = store::decode(&record?.1).map_err(OpenFailure::corrupt)?.ordinal;
        remove_blocks(trees, files, &mut arena, ordinal)?;
        index_store(trees, files, &mut arena, ordinal)?;
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

fn index_store(
    trees: &Trees,
    files: &Files,
    arena: &mut Arena,
    ordinal: Ordinal,
) -> Result<(), OpenFailure> {
    let reader = Reader { tree: trees.log(), ordinal };
    let last = reader.find(Sequence::MAX)?.map_or(Sequence::ZERO, |last| last.last());
    let (mut index, mut ids) = (Index::new(ordinal), Vec::new());
    let mut next = Sequence::FIRST;
    while next <= last {
        let segment = reader.segment(next)?;
        ids.extend(segment.ids().map(|(_, id)| id));
        next = segment.last().next();
        while ids.len() >= SEAL_IDS_MAX || next > last && ids.len() >= SEAL_IDS_MIN {
            let rest = ids.split_off(ids.len().min(SEAL_IDS_MAX));
            seal(&mut index, &ids, &reader, (trees, files, arena))?;
            ids = rest;
        }
    }
    Ok(())
}

fn seal(
    index: &mut Index,
    ids: &[EntryId],
    reader: &Reader<'_>,
    (trees, files, arena): (&Trees, &Files, &mut Arena),
) -> Result<(), OpenFailure> {
    let mut ids = Some(ids);
    while ids.is_some() || index.owes() {
        let mut portion = Portion::new(trees.log(), arena);
        let mut step = index.step(&mut portion);
        step.seal(ids.take().unwrap_or_default());
        step.merge(reader, MERGED_AT_ONCE)?;
        // Nobody reads it yet.
        drop(step.finish());
        let ops = portion.finish();
        write(trees, files, arena, ops)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::varint::write_uvarint;
    use crate::storage::Storage;
    use crate::storage::sled::key::SlotKey;
    use crate::storage::sled::{Database, DatabaseOptions, SledStorage, tree};
    use crate::testing::storage::{append, ids};
    use crate::testing::store as named;

    fn storage(directory: &std::path::Path) -> SledStorage {
        let database = Database::open(directory, DatabaseOptions::default()).expect("open");
        SledStorage::new(database)
    }

    #[test]
    fn ids_are_indexed_in_place_of_blocks() {
        let directory = tempfile::tempdir().expect("a directory");
        let stores = [("many", ids(SEAL_IDS_MAX + SEAL_IDS_MIN + 5)), ("few", ids(5))];
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

        index(&trees, &files).expect("indexed");
        assert_eq!(trees.log().get(slot).expect("a read").as_deref(), Some(&[][..]));
        let sealed = Reader { tree: trees.log(), ordinal: 0 }.ids().expect("an index").sealed();
        assert_eq!(sealed.get() as usize, stores[0].1.len());
        tree::close(trees).expect("closed");
        let storage = storage(directory.path());
        for (name, ids) in &stores {
            let found = storage.open(&named(name)).expect("open").lookup(ids).expect("looked up");
            assert!(found.into_iter().zip(1..).all(|(at, n)| at == Some(Sequence::ZERO.plus(n))));
        }
    }
}
