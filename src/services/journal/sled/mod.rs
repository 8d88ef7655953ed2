//! The journal on sled, in one tree, so that an entry, its index and the position are one commit.
//!
//! Keeps: what [`EventJournal`] promises. Leaves out: how a commit gets on disk (`storage::sled`).

mod key;

use std::ops::{Bound, RangeInclusive};
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::broadcast;

use crate::model::{Entry, EntryId, RemoteEntry, RemoteId, Sequence};
use crate::storage::StorageError;
use crate::storage::sled::{Database, Keyspace, Ops, Tree, VALUE_BYTES_MAX};

use self::key::Subject;
use super::{CHANGES_MAX, Conflicts, EventJournal, JournalChange, JournalError};

/// Most keys that one commit of [`EventJournal::destroy`] removes.
const REMOVED_AT_ONCE: usize = 10_000;

/// A journal in a [`Database`]. Wants a tokio runtime: reads run where they may block.
pub struct SledJournal {
    database: Database,
    changes: broadcast::Sender<JournalChange>,
}

impl SledJournal {
    /// The journal in `database`, an empty one if there was none.
    pub fn new(database: Database) -> Self {
        Self { database, changes: broadcast::channel(CHANGES_MAX).0 }
    }

    /// Asks `question` of the tree, where it may block.
    fn read<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Tree) -> Result<T, StorageError> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, JournalError>> {
        let database = self.database.clone();
        async move {
            let ask = move || question(&database.tree(Keyspace::Journal)?);
            let answer = tokio::task::spawn_blocking(ask).await;
            let answer = answer.unwrap_or_else(|error| Err(StorageError::unavailable(error)));
            answer.map_err(|error| JournalError::Unreadable(error.to_string().into()))
        }
        .boxed()
    }

    async fn commit(&self, ops: Ops) -> Result<(), JournalError> {
        let committed = self.database.commit(Keyspace::Journal, ops).await;
        committed.map_err(|error| JournalError::Unwritten(error.to_string().into()))
    }
}

impl EventJournal for SledJournal {
    fn next_remote_sequence(
        &self,
        origin: RemoteId,
    ) -> BoxFuture<'_, Result<Sequence, JournalError>> {
        self.read(move |tree| match tree.get(key::position(origin))? {
            None => Ok(Sequence::FIRST),
            Some(value) => {
                key::read_sequence(&value).map(Sequence::next).ok_or_else(|| corrupt("a position"))
            }
        })
    }

    fn conflicts<'a>(
        &'a self,
        origin: RemoteId,
        entry: &'a Entry,
    ) -> BoxFuture<'a, Result<Conflicts, JournalError>> {
        let (id, subject) = (entry.id, key::subject(entry));
        let (event, primary_key) = (entry.event.clone(), entry.primary_key.clone());
        self.read(move |tree| {
            let entries = later(tree, origin, &subject, id);
            // Subjects are hashes: what only shares the hash is no conflict.
            Conflicts::collect(entries.filter(|entry| match entry {
                Ok(one) => one.entry.event == event && one.entry.primary_key == primary_key,
                Err(_) => true,
            }))
        })
    }

    fn append(
        &self,
        origin: RemoteId,
        entries: Vec<Arc<RemoteEntry>>,
        through: Sequence,
    ) -> BoxFuture<'_, Result<(), JournalError>> {
        async move {
            let mut ops = Ops::default();
            ops.insert(key::position(origin), &key::sequence_value(through));
            for one in &entries {
                let RemoteEntry { remote_sequence: sequence, entry } = &**one;
                let value = key::entry_value(entry);
                for (part, bytes) in (0..).zip(value.chunks(VALUE_BYTES_MAX)) {
                    ops.insert(key::entry(origin, *sequence, part), bytes);
                }
                let index = key::subject_entry(origin, &key::subject(entry), entry.id);
                ops.insert(index, &key::sequence_value(*sequence));
            }
            self.commit(ops).await?;
            for entry in entries {
                // Fails without receivers, which is as good.
                let _ = self.changes.send(JournalChange { origin, entry });
            }
            Ok(())
        }
        .boxed()
    }

    fn entries(
        &self,
        origin: RemoteId,
        from: Sequence,
        count: usize,
    ) -> BoxFuture<'_, Result<Vec<RemoteEntry>, JournalError>> {
        self.read(move |tree| entries(tree, origin, from..=Sequence::MAX).take(count).collect())
    }

    fn changes(&self) -> broadcast::Receiver<JournalChange> {
        self.changes.subscribe()
    }

    /// In several commits, positions first. If it fails or the process ends between two, repeat it: until then
    /// entries of the time before can turn up as conflicts.
    fn destroy(&self) -> BoxFuture<'_, Result<(), JournalError>> {
        async move {
            loop {
                let keys = self.read(|tree| {
                    let all = tree.range::<&[u8]>((Bound::Unbounded, Bound::Unbounded));
                    let keys = all.take(REMOVED_AT_ONCE).map(|pair| pair.map(|(key, _)| key));
                    keys.collect::<Result<Vec<_>, _>>()
                });
                let keys = keys.await?;
                if keys.is_empty() {
                    return Ok(());
                }
                let mut ops = Ops::default();
                keys.into_iter().for_each(|key| ops.remove(key));
                self.commit(ops).await?;
            }
        }
        .boxed()
    }
}

/// The journaled entries of `origin` with this subject and a greater id, the greatest id first. Reads no others.
fn later<'a>(
    tree: &'a Tree,
    origin: RemoteId,
    subject: &Subject,
    id: EntryId,
) -> impl Iterator<Item = Result<Arc<RemoteEntry>, StorageError>> + use<'a> {
    let after = key::subject_entry(origin, subject, id);
    let last = key::subject_entry(origin, subject, key::ID_MAX);
    let keys = tree.range_backwards((Bound::Excluded(after), Bound::Included(last)));
    keys.map(move |item| {
        let (_, sequence) = item?;
        let sequence = key::read_sequence(&sequence).ok_or_else(|| corrupt("an index"))?;
        let entry = entries(tree, origin, sequence..=sequence).next();
        entry.unwrap_or_else(|| Err(corrupt("an entry"))).map(Arc::new)
    })
}

/// The journaled entries of `origin` in `range`, joined from their parts.
fn entries(
    tree: &Tree,
    origin: RemoteId,
    range: RangeInclusive<Sequence>,
) -> impl Iterator<Item = Result<RemoteEntry, StorageError>> {
    let (first, last) = range.into_inner();
    let (first, last) = (key::entry(origin, first, 0), key::entry(origin, last, u32::MAX));
    let mut parts = tree.range((Bound::Included(first), Bound::Included(last))).peekable();
    std::iter::from_fn(move || {
        let (key, value) = match parts.next()? {
            Ok(part) => part,
            Err(error) => return Some(Err(error)),
        };
        let sequence = key::entry_sequence(&key);
        let mut value = value.to_vec();
        let same = |key: &[u8]| key::entry_sequence(key) == sequence;
        // An error ends this entry and is given in place of the next.
        while let Some(Ok((_, part))) =
            parts.next_if(|item| item.as_ref().is_ok_and(|(key, _)| same(key)))
        {
            value.extend_from_slice(&part);
        }
        let entry = sequence.and_then(|sequence| key::read_entry(sequence, &value));
        Some(entry.ok_or_else(|| corrupt("an entry")))
    })
}

fn corrupt(what: &str) -> StorageError {
    StorageError::corrupt(format_args!("{what} of the journal is malformed or missing"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::storage::sled::DatabaseOptions;
    use crate::testing::journal::{entry, origin};
    use crate::testing::on_sled::OnSled;

    crate::contract_tests!(journal: OnSled::<dyn EventJournal>::new(
        |database| Arc::new(SledJournal::new(database))
    ));

    fn open(path: &Path) -> (SledJournal, Database) {
        let database = Database::open(path, DatabaseOptions::default()).expect("opens");
        (SledJournal::new(database.clone()), database)
    }

    #[tokio::test]
    async fn destroying_empties_the_tree() {
        let directory = tempfile::tempdir().expect("a directory");
        let (journal, _) = open(directory.path());
        let entries = (1..=9).map(|n| Arc::new(entry(n, "e", "k", n))).collect();
        let through = Sequence::FIRST.plus(8);
        journal.append(origin("a"), entries, through).await.expect("written");
        journal.destroy().await.expect("destroyed");
        let tree = journal.database.tree(Keyspace::Journal).expect("a tree");
        let mut left = tree.range::<&[u8]>((Bound::Unbounded, Bound::Unbounded));
        assert!(left.next().is_none(), "something is left");
    }

    #[tokio::test]
    async fn a_lookup_visits_the_conflicts_alone_whatever_the_size_of_the_journal() {
        let directory = tempfile::tempdir().expect("a directory");
        let (journal, database) = open(directory.path());
        for size in [100, 10_000] {
            let origin = origin(&size.to_string());
            let entries = (1..=size).map(|n| entry(n, "e", &(n % (size / 5)).to_string(), n));
            let entries = entries.map(Arc::new).collect();
            let through = Sequence::new(size).expect("a sequence");
            journal.append(origin, entries, through).await.expect("written");
            let early = entry(size + 1, "e", "7", 0).entry;
            let tree = database.tree(Keyspace::Journal).expect("a tree");
            assert_eq!(later(&tree, origin, &key::subject(&early), early.id).count(), 5);
        }
    }

    #[tokio::test]
    async fn a_closed_database_is_an_error_not_a_panic() {
        let directory = tempfile::tempdir().expect("a directory");
        let (journal, database) = open(directory.path());
        database.close().expect("closed");
        let written = journal.append(origin("a"), vec![], Sequence::FIRST).await;
        assert!(matches!(written, Err(JournalError::Unwritten(_))));
    }
}
