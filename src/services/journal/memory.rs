//! A journal in memory: for tests, and for servers that replay everything at each start.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::broadcast;

use crate::model::{Entry, EntryId, RemoteEntry, RemoteId, Sequence};

use super::{CHANGES_MAX, Conflicts, EventJournal, JournalChange, JournalError};

/// A journal that ends with the process. Grows with what it journals.
#[derive(Debug)]
pub struct MemoryJournal {
    // Never held across an await: every method is done within its call.
    origins: Mutex<HashMap<RemoteId, Journaled>>,
    changes: broadcast::Sender<JournalChange>,
}

/// What is journaled of one origin.
#[derive(Debug, Default)]
struct Journaled {
    through: Sequence,
    by_sequence: BTreeMap<Sequence, Arc<RemoteEntry>>,
    by_subject: HashMap<Subject, BTreeMap<EntryId, Arc<RemoteEntry>>>,
}

/// Event and primary key.
type Subject = (String, String);

impl MemoryJournal {
    /// An empty journal.
    pub fn new() -> Self {
        Self { origins: Mutex::default(), changes: broadcast::channel(CHANGES_MAX).0 }
    }
}

impl Default for MemoryJournal {
    fn default() -> Self {
        Self::new()
    }
}

impl Journaled {
    fn append(&mut self, entry: &Arc<RemoteEntry>) {
        let subject = (entry.entry.event.clone(), entry.entry.primary_key.clone());
        self.by_sequence.insert(entry.remote_sequence, Arc::clone(entry));
        self.by_subject.entry(subject).or_default().insert(entry.entry.id, Arc::clone(entry));
    }

    fn conflicts(&self, entry: &Entry) -> Conflicts {
        let subject = (entry.event.clone(), entry.primary_key.clone());
        let same_subject = self.by_subject.get(&subject).into_iter();
        let later = same_subject.flat_map(|entries| entries.range(entry.id..).rev());
        let later = later.filter(|(id, _)| **id > entry.id);
        Conflicts::collect(
            later.map(|(_, entry)| Ok::<_, std::convert::Infallible>(Arc::clone(entry))),
        )
        .unwrap_or_else(|never| match never {})
    }
}

impl EventJournal for MemoryJournal {
    fn next_remote_sequence(
        &self,
        origin: RemoteId,
    ) -> BoxFuture<'_, Result<Sequence, JournalError>> {
        let through = self.origins.lock().get(&origin).map_or(Sequence::ZERO, |own| own.through);
        ready(through.next())
    }

    fn conflicts<'a>(
        &'a self,
        origin: RemoteId,
        entry: &'a Entry,
    ) -> BoxFuture<'a, Result<Conflicts, JournalError>> {
        let none = || Conflicts { entries: Vec::new(), complete: true };
        ready(self.origins.lock().get(&origin).map_or_else(none, |own| own.conflicts(entry)))
    }

    fn append(
        &self,
        origin: RemoteId,
        entries: Vec<Arc<RemoteEntry>>,
        through: Sequence,
    ) -> BoxFuture<'_, Result<(), JournalError>> {
        let mut origins = self.origins.lock();
        let own = origins.entry(origin).or_default();
        for entry in entries {
            own.append(&entry);
            // Fails without receivers, which is as good.
            let _ = self.changes.send(JournalChange { origin, entry });
        }
        own.through = through;
        ready(())
    }

    fn entries(
        &self,
        origin: RemoteId,
        from: Sequence,
        count: usize,
    ) -> BoxFuture<'_, Result<Vec<RemoteEntry>, JournalError>> {
        let origins = self.origins.lock();
        let journaled = origins.get(&origin).into_iter();
        let entries = journaled.flat_map(|own| own.by_sequence.range(from..)).take(count);
        ready(entries.map(|(_, entry)| RemoteEntry::clone(entry)).collect())
    }

    fn changes(&self) -> broadcast::Receiver<JournalChange> {
        self.changes.subscribe()
    }

    fn destroy(&self) -> BoxFuture<'_, Result<(), JournalError>> {
        self.origins.lock().clear();
        ready(())
    }
}

fn ready<T: Send + 'static>(value: T) -> BoxFuture<'static, Result<T, JournalError>> {
    Box::pin(std::future::ready(Ok(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    crate::contract_tests!(journal: Arc::new(MemoryJournal::new()) as Arc<dyn EventJournal>);
}
