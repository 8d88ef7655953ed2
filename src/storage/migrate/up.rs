//! From sled to PostgreSQL.
//!
//! Keeps: an interrupted copy is continued, store by store, from the head of each. Compared data is compared again only if requested. The
//! directory says that it was moved before the database can be served.

use std::path::Path;

use super::compare::{READ_BYTES, compare};
use super::{MigrateError, Moved, StoreState, Told, tables};
use crate::model::{Sequence, StoreId};
use crate::storage::postgres::moving::{Batch, Session, Target};
use crate::storage::postgres::{PostgresError, PostgresOptions};
use crate::storage::sled::{Backups, DatabaseOptions, Dump};

/// How many stores are handled together.
const STORES_AT_ONCE: usize = 1_000;
/// How many entries are erased with one commit.
const ERASED_AT_ONCE: usize = 4_096;

/// The source of a move.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// The data directory of a stopped server, with everything. The database can be served afterwards.
    Directory(&'a Path),
    /// The newest backup in the folder `backups`, while the server continues. What it writes since then is moved from its directory later.
    /// The folder `scratch` is created for this, and should be removed afterwards.
    Backup {
        /// Where backups are.
        backups: &'a Backups,
        /// A missing or empty folder, with space for all of it.
        scratch: &'a Path,
    },
}

/// Moves the content of `from` to the database that `to` names. With `all`, everything is compared, including what was compared before. Blocks.
pub fn to_postgres(
    from: Source<'_>,
    options: &DatabaseOptions,
    to: &PostgresOptions,
    all: bool,
    told: &Told,
) -> Result<Moved, MigrateError> {
    let mut session = Session::open(to)?;
    let dump = match from {
        Source::Directory(path) => Dump::open(path, options)?,
        Source::Backup { backups, scratch } => Dump::of_backup(backups, scratch, options)?,
    };
    let unusable = |failed: crate::storage::postgres::Failed| {
        PostgresError::Unusable(failed.to_string().into())
    };
    if session.begin_into(dump.remote_id()).map_err(unusable)? == Target::Finished {
        // Its mark was removed, so it may have been served, and have what the database has not.
        if let Source::Directory(path) = from
            && !dump.was_moved()
        {
            return Err(MigrateError::Refused(format!(
                "this server was moved to the database before, and {} has no file `moved` any more: what was written to the \
                 directory since is not in the database, and cannot be added to it. Move it to another, empty database; or, if \
                 nothing was written, go on with the database",
                path.display()
            )));
        }
        return Ok(Moved { is_finished: true, was_finished: true, ..Moved::default() });
    }
    let mut up = Up { dump, session, all, told };
    let stores = up.stores()?;
    tables::copy(&up.dump, &mut up.session)?;
    let pairs = tables::compare(&up.dump, &mut up.session)?;
    let moved = Moved { floor: up.dump.floor().get(), ..told.moved(stores, pairs) };
    let Source::Directory(path) = from else { return Ok(moved) };
    up.has_no_others()?;
    let noted = up.dump.note_moved(&to.named());
    noted.map_err(|error| crate::storage::sled::OpenError::unavailable(path, &error))?;
    up.session.finish()?;
    Ok(Moved { is_finished: true, ..moved })
}

struct Up<'a> {
    dump: Dump,
    session: Session,
    all: bool,
    told: &'a Told,
}

impl Up<'_> {
    /// Copies and compares all stores. Returns their number.
    fn stores(&mut self) -> Result<u64, MigrateError> {
        let (mut after, mut count) = (None::<StoreId>, 0);
        loop {
            let stores = self.dump.stores(after.as_ref(), STORES_AT_ONCE)?;
            let Some(last) = stores.last() else { return Ok(count) };
            after = Some(last.name.clone());
            count += stores.len() as u64;
            self.some(&stores)?;
        }
    }

    fn some(&mut self, stores: &[StoreState]) -> Result<(), MigrateError> {
        let names: Vec<&StoreId> = stores.iter().map(|store| &store.name).collect();
        let there = self.states_of(stores)?;
        for (store, there) in stores.iter().zip(&there) {
            if there.head > store.head || there.trimmed > store.trimmed {
                let (name, head, has) = (&store.name, store.head, there.head);
                return Err(MigrateError::Refused(format!(
                    "the database is ahead of what is moved: store {name} is at {has} there, and at {head} here"
                )));
            }
        }
        let mut batch = Batch::default();
        for (store, there) in stores.iter().zip(&there) {
            self.entries(store, there.head, &mut batch)?;
        }
        self.session.append(&mut batch)?;
        let from = self.session.compared(&names)?;
        for ((store, there), from) in stores.iter().zip(&there).zip(&from) {
            self.erased(store, there)?;
            if store.trimmed > there.trimmed {
                self.session.trim(store)?;
            }
            let from = if self.all { Sequence::ZERO } else { *from };
            self.compare(store, from.next())?;
        }
        let now = self.states_of(stores)?;
        if let Some((store, now)) = stores.iter().zip(&now).find(|(store, now)| store != now) {
            let (name, head, trimmed) = (&store.name, now.head, now.trimmed);
            return Err(MigrateError::Differs(format!(
                "store {name} is at {head} there, and trimmed up to {trimmed}"
            )));
        }
        let hashes = stores.iter().map(|store| Ok(self.dump.hash(&store.name)?.to_vec()));
        let hashes = hashes.collect::<Result<Vec<_>, MigrateError>>()?;
        self.session.note_hashes(stores, &hashes)?;
        Ok(self.session.note_compared(stores)?)
    }

    /// The state of each of these in the database.
    fn states_of(&mut self, stores: &[StoreState]) -> Result<Vec<StoreState>, MigrateError> {
        let names: Vec<&StoreId> = stores.iter().map(|store| &store.name).collect();
        let there = self.session.states_of(&names)?;
        let by_name: std::collections::HashMap<_, _> =
            there.iter().map(|store| (&store.name, store)).collect();
        let of = |name: &StoreId| match by_name.get(name) {
            Some(state) => (*state).clone(),
            None => {
                StoreState { name: name.clone(), head: Sequence::ZERO, trimmed: Sequence::ZERO }
            }
        };
        Ok(names.into_iter().map(of).collect())
    }

    /// Copies what comes after `has`.
    fn entries(
        &mut self,
        store: &StoreState,
        has: Sequence,
        batch: &mut Batch,
    ) -> Result<(), MigrateError> {
        let mut next = has.next();
        while next <= store.head {
            let pieces = self.dump.pieces(store, next, READ_BYTES)?;
            next = pieces.last().map_or(next, |piece| piece.segment.last().next());
            pieces.iter().for_each(|piece| self.told.copied(&piece.segment));
            batch.add(store, pieces);
            if batch.is_full() {
                self.session.append(batch)?;
            }
        }
        Ok(())
    }

    /// Erases what was erased since it was copied.
    fn erased(&mut self, store: &StoreState, there: &StoreState) -> Result<(), MigrateError> {
        let (mut from, to) = (store.trimmed, there.head);
        while from < to {
            let gone = self.dump.erased(&store.name, (from, to), ERASED_AT_ONCE)?;
            let Some(last) = gone.last() else { break };
            from = *last;
            self.session.erase(&store.name, &gone)?;
        }
        Ok(())
    }

    fn compare(&mut self, store: &StoreState, from: Sequence) -> Result<(), MigrateError> {
        let Self { dump, session, told, .. } = self;
        let mut here = |next| Ok(dump.pieces(store, next, READ_BYTES)?);
        let mut there = |next| Ok(session.pieces(store, next, READ_BYTES)?);
        compare(store, from, (&mut here, &mut there), told)
    }

    /// Checks that the database has no store that is missing in the directory.
    fn has_no_others(&mut self) -> Result<(), MigrateError> {
        let mut after = None::<StoreId>;
        loop {
            let there = self.session.stores(after.as_ref(), STORES_AT_ONCE)?;
            let here = self.dump.stores(after.as_ref(), STORES_AT_ONCE)?;
            if there != here {
                return Err(MigrateError::Differs("there are other stores".into()));
            }
            let Some(last) = there.last() else { return Ok(()) };
            after = Some(last.name.clone());
        }
    }
}
