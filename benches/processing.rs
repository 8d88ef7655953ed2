//! How fast handlers run, how far behind they are while others write, and what late entries cost. Prints figures.
//!
//! `cargo bench --bench processing`, or with some of `one`, `ten`, `synced`, `lag`, `late` for a part.

#![expect(clippy::expect_used, reason = "a benchmark that cannot be set up has nothing to measure")]
#![expect(clippy::disallowed_methods, reason = "it measures time")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use eventlog_server::model::{Batch, Entry, EntryId, Origin, PublicKey, SegmentBuilder, StoreId};
use eventlog_server::processing::{Committed, Event, EventGroup, Msgpack, PayloadCodec, Processor};
use eventlog_server::server::Server;
use eventlog_server::services::auth::AllowAll;
use eventlog_server::services::journal::{EventJournal, SledJournal};
use eventlog_server::services::registry::MemoryRegistry;
use eventlog_server::storage::Storage;
use eventlog_server::storage::sled::{Database, DatabaseOptions, SledStorage};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Renamed {
    id: String,
    title: String,
}

impl Event for Renamed {
    const TAG: &'static str = "TodoRenamed";
    fn primary_key(&self) -> String {
        self.id.clone()
    }
}

struct Todos;

impl EventGroup for Todos {
    type Events = (Renamed,);
    type Codec = Msgpack;
}

/// The handler counts, and records when it was called, by sequence.
#[derive(Default)]
struct Count {
    handled: AtomicU64,
    conflicts: AtomicU64,
    since: Option<Instant>,
    at: Vec<AtomicU64>,
}

async fn count(count: Arc<Count>, renamed: Committed<Renamed>) {
    count.handled.fetch_add(1, Relaxed);
    count.conflicts.fetch_add(renamed.conflicts().len() as u64, Relaxed);
    if let (Some(since), Some(at)) = (count.since, count.at.get(renamed.sequence().get() as usize))
    {
        at.store(since.elapsed().as_micros() as u64, Relaxed);
    }
}

fn entry(number: u64, id: EntryId) -> Entry {
    let renamed = Renamed { id: format!("todo-{}", number / 4), title: "x".repeat(60) };
    let payload = Msgpack::encode(&renamed).expect("encodes").into();
    Entry { id, event: Renamed::TAG.to_owned(), primary_key: renamed.id, payload }
}

/// A directory with this many entries in each of these stores.
struct Filled {
    _directory: tempfile::TempDir,
    database: Database,
    storage: Arc<SledStorage>,
}

impl Filled {
    async fn new(stores: &[StoreId], entries: u64) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let database = Database::open(directory.path(), DatabaseOptions::default());
        let database = database.expect("the directory opens");
        let storage = Arc::new(SledStorage::new(database.clone()));
        for store in stores {
            let made = (0..entries).map(|number| entry(number, EntryId::now()));
            append(&*storage, store, made).await;
        }
        Self { _directory: directory, database, storage }
    }

    fn serve(&self, count_in: &Arc<Count>, repeats_max: Option<usize>) -> Server {
        let journal = Arc::new(SledJournal::new(self.database.clone()));
        let group = Todos::handlers(count_in.clone()).on(count);
        let mut builder = Processor::builder(journal as Arc<dyn EventJournal>).group(group);
        if let Some(repeats_max) = repeats_max {
            builder = builder.repeats_max(repeats_max);
        }
        let processor = builder.build().expect("a processor");
        let registry = Arc::new(MemoryRegistry::new());
        let builder = Server::builder(self.storage.clone(), registry, Arc::new(AllowAll));
        builder.processor(processor).start().expect("starts")
    }
}

async fn append(storage: &dyn Storage, store: &StoreId, entries: impl Iterator<Item = Entry>) {
    let log = storage.open(store).expect("opens");
    let origin = Origin::Client(PublicKey::new("alice").expect("a key"));
    let entries: Vec<Entry> = entries.collect();
    for entries in entries.chunks(1_000) {
        let batch = Batch::from_entries(entries.iter().map(Entry::as_ref));
        let mut segments = SegmentBuilder::new(log.head().next());
        for slot in 0..batch.len() {
            segments.push(batch.record(slot).expect("a slot"), &origin);
        }
        log.append(segments.finish()).await.expect("appended");
    }
}

fn stores(count: usize) -> Vec<StoreId> {
    (0..count).map(|n| StoreId::new(format!("store {n}")).expect("a store id")).collect()
}

async fn handled(count: &Count, entries: u64) {
    while count.handled.load(Relaxed) < entries {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Entries a second, from the start of a server whose stores were never processed.
async fn throughput(name: &str, stores_count: usize, entries: u64, repeats_max: Option<usize>) {
    let stores = stores(stores_count);
    let filled = Filled::new(&stores, entries / stores_count as u64).await;
    let count = Arc::new(Count::default());
    let started = Instant::now();
    let server = filled.serve(&count, repeats_max);
    handled(&count, entries).await;
    let took = started.elapsed();
    server.shutdown(Duration::from_secs(20)).await;
    println!(
        "{name}: {:.0} entries/s ({entries} in {took:.2?})",
        entries as f64 / took.as_secs_f64()
    );
}

/// From the call that writes an entry to the call of its handler.
async fn lag(writes_per_second: u64, seconds: u64) {
    let stores = stores(1);
    let filled = Filled::new(&stores, 0).await;
    let total = writes_per_second * seconds;
    let since = Instant::now();
    let at = (0..=total).map(|_| AtomicU64::new(0)).collect();
    let count = Arc::new(Count { since: Some(since), at, ..Count::default() });
    let server = filled.serve(&count, None);
    let mut written = vec![0; total as usize + 1];
    let mut next = 1;
    let begun = Instant::now();
    while next <= total {
        let due = (begun.elapsed().as_micros() as u64 * writes_per_second / 1_000_000).min(total);
        while next <= due {
            written[next as usize] = since.elapsed().as_micros() as u64;
            let (server, store) = (server.clone(), stores[0].clone());
            let entries = vec![entry(next, EntryId::now())];
            tokio::spawn(async move { server.write_to_store(store, entries, true).await });
            next += 1;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    handled(&count, total).await;
    let mut lags: Vec<u64> = (1..=total as usize)
        .map(|at| count.at[at].load(Relaxed).saturating_sub(written[at]))
        .collect();
    lags.sort_unstable();
    let of = |percent: usize| lags[lags.len() * percent / 100] as f64 / 1_000.0;
    println!(
        "lag at {writes_per_second} writes/s: p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms",
        of(50),
        of(99),
        lags.last().copied().unwrap_or(0) as f64 / 1_000.0
    );
    server.shutdown(Duration::from_secs(20)).await;
}

/// Entries that are older than all others of their primary key: first those that cause the index to be written, then
/// more.
async fn late(entries: u64, late: u64) {
    let stores = stores(1);
    let filled = Filled::new(&stores, entries).await;
    let first = Arc::new(Count::default());
    let server = filled.serve(&first, None);
    handled(&first, entries).await;
    server.shutdown(Duration::from_secs(20)).await;
    for round in 0..2 {
        let made = (0..late).map(|number| {
            let mut id = [0; 16];
            id[8..].copy_from_slice(&(round * late + number).to_be_bytes());
            // Pseudo-random: 7,919 is prime.
            entry((round * late + number) * 7_919 % entries, EntryId::from_bytes(id))
        });
        append(&*filled.storage, &stores[0], made).await;
        let count = Arc::new(Count::default());
        let started = Instant::now();
        let server = filled.serve(&count, None);
        handled(&count, late).await;
        let took = started.elapsed();
        println!(
            "late entries in a store of {entries}{}: {:.1} µs each, {:.1} conflicts each",
            ["", ", again"][round as usize],
            took.as_micros() as f64 / late as f64,
            count.conflicts.load(Relaxed) as f64 / late as f64
        );
        server.shutdown(Duration::from_secs(20)).await;
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let parts: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let wanted = |part: &str| parts.is_empty() || parts.iter().any(|one| one == part);
    if wanted("one") {
        throughput("one store", 1, 1_000_000, None).await;
    }
    if wanted("ten") {
        throughput("ten stores", 10, 2_000_000, None).await;
    }
    if wanted("synced") {
        throughput("one store, each entry durable before the next", 1, 20_000, Some(1)).await;
        throughput("ten stores, each entry durable before the next", 10, 50_000, Some(1)).await;
    }
    if wanted("lag") {
        lag(20_000, 10).await;
    }
    if wanted("late") {
        late(1_000, 250).await;
        late(1_000_000, 10_000).await;
    }
}
