//! How fast one core does the work between the wire and the disk: joining chunks, finding duplicates, building and
//! reading segments, planning what compaction sends. Throughput counts entries, or bytes for chunks.

#![expect(clippy::expect_used, reason = "a benchmark that cannot be set up has nothing to measure")]

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use eventlog_server::model;
use eventlog_server::model::{
    Batch, EntryId, EntryRef, Limits, Origin, PublicKey, Segment, SegmentBuilder, Sequence, StoreId,
};
use eventlog_server::protocol::chunk::{ChunkJoiner, split};
use eventlog_server::storage::sled::{Database, DatabaseOptions, SledStorage};
use eventlog_server::storage::{Storage, StoreLog};

/// It is not part of the library's interface, so it is compiled here once more.
#[path = "../src/core/projection/mod.rs"]
#[allow(dead_code, unused_imports, reason = "not all of it is measured")]
mod projection;

use projection::{Index, Moment, Plan, Progress, Rule, Sighting};

const BATCH: usize = 1_000;

fn batch(ids: &[EntryId]) -> Batch {
    Batch::from_entries(ids.iter().map(|id| EntryRef {
        id: *id,
        event: "TodoRenamed",
        primary_key: "todo-123456",
        payload: &[7; 100],
    }))
}

fn new_ids(count: usize) -> Vec<EntryId> {
    (0..count).map(|_| EntryId::now()).collect()
}

fn segments(first: Sequence, batch: &Batch, origin: &Origin) -> Vec<Segment> {
    let mut builder = SegmentBuilder::new(first);
    for record in (0..batch.len()).filter_map(|slot| batch.record(slot)) {
        builder.push(record, origin);
    }
    builder.finish()
}

fn origin() -> Origin {
    Origin::Client(PublicKey::new("3f0c2f1e-6f0b-4c89-9d0a-0f3f5a1f2b77").expect("a key"))
}

fn chunks(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("chunks");
    let limits = Limits::default();
    for mebibytes in [1, 4, 16] {
        let message = Bytes::from(vec![7; mebibytes << 20]);
        let parts: Vec<Bytes> = split(message.len()).map(|range| message.slice(range)).collect();
        group.throughput(Throughput::Bytes(message.len() as u64));
        for (order, parts) in [("in order", parts.clone()), ("backwards", backwards(&parts))] {
            group.bench_function(BenchmarkId::new(order, format!("{mebibytes} MiB")), |bencher| {
                bencher.iter(|| join(&limits, &parts, order == "backwards"));
            });
        }
    }
    group.finish();
}

fn backwards(parts: &[Bytes]) -> Vec<Bytes> {
    parts.iter().rev().cloned().collect()
}

fn join(limits: &Limits, parts: &[Bytes], reversed: bool) -> Bytes {
    let mut joiner = ChunkJoiner::new(limits);
    let total = parts.len() as u64;
    let mut whole = None;
    for (at, part) in (0..total).zip(parts) {
        let index = if reversed { total - 1 - at } else { at };
        whole = joiner.push(7, index, total, part.clone()).expect("sound chunks");
    }
    whole.expect("the last chunk")
}

fn segment(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("segments");
    let origin = origin();
    for entries in [1, 100, BATCH] {
        let batch = batch(&new_ids(entries));
        group.throughput(Throughput::Elements(entries as u64));
        group.bench_function(BenchmarkId::new("build", entries), |bencher| {
            bencher.iter(|| segments(Sequence::FIRST, black_box(&batch), &origin));
        });
        let built = segments(Sequence::FIRST, &batch, &origin);
        group.bench_function(BenchmarkId::new("read", entries), |bencher| {
            bencher.iter(|| {
                let entries = black_box(&built).iter().flat_map(Segment::iter);
                entries.map(|(_, entry)| entry.payload.len()).sum::<usize>()
            });
        });
        group.bench_function(BenchmarkId::new("check", entries), |bencher| {
            bencher.iter(|| {
                let parts = |piece: &Segment| {
                    let (records, origins) = (piece.records().clone(), piece.origins().to_vec());
                    Segment::from_parts(piece.first(), records, origins).expect("sound parts")
                };
                black_box(&built).iter().map(parts).collect::<Vec<_>>()
            });
        });
    }
    group.finish();
}

/// A log that holds these ids, closed and opened again if they should be old ones.
fn log(storage: &SledStorage, name: &str, ids: &[EntryId]) -> Arc<dyn StoreLog> {
    let store = StoreId::new(name).expect("a name");
    let log = storage.open(&store).expect("a log");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let mut next = log.head().next();
    for ids in ids.chunks(10_000) {
        let segments = segments(next, &batch(ids), &origin());
        next = next.plus(ids.len() as u64);
        runtime.block_on(log.append(segments)).expect("durable");
    }
    log
}

fn dedup(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a directory");
    let database = Database::open(directory.path(), DatabaseOptions::default()).expect("open");
    let storage = SledStorage::new(database);
    let mut group = criterion.benchmark_group("dedup");
    group.throughput(Throughput::Elements(BATCH as u64));
    for entries in [10_000, 1_000_000] {
        let ids = new_ids(entries);
        let log = log(&storage, &format!("of {entries}"), &ids);
        let find = |ids: &[EntryId]| match log.probe(ids).complete() {
            Some(found) => found,
            None => log.lookup(ids).expect("a lookup"),
        };
        group.bench_function(BenchmarkId::new("fresh batch", entries), |bencher| {
            bencher.iter_batched(
                || new_ids(BATCH),
                |fresh| assert!(find(&fresh).iter().all(Option::is_none)),
                BatchSize::SmallInput,
            );
        });
        for (name, from) in [("newest batch again", entries - BATCH), ("oldest batch again", 0)] {
            let again = &ids[from..from + BATCH];
            group.bench_function(BenchmarkId::new(name, entries), |bencher| {
                bencher.iter(|| assert!(find(black_box(again)).iter().all(Option::is_some)));
            });
        }
    }
    group.finish();
}

fn project(criterion: &mut Criterion) {
    const ENTRIES: u64 = 100_000;
    const KEYS: u64 = 1_000;
    let mut group = criterion.benchmark_group("projection");
    group.throughput(Throughput::Elements(ENTRIES));
    let keys: Vec<String> = (0..KEYS).map(|key| format!("todo-{key}")).collect();
    for (name, rule) in [("keep the latest", Rule::KeepLatest), ("drop", Rule::Drop)] {
        group.bench_function(BenchmarkId::new("index", name), |bencher| {
            bencher.iter(|| index(rule, &keys, ENTRIES));
        });
        let index = index(rule, &keys, ENTRIES);
        let head = Sequence::new(ENTRIES).expect("a sequence");
        let moment = Moment::new(u64::MAX - 1, [0], head);
        group.bench_function(BenchmarkId::new("plan", name), |bencher| {
            bencher.iter(|| plan(&index, black_box(&moment)));
        });
    }
    group.finish();
}

fn index(rule: Rule, keys: &[String], entries: u64) -> Index {
    let mut index = Index::new(Arc::from([rule]), Sequence::FIRST);
    let mut sequence = Sequence::FIRST;
    for number in 0..entries {
        let primary_key = &keys[(number.wrapping_mul(7_919) % keys.len() as u64) as usize];
        let id = EntryId::from_bytes((u128::from(number) << 80).to_be_bytes());
        index.see(&Sighting { sequence, compactor: 0, primary_key, id, bytes: 150 });
        sequence = sequence.next();
    }
    index.seen_before(sequence);
    index
}

/// Plans everything, as much at a time as a session is sent; returns how many steps that took.
fn plan(index: &Index, moment: &Moment) -> usize {
    let (mut cursor, mut steps) = (Sequence::FIRST, 0);
    while cursor <= moment.head() {
        let mut plan = Plan::new(cursor);
        assert!(index.plan(moment, &mut plan, 256 << 10) != Progress::Asking, "no effect to ask");
        steps += plan.steps.len();
        cursor = plan.next;
    }
    steps
}

criterion_group!(benches, chunks, segment, dedup, project);
criterion_main!(benches);
