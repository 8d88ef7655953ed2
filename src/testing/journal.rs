//! What every [`EventJournal`] must do, alone and under [`write_from_remote`], which is how the server uses it.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;

use super::{Clause, Subject, store, wait};
use crate::model::{Entry, EntryId, RemoteEntry, RemoteId, Sequence};
use crate::processing::{SideEffect, write_from_remote};
use crate::services::journal::{CONFLICTS_MAX, Conflicts, EventJournal, journal_origin};

/// The contract of [`EventJournal`].
pub const CLAUSES: &[Clause<dyn EventJournal>] = crate::clauses!(journal table);

type Tested<'a> = &'a mut dyn Subject<dyn EventJournal>;

pub(crate) fn entry(sequence: u64, event: &str, primary_key: &str, id: u64) -> RemoteEntry {
    let mut bytes = [0; 16];
    bytes[8..].copy_from_slice(&id.to_be_bytes());
    let remote_sequence = Sequence::new(sequence).expect("a sequence");
    let (event, primary_key) = (event.to_owned(), primary_key.to_owned());
    let payload = Bytes::from(format!("payload of {id}"));
    let id = EntryId::from_bytes(bytes);
    RemoteEntry { remote_sequence, entry: Entry { id, event, primary_key, payload } }
}

pub(crate) fn origin(name: &str) -> RemoteId {
    journal_origin(&store(name))
}

/// Wants every event but `"passed"`; keeps what it ran on, with the sequences of the conflicts.
#[derive(Default)]
struct Recorder(Vec<(u64, Vec<u64>)>);

impl SideEffect for Recorder {
    fn wants(&self, event: &str) -> bool {
        event != "passed"
    }

    async fn run(&mut self, entry: Arc<RemoteEntry>, conflicts: Conflicts) -> ControlFlow<()> {
        let sequences = conflicts.entries.iter().map(|entry| entry.remote_sequence.get());
        self.0.push((entry.remote_sequence.get(), sequences.collect()));
        ControlFlow::Continue(())
    }
}

fn write(
    journal: &dyn EventJournal,
    name: &str,
    entries: Vec<RemoteEntry>,
    through: u64,
) -> Vec<(u64, Vec<u64>)> {
    let mut recorder = Recorder::default();
    let through = Sequence::new(through).expect("a sequence");
    let mut next = wait(journal.next_remote_sequence(origin(name))).expect("read");
    let written =
        write_from_remote(journal, origin(name), &mut next, entries, through, &mut recorder);
    wait(written).expect("written");
    assert_eq!(wait(journal.next_remote_sequence(origin(name))).expect("read"), next);
    recorder.0
}

fn next(journal: &dyn EventJournal, name: &str) -> u64 {
    wait(journal.next_remote_sequence(origin(name))).expect("read").get()
}

fn each_entry_is_run_once_and_the_position_follows(subject: Tested<'_>) {
    let journal = subject.service();
    assert_eq!(next(journal, "a"), 1);
    let first = vec![entry(1, "e", "k", 1), entry(2, "passed", "k", 2), entry(4, "e", "l", 4)];
    assert_eq!(write(journal, "a", first.clone(), 6), [(1, vec![]), (4, vec![])]);
    assert_eq!(next(journal, "a"), 7);
    assert_eq!(next(journal, "b"), 1);
    let mut again = first.clone();
    again.push(entry(7, "passed", "k", 7));
    assert_eq!(write(journal, "a", again, 7), []);
    assert_eq!(next(journal, "a"), 8);
    let entries = wait(journal.entries(origin("a"), Sequence::FIRST, 3)).expect("read");
    assert_eq!(entries, first);
    let entries = wait(journal.entries(origin("a"), Sequence::new(5).expect("one"), 3));
    assert_eq!(entries.expect("read"), [entry(7, "passed", "k", 7)]);
    assert_eq!(write(journal, "a", vec![], 3), []);
    assert_eq!(next(journal, "a"), 8);
}

fn conflicts_are_the_later_ids_of_the_same_subject_in_order(subject: Tested<'_>) {
    let journal = subject.service();
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
    let seen = write(journal, "a", entries, 8);
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
    assert_eq!(write(journal, "b", vec![entry(1, "e", "k", 10)], 1), [(1, vec![])]);
}

fn conflicts_are_bounded_and_the_latest_are_kept(subject: Tested<'_>) {
    let journal = subject.service();
    let count = CONFLICTS_MAX as u64 + 1;
    let entries = (1..=count).map(|n| Arc::new(entry(n, "e", "k", 10 + n))).collect();
    let through = Sequence::new(count).expect("a sequence");
    wait(journal.append(origin("a"), entries, through)).expect("written");
    let conflicts =
        |id| wait(journal.conflicts(origin("a"), &entry(0, "e", "k", id).entry)).expect("read");
    let cut = conflicts(1);
    assert!(!cut.complete);
    let sequences = cut.entries.iter().map(|entry| entry.remote_sequence.get());
    assert!(sequences.eq(2..=count));
    let whole = conflicts(11);
    assert_eq!((whole.complete, whole.entries.len()), (true, CONFLICTS_MAX));
}

fn an_append_can_be_repeated(subject: Tested<'_>) {
    let journal = subject.service();
    let entries = vec![Arc::new(entry(1, "e", "k", 5)), Arc::new(entry(2, "e", "k", 6))];
    for _ in 0..2 {
        let through = Sequence::new(2).expect("a sequence");
        wait(journal.append(origin("a"), entries.clone(), through)).expect("written");
    }
    let found = wait(journal.conflicts(origin("a"), &entry(0, "e", "k", 1).entry)).expect("read");
    assert_eq!(found.entries, entries);
    assert_eq!(next(journal, "a"), 3);
}

fn an_entry_of_any_size_comes_back_whole(subject: Tested<'_>) {
    let journal = subject.service();
    let (mut large, small) = (entry(1, "e", "k", 5), entry(2, "e", "k", 6));
    large.entry.payload = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let both = vec![large, small];
    let entries = both.iter().cloned().map(Arc::new).collect();
    wait(journal.append(origin("a"), entries, both[1].remote_sequence)).expect("written");
    let read = wait(journal.entries(origin("a"), Sequence::FIRST, 9)).expect("read");
    assert!(read == both);
    let found = wait(journal.conflicts(origin("a"), &entry(0, "e", "k", 1).entry)).expect("read");
    assert!(found.entries.iter().map(|entry| &**entry).eq(&both));
}

fn changes_tell_what_is_journaled(subject: Tested<'_>) {
    let journal = subject.service();
    let mut changes = journal.changes();
    write(journal, "a", vec![entry(1, "e", "k", 1), entry(2, "passed", "k", 2)], 2);
    for sequence in 1..=2 {
        let change = wait(changes.recv()).expect("a change");
        assert_eq!(change.origin, origin("a"));
        assert_eq!(change.entry.remote_sequence.get(), sequence);
    }
}

/// The entries of one store meet in few subjects; what each sees is compared with a scan over those before it.
fn conflicts_agree_with_a_scan(subject: Tested<'_>) {
    for round in 0..24 {
        let entries = few(round);
        let expected: Vec<_> = (0..entries.len())
            .map(|at| (entries[at].remote_sequence.get(), scan(&entries[..at], &entries[at])))
            .collect();
        let through = entries.len() as u64;
        let seen = write(subject.service(), &format!("store {round}"), entries, through);
        assert_eq!(seen, expected, "round {round}");
    }
}

/// The sequences of those in `before` that conflict with `entry`, in the order of their ids.
fn scan(before: &[RemoteEntry], entry: &RemoteEntry) -> Vec<u64> {
    let entry = &entry.entry;
    let subject = (&entry.event, &entry.primary_key);
    let same = before.iter().filter(|other| {
        (&other.entry.event, &other.entry.primary_key) == subject && other.entry.id > entry.id
    });
    let mut conflicts: Vec<&RemoteEntry> = same.collect();
    conflicts.sort_by_key(|other| other.entry.id);
    conflicts.into_iter().map(|other| other.remote_sequence.get()).collect()
}

/// Up to forty entries with an event, a primary key and an id out of few. The same ones for a round, whenever it runs.
fn few(round: u64) -> Vec<RemoteEntry> {
    let mut state = round;
    let mut below = |bound: u64| {
        // The generator of Knuth's MMIX; its upper bits are random enough.
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % bound
    };
    let count = 1 + below(39);
    let entries = (1..=count).map(|sequence| {
        let (event, key, id) = (below(2) as usize, below(3) as usize, below(9));
        entry(sequence, ["e", "f"][event], ["", "k", "l"][key], id * 100 + sequence)
    });
    entries.collect()
}

fn entries_and_position_are_there_after_reopening(subject: Tested<'_>) {
    let kept = entry(2, "e", "k", 7);
    let through = Sequence::new(5).expect("a sequence");
    let append = subject.service().append(origin("a"), vec![Arc::new(kept.clone())], through);
    wait(append).expect("written");
    subject.reopen();
    let journal = subject.service();
    assert_eq!(next(journal, "a"), 6);
    let entries = wait(journal.entries(origin("a"), Sequence::FIRST, 9)).expect("read");
    assert_eq!(entries, std::slice::from_ref(&kept));
    let earlier = entry(6, "e", "k", 6);
    let found = wait(journal.conflicts(origin("a"), &earlier.entry)).expect("read");
    assert_eq!(found, Conflicts { entries: vec![Arc::new(kept)], complete: true });
}

fn destroying_leaves_nothing(subject: Tested<'_>) {
    let journal = subject.service();
    for name in ["a", "b"] {
        write(journal, name, vec![entry(1, "e", "k", 2), entry(2, "passed", "k", 3)], 2);
    }
    wait(journal.destroy()).expect("destroyed");
    for name in ["a", "b"] {
        assert_eq!(next(journal, name), 1);
        assert_eq!(wait(journal.entries(origin(name), Sequence::FIRST, 1)).expect("read"), []);
        assert_eq!(write(journal, name, vec![entry(1, "e", "k", 1)], 1), [(1, vec![])]);
    }
}
