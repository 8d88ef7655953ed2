//! What every journal must do; each implementation runs it.

use std::ops::ControlFlow;

use bytes::Bytes;
use proptest::prelude::Strategy;

use super::*;
use crate::model::EntryId;
use crate::processing::{Effect, write_from_remote};

pub(crate) fn entry(sequence: u64, event: &str, primary_key: &str, id: u64) -> RemoteEntry {
    let mut bytes = [0; 16];
    bytes[8..].copy_from_slice(&id.to_be_bytes());
    let remote_sequence = Sequence::new(sequence).expect("a sequence");
    let (event, primary_key) = (event.to_owned(), primary_key.to_owned());
    let payload = Bytes::from(format!("payload of {id}"));
    let id = EntryId::from_bytes(bytes);
    RemoteEntry { remote_sequence, entry: Entry { id, event, primary_key, payload } }
}

pub(crate) fn origin(store: &str) -> RemoteId {
    journal_origin(&StoreId::new(store).expect("a store id"))
}

/// Wants every event but `"passed"`; keeps what it ran on, with the sequences of the conflicts.
#[derive(Default)]
pub(crate) struct Recorder(pub(crate) Vec<(u64, Vec<u64>)>);

impl Effect for Recorder {
    fn wants(&self, event: &str) -> bool {
        event != "passed"
    }

    async fn run(&mut self, entry: Arc<RemoteEntry>, conflicts: Conflicts) -> ControlFlow<()> {
        let sequences = conflicts.entries.iter().map(|entry| entry.remote_sequence.get());
        self.0.push((entry.remote_sequence.get(), sequences.collect()));
        ControlFlow::Continue(())
    }
}

async fn write(
    journal: &dyn EventJournal,
    store: &str,
    entries: Vec<RemoteEntry>,
    through: u64,
) -> Vec<(u64, Vec<u64>)> {
    let mut recorder = Recorder::default();
    let through = Sequence::new(through).expect("a sequence");
    let mut next = journal.next_remote_sequence(origin(store)).await.expect("read");
    let written =
        write_from_remote(journal, origin(store), &mut next, entries, through, &mut recorder);
    written.await.expect("written");
    assert_eq!(journal.next_remote_sequence(origin(store)).await.expect("read"), next);
    recorder.0
}

async fn next(journal: &dyn EventJournal, store: &str) -> u64 {
    journal.next_remote_sequence(origin(store)).await.expect("read").get()
}

/// Runs every promise of the trait on an empty journal, and leaves it empty.
pub(crate) async fn run(journal: &dyn EventJournal) {
    each_entry_is_run_once_and_the_position_follows(journal).await;
    conflicts_are_the_later_ids_of_the_same_subject_in_order(journal).await;
    conflicts_are_bounded_and_the_latest_are_kept(journal).await;
    an_append_can_be_repeated(journal).await;
    an_entry_of_any_size_comes_back_whole(journal).await;
    changes_tell_what_is_journaled(journal).await;
}

async fn clear(journal: &dyn EventJournal) {
    journal.destroy().await.expect("destroyed");
    assert_eq!(next(journal, "a").await, 1);
    let left = journal.entries(origin("a"), Sequence::FIRST, 1).await.expect("read");
    assert_eq!(left, []);
}

async fn each_entry_is_run_once_and_the_position_follows(journal: &dyn EventJournal) {
    assert_eq!(next(journal, "a").await, 1);
    let first = vec![entry(1, "e", "k", 1), entry(2, "passed", "k", 2), entry(4, "e", "l", 4)];
    assert_eq!(write(journal, "a", first.clone(), 6).await, [(1, vec![]), (4, vec![])]);
    assert_eq!(next(journal, "a").await, 7);
    assert_eq!(next(journal, "b").await, 1);
    let mut again = first.clone();
    again.push(entry(7, "passed", "k", 7));
    assert_eq!(write(journal, "a", again, 7).await, []);
    assert_eq!(next(journal, "a").await, 8);
    let entries = journal.entries(origin("a"), Sequence::FIRST, 3).await.expect("read");
    assert_eq!(entries, first);
    let entries = journal.entries(origin("a"), Sequence::new(5).expect("one"), 3).await;
    assert_eq!(entries.expect("read"), [entry(7, "passed", "k", 7)]);
    assert_eq!(write(journal, "a", vec![], 3).await, []);
    assert_eq!(next(journal, "a").await, 8);
    clear(journal).await;
}

async fn conflicts_are_the_later_ids_of_the_same_subject_in_order(journal: &dyn EventJournal) {
    let entries = vec![
        entry(1, "e", "k", 30),
        entry(2, "e", "k", 20),
        entry(3, "e", "l", 40),
        entry(4, "f", "k", 40),
        entry(5, "e", "k", 10),
        entry(6, "e", "k", 20),
        entry(7, "e", "", 1),
        entry(8, "ek", "", 0),
    ];
    let seen = write(journal, "a", entries, 8).await;
    let conflicts: Vec<Vec<u64>> = seen.into_iter().map(|(_, conflicts)| conflicts).collect();
    let none = Vec::new();
    let expected = [
        none.clone(),
        vec![1],
        none.clone(),
        none.clone(),
        vec![2, 1],
        vec![1],
        none.clone(),
        none,
    ];
    assert_eq!(conflicts, expected);
    assert_eq!(write(journal, "b", vec![entry(1, "e", "k", 10)], 1).await, [(1, vec![])]);
    clear(journal).await;
}

async fn conflicts_are_bounded_and_the_latest_are_kept(journal: &dyn EventJournal) {
    let count = CONFLICTS_MAX as u64 + 1;
    let entries = (1..=count).map(|n| Arc::new(entry(n, "e", "k", 10 + n))).collect();
    let through = Sequence::new(count).expect("a sequence");
    journal.append(origin("a"), entries, through).await.expect("written");
    let conflicts = async |id| {
        journal.conflicts(origin("a"), &entry(0, "e", "k", id).entry).await.expect("read")
    };
    let cut = conflicts(1).await;
    assert!(!cut.complete);
    let sequences = cut.entries.iter().map(|entry| entry.remote_sequence.get());
    assert!(sequences.eq(2..=count));
    let whole = conflicts(11).await;
    assert_eq!((whole.complete, whole.entries.len()), (true, CONFLICTS_MAX));
    clear(journal).await;
}

async fn an_append_can_be_repeated(journal: &dyn EventJournal) {
    let entries = vec![Arc::new(entry(1, "e", "k", 5)), Arc::new(entry(2, "e", "k", 6))];
    for _ in 0..2 {
        let through = Sequence::new(2).expect("a sequence");
        journal.append(origin("a"), entries.clone(), through).await.expect("written");
    }
    let found = journal.conflicts(origin("a"), &entry(0, "e", "k", 1).entry).await.expect("read");
    assert_eq!(found.entries, entries);
    assert_eq!(next(journal, "a").await, 3);
    clear(journal).await;
}

async fn an_entry_of_any_size_comes_back_whole(journal: &dyn EventJournal) {
    let (mut large, small) = (entry(1, "e", "k", 5), entry(2, "e", "k", 6));
    large.entry.payload = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let both = vec![large, small];
    let entries = both.iter().cloned().map(Arc::new).collect();
    journal.append(origin("a"), entries, both[1].remote_sequence).await.expect("written");
    let read = journal.entries(origin("a"), Sequence::FIRST, 9).await.expect("read");
    assert!(read == both);
    let found = journal.conflicts(origin("a"), &entry(0, "e", "k", 1).entry).await.expect("read");
    assert!(found.entries.iter().map(|entry| &**entry).eq(&both));
    clear(journal).await;
}

async fn changes_tell_what_is_journaled(journal: &dyn EventJournal) {
    let mut changes = journal.changes();
    write(journal, "a", vec![entry(1, "e", "k", 1), entry(2, "passed", "k", 2)], 2).await;
    for sequence in 1..=2 {
        let change = changes.recv().await.expect("a change");
        assert_eq!(change.origin, origin("a"));
        assert_eq!(change.entry.remote_sequence.get(), sequence);
    }
    clear(journal).await;
}

/// An event, a primary key and an id out of few, so that entries meet.
pub(crate) fn few() -> impl Strategy<Value = Vec<(String, String, u64)>> {
    let entry = ("[ef]", "[kl]?", 0..9_u64);
    proptest::collection::vec(entry, 1..40)
}

/// Writes `entries` to the empty `store` and compares each one's conflicts with a scan over those before it.
pub(crate) async fn conflicts_agree_with_a_scan(
    journal: &dyn EventJournal,
    store: &str,
    entries: &[(String, String, u64)],
) {
    let entries: Vec<RemoteEntry> = (1..)
        .zip(entries)
        .map(|(sequence, (event, key, id))| entry(sequence, event, key, id * 100 + sequence))
        .collect();
    let expected = entries.iter().enumerate().map(|(at, one)| {
        let before = entries[..at].iter().filter(|other| {
            let (one, other) = (&one.entry, &other.entry);
            (&one.event, &one.primary_key) == (&other.event, &other.primary_key)
                && other.id > one.id
        });
        let mut conflicts: Vec<&RemoteEntry> = before.collect();
        conflicts.sort_by_key(|other| other.entry.id);
        let conflicts = conflicts.into_iter().map(|other| other.remote_sequence.get());
        (one.remote_sequence.get(), conflicts.collect())
    });
    let expected: Vec<(u64, Vec<u64>)> = expected.collect();
    let through = entries.len() as u64;
    assert_eq!(write(journal, store, entries, through).await, expected);
}
