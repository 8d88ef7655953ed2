//! Keeps the witness: it states what the database contained at its last checkpoint, apart from the database. Compares
//! the two when the database is opened.
//!
//! Keeps: the witness is written after sled was synced, so sled never has less than the witness says; if sled has less
//! or differs, that is reported. Leaves out: what follows from that (`open`, `rebuild`).

use std::collections::HashMap;
use std::io;
use std::path::Path;

use super::key::Ordinal;
use super::keyspace::Keyspace;
use super::ops::Ops;
use super::options::OpenFailure;
use super::segments::Reader;
use super::tree::{self, Facts, Trees};
use super::value::store::StoreRecord;
use crate::model::{Sequence, StoreId};
use crate::storage::commit_log::{Generation, Position};
use crate::storage::witness::{
    HeadRecord, Heads, HeadsHash, ReadHead, StoreHash, TablesHash, Witness, WitnessFiles,
};

/// Where a store ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reached {
    pub(super) ordinal: Ordinal,
    pub(super) head: Sequence,
    pub(super) hash: StoreHash,
}

/// Writes the witness.
pub(super) struct Watch {
    files: WitnessFiles,
    heads: Heads,
    last: Witness,
    /// Stores that are in sled up to here, and not yet in the witness.
    reached: HashMap<StoreId, Reached>,
    /// The hash over what is in sled. `None` if it must be read.
    stores: Option<(HeadsHash, u64)>,
    tables: Option<TablesHash>,
}

impl Watch {
    /// Compares sled with the witness, and starts to keep the witness. An error of sled is [`OpenFailure::Corrupt`].
    pub(super) fn open(
        directory: &Path,
        trees: &Trees,
        facts: &Facts,
        position: Position,
    ) -> Result<Self, OpenFailure> {
        let (mut files, found) = WitnessFiles::open(directory)?;
        if found.newest.is_some() {
            for path in &found.damaged {
                log::warn!("{} is damaged; the other copy is used", path.display());
            }
        } else if position > Position(0) {
            log::warn!("both copies of the witness are lost: what sled has cannot be compared");
        }
        let heads = Heads::open(directory, Generation(facts.generation))?;
        let (now, behind) = compare_with(found.newest, &heads, trees, facts, position)?;
        heads.update(&behind)?;
        if found.newest != Some(now) || !found.damaged.is_empty() {
            files.write(&now)?;
        }
        let (stores, tables) = (Some((now.heads, now.stores)), Some(now.tables));
        Ok(Self { files, heads, last: now, reached: HashMap::new(), stores, tables })
    }

    /// Whether the commit log began with an empty database.
    pub(super) fn is_complete(&self) -> bool {
        self.last.complete
    }

    /// Of the directory.
    pub(super) fn generation(&self) -> Generation {
        self.last.generation
    }

    /// What sled had at the last checkpoint.
    pub(super) fn position(&self) -> Position {
        self.last.position
    }

    /// `store` is in sled up to here, and sled was synced.
    pub(super) fn reached(&mut self, store: StoreId, reached: Reached) {
        self.reached.insert(store, reached);
    }

    /// The hash over the tables after `ops` are applied. It must be passed to [`Watch::set_tables`] when they are in
    /// sled and sled was synced. Until then, it is not known.
    pub(super) fn change_tables(
        &mut self,
        trees: &Trees,
        table: Keyspace,
        ops: &Ops,
    ) -> io::Result<Option<TablesHash>> {
        let Some(mut hash) = self.tables.take() else { return Ok(None) };
        for (key, value) in ops.iter() {
            let before = trees.get(table).get(key)?;
            hash.change(table.number(), key, before.as_deref(), value);
        }
        Ok(Some(hash))
    }

    pub(super) fn set_tables(&mut self, tables: Option<TablesHash>) {
        self.tables = tables;
    }

    /// Writes that sled, which was synced, has everything up to `position`. After an error, the next call tries again.
    pub(super) fn write(&mut self, trees: &Trees, position: Position) -> io::Result<()> {
        let before = self.stores.take();
        let mut stores = before;
        let mut records = Vec::with_capacity(self.reached.len());
        for (store, Reached { ordinal, head, hash }) in &self.reached {
            if let Some((sum, count)) = &mut stores {
                match self.heads.get(*ordinal)?.record {
                    Some(old) => sum.remove(store, old.head, old.hash),
                    None => *count += 1,
                }
                sum.add(store, *head, *hash);
            }
            records.push((*ordinal, HeadRecord { head: *head, hash: *hash, position }));
        }
        records.sort_unstable_by_key(|(ordinal, _)| *ordinal);
        self.heads.update(&records)?;
        let (heads, count) = match stores {
            Some(stores) => stores,
            None => Compared::read(trees, &self.heads, position)
                .map(|compared| (compared.hash, compared.stores))?,
        };
        let tables = self.tables.map_or_else(|| tables_in(trees), Ok)?;
        let witness = Witness { position, heads, stores: count, tables, ..self.last };
        self.files.write(&witness)?;
        self.last = witness;
        self.reached.clear();
        self.stores = Some((heads, count));
        self.tables = Some(tables);
        Ok(())
    }
}

/// Reports an error of sled if it has less than the witness says. Changes nothing.
pub(super) fn compare(
    directory: &Path,
    trees: &Trees,
    facts: &Facts,
    position: Position,
) -> Result<Witness, OpenFailure> {
    let (_, found) = WitnessFiles::open(directory)?;
    let heads = Heads::to_read(directory, Generation(facts.generation))?;
    Ok(compare_with(found.newest, &heads, trees, facts, position)?.0)
}

fn compare_with(
    found: Option<Witness>,
    heads: &Heads,
    trees: &Trees,
    facts: &Facts,
    position: Position,
) -> Result<(Witness, Vec<(Ordinal, HeadRecord)>), OpenFailure> {
    let compared = Compared::read(trees, heads, position)?;
    let now = Witness {
        generation: Generation(facts.generation),
        remote_id: facts.remote_id,
        floor: facts.floor,
        position,
        heads: compared.hash,
        stores: compared.stores,
        tables: tables_in(trees)?,
        complete: found.map_or(facts.checkpoint.is_none(), |found| found.complete),
    };
    if let Some(found) = &found {
        check(found, &now, facts)?;
    }
    Ok((now, compared.behind))
}

/// Whether sled, whose state is `now`, has everything in the witness that was `found`.
fn check(found: &Witness, now: &Witness, facts: &Facts) -> Result<(), OpenFailure> {
    if (found.generation, found.remote_id) != (now.generation, now.remote_id) {
        return Err(OpenFailure::corrupt("sled belongs to another directory"));
    }
    if found.floor != now.floor {
        return Err(OpenFailure::corrupt("sled has lost what new stores begin behind"));
    }
    if found.position > now.position {
        let (has, had) = (now.position, found.position);
        let finding = format!("sled has the commit log up to frame {has}, and had it up to {had}");
        return Err(OpenFailure::Corrupt(finding));
    }
    if facts.changing || found.position < now.position {
        return Ok(());
    }
    if (found.stores, found.heads) != (now.stores, now.heads) {
        return Err(OpenFailure::corrupt("sled has other stores than it had"));
    }
    if found.tables != now.tables {
        return Err(OpenFailure::corrupt(
            "sled has another registry, or other tables, than it had",
        ));
    }
    Ok(())
}

/// What sled says about its stores, compared with the heads that are kept apart from it.
struct Compared {
    hash: HeadsHash,
    stores: u64,
    /// Heads that must be written again.
    behind: Vec<(Ordinal, HeadRecord)>,
}

impl Compared {
    fn read(trees: &Trees, heads: &Heads, position: Position) -> Result<Self, OpenFailure> {
        let mut stores = stores_in(trees)?;
        let mut compared = Self { hash: HeadsHash::default(), stores: 0, behind: Vec::new() };
        for (store, reached) in stores.values() {
            compared.hash.add(store, reached.head, reached.hash);
            compared.stores += 1;
        }
        let mut lost = None;
        heads.read_all(|ordinal, found| {
            let in_sled = stores.remove(&ordinal);
            match in_sled {
                Some((store, reached)) => match compare_head(&store, reached, found) {
                    Ok(true) => {}
                    Ok(false) => compared.behind.push(record(reached, position)),
                    Err(finding) => drop(lost.get_or_insert(finding)),
                },
                None => {
                    if let Some(HeadRecord { head, .. }) = found.record {
                        let finding = format!(
                            "sled has lost the store with number {ordinal}, and its {head} entries"
                        );
                        lost.get_or_insert(finding);
                    }
                }
            }
        })?;
        if let Some(finding) = lost {
            return Err(OpenFailure::Corrupt(finding));
        }
        compared.behind.extend(stores.into_values().map(|(_, reached)| record(reached, position)));
        Ok(compared)
    }
}

/// Whether the head that was found matches sled. An error if sled has less.
fn compare_head(store: &StoreId, reached: Reached, found: ReadHead) -> Result<bool, String> {
    let Some(record) = found.record else { return Ok(false) };
    let (has, had) = (reached.head, record.head);
    if has < had {
        return Err(format!("sled has lost entries {} to {had} of store {store:?}", has.next()));
    }
    if has == had && reached.hash != record.hash {
        return Err(format!("sled has other entries in store {store:?} than it had"));
    }
    Ok(has == had && !found.damaged)
}

fn record(reached: Reached, position: Position) -> (Ordinal, HeadRecord) {
    let Reached { ordinal, head, hash } = reached;
    (ordinal, HeadRecord { head, hash, position })
}

fn stores_in(trees: &Trees) -> Result<HashMap<Ordinal, (StoreId, Reached)>, OpenFailure> {
    let mut stores = HashMap::new();
    for record in tree::store_records(trees, None) {
        let (name, StoreRecord { ordinal, head, hash, .. }) = record?;
        let head = match head {
            Some(head) => head,
            None => {
                let last = Reader { tree: trees.log(), ordinal }.find(Sequence::MAX)?;
                last.map_or(Sequence::ZERO, |last| last.last())
            }
        };
        stores.insert(ordinal, (name, Reached { ordinal, head, hash }));
    }
    Ok(stores)
}

fn tables_in(trees: &Trees) -> io::Result<TablesHash> {
    let mut hash = TablesHash::default();
    for table in Keyspace::TABLES {
        for pair in trees.get(table) {
            let (key, value) = pair?;
            hash.change(table.number(), &key, None, Some(&value));
        }
    }
    Ok(hash)
}
