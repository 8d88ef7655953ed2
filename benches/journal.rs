//! What a conflict lookup costs in a small and in a large journal, and how many entries a second are handled.

#![expect(clippy::expect_used, reason = "a benchmark that cannot be set up has nothing to measure")]

use std::hint::black_box;
use std::ops::ControlFlow;
use std::sync::Arc;

use criterion::{Bencher, Criterion, Throughput, criterion_group, criterion_main};
use eventlog_server::model::{Entry, EntryId, RemoteEntry, RemoteId, Sequence};
use eventlog_server::processing::{SideEffect, write_from_remote};
use eventlog_server::services::journal::{Conflicts, EventJournal, SledJournal};
use eventlog_server::storage::sled::{Database, DatabaseOptions};
use tempfile::TempDir;
use tokio::runtime::Runtime;

const ORIGIN: RemoteId = RemoteId::from_bytes([7; 16]);
/// So many entries share a primary key.
const PER_KEY: u64 = 4;

fn entry(sequence: u64) -> RemoteEntry {
    RemoteEntry {
        remote_sequence: Sequence::new(sequence).expect("a sequence"),
        entry: Entry {
            id: EntryId::now(),
            event: "TodoRenamed".to_owned(),
            primary_key: format!("todo-{}", sequence / PER_KEY),
            payload: vec![7; 100].into(),
        },
    }
}

fn open(directory: &TempDir) -> Arc<dyn EventJournal> {
    let database = Database::open(directory.path(), DatabaseOptions::default());
    Arc::new(SledJournal::new(database.expect("the directory opens")))
}

/// A journal of so many entries, without running anything on them.
fn filled(runtime: &Runtime, directory: &TempDir, entries: u64) -> Arc<dyn EventJournal> {
    let journal = open(directory);
    for first in (1..=entries).step_by(1_000) {
        let last = entries.min(first + 999);
        let through = Sequence::new(last).expect("a sequence");
        let entries = (first..=last).map(|sequence| Arc::new(entry(sequence))).collect();
        runtime.block_on(journal.append(ORIGIN, entries, through)).expect("written");
    }
    journal
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime")
}

/// Asks for the conflicts of `keys` primary keys in turn, spread over a journal of `entries`.
fn look_up(bencher: &mut Bencher<'_>, journal: &dyn EventJournal, entries: u64, keys: u64) {
    let runtime = runtime();
    // Older than all others, so that each entry of its key is a conflict.
    let mut early = entry(0).entry;
    early.id = EntryId::from_bytes([0; 16]);
    let mut at = 0;
    let mut ask = || {
        at = (at + 1) % keys;
        // As if drawn: 7,919 is prime.
        let key = at * 7_919 % keys * (entries / PER_KEY / keys);
        early.primary_key = format!("todo-{key}");
        let found = runtime.block_on(journal.conflicts(ORIGIN, &early)).expect("read");
        assert!(found.entries.len() >= PER_KEY as usize - 1);
        black_box(found)
    };
    // What is asked for more than once is in the cache, if it has room.
    (0..keys).for_each(|_| _ = ask());
    bencher.iter(ask);
}

fn lookups(criterion: &mut Criterion) {
    let runtime = runtime();
    let mut group = criterion.benchmark_group("conflicts");
    for entries in [1_000, 1_000_000] {
        let directory = tempfile::tempdir().expect("a directory");
        let journal = filled(&runtime, &directory, entries);
        for keys in [250, 250_000].into_iter().filter(|keys| keys * PER_KEY <= entries) {
            let name = format!("{keys} keys of {entries} entries");
            group.bench_function(name, |bencher| look_up(bencher, &*journal, entries, keys));
        }
    }
    group.finish();
}

/// Handles everything in no time.
struct Nothing;

impl SideEffect for Nothing {
    fn wants(&self, _: &str) -> bool {
        true
    }

    async fn run(&mut self, entry: Arc<RemoteEntry>, conflicts: Conflicts) -> ControlFlow<()> {
        black_box((entry, conflicts));
        ControlFlow::Continue(())
    }
}

fn handled(criterion: &mut Criterion) {
    let runtime = runtime();
    let directory = tempfile::tempdir().expect("a directory");
    let journal = open(&directory);
    let mut next = Sequence::FIRST;
    let mut group = criterion.benchmark_group("handled");
    group.throughput(Throughput::Elements(1)).sample_size(20);
    group.bench_function("one at a time, each durable before the next", |bencher| {
        bencher.iter(|| {
            let (entries, through) = (vec![entry(next.get())], next);
            let mut effect = Nothing;
            let write =
                write_from_remote(&*journal, ORIGIN, &mut next, entries, through, &mut effect);
            runtime.block_on(write).expect("written");
        });
    });
    group.finish();
}

criterion_group!(benches, lookups, handled);
criterion_main!(benches);
