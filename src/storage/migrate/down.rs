//! From PostgreSQL to sled.
//!
//! Keeps: the directory can be served only once it is complete and compared, and the database says that it was moved. An interrupted
//! attempt starts again.

use std::path::Path;

use super::compare::{READ_BYTES, compare};
use super::{MigrateError, Moved, StoreState, Told, tables};
use crate::model::{Sequence, StoreId};
use crate::storage::StorageError;
use crate::storage::postgres::moving::Session;
use crate::storage::postgres::{Failed, PostgresError, PostgresOptions};
use crate::storage::sled::{DatabaseOptions, Dump, Filler, Filling, Keyspace};

/// How many stores are handled together.
const STORES_AT_ONCE: usize = 1_000;

/// Moves everything in the database that `from` names to the data directory `to`, which is missing or empty. All nodes must be stopped.
/// Blocks.
pub fn to_directory(
    from: &PostgresOptions,
    to: &Path,
    options: &DatabaseOptions,
    told: &Told,
) -> Result<Moved, MigrateError> {
    let mut session = Session::open(from)?;
    let unusable = |failed: Failed| PostgresError::Unusable(failed.to_string().into());
    let (remote_id, was_moved) = session.begin_from().map_err(unusable)?;
    if was_moved && !Filling::is_begun(to) {
        return Err(MigrateError::Refused(
            "the server was moved from this database before, and may have gone on elsewhere".into(),
        ));
    }
    let filling = Filling::begin(to)?;
    filling.fill(options, remote_id, |filler| fill(&mut session, filler, told))?;
    let dump = filling.read(options)?;
    let stores = compare_stores(&mut session, &dump, told)?;
    let pairs = tables::compare(&dump, &mut session)?;
    drop(dump);
    session.note_moved()?;
    filling.end()?;
    Ok(Moved { is_finished: true, ..told.moved(stores, pairs) })
}

fn fill(
    session: &mut Session,
    filler: &mut Filler<'_, '_>,
    told: &Told,
) -> Result<(), StorageError> {
    let mut after = None::<StoreId>;
    loop {
        let stores = session.stores(after.as_ref(), STORES_AT_ONCE)?;
        let Some(last) = stores.last() else { break };
        after = Some(last.name.clone());
        for store in &stores {
            session.note_foreign(&store.name)?;
            filler.store(&store.name)?;
            let mut next = Sequence::FIRST;
            while next <= store.head {
                for piece in session.pieces(store, next, READ_BYTES)? {
                    next = piece.segment.last().next();
                    told.copied(&piece.segment);
                    filler.piece(&piece)?;
                }
            }
            if store.trimmed > Sequence::ZERO {
                filler.trim(store.trimmed)?;
            }
        }
    }
    for table in Keyspace::TABLES {
        for pair in session.table(table).0 {
            let (key, value) = pair?;
            filler.pair(table, &key, &value)?;
        }
    }
    Ok(())
}

fn compare_stores(session: &mut Session, dump: &Dump, told: &Told) -> Result<u64, MigrateError> {
    let (mut after, mut count) = (None::<StoreId>, 0);
    loop {
        let here = dump.stores(after.as_ref(), STORES_AT_ONCE)?;
        let there = session.stores(after.as_ref(), STORES_AT_ONCE)?;
        if here != there {
            return Err(MigrateError::Differs("stores, their heads, or what is trimmed".into()));
        }
        let Some(last) = here.last() else { return Ok(count) };
        after = Some(last.name.clone());
        count += here.len() as u64;
        for store in &here {
            one(session, dump, store, told)?;
        }
    }
}

fn one(
    session: &mut Session,
    dump: &Dump,
    store: &StoreState,
    told: &Told,
) -> Result<(), MigrateError> {
    let mut there = |next| Ok(session.pieces(store, next, READ_BYTES)?);
    let mut here = |next| Ok(dump.pieces(store, next, READ_BYTES)?);
    compare(store, Sequence::FIRST, (&mut there, &mut here), told)
}
