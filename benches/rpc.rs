//! How fast one core reads writes of Effect's clients and writes their changes. Throughput counts entries.

#![expect(clippy::expect_used, reason = "a benchmark that cannot be set up has nothing to measure")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use eventlog_server::model::{Batch, EntryId, EntryRef, Limits, Sequence};
use eventlog_server::protocol::rpc::{
    EncodedRemoteEntries, RequestId, WriteEntries, encode_acks, encode_changes,
    encode_write_entries,
};

const KEY: &str = "3f0c2f1e-6f0b-4c89-9d0a-0f3f5a1f2b77";

/// As many entries as a segment holds, with payloads of 100 bytes.
const ENTRIES: u64 = 200;

fn batch() -> Batch {
    let mut payload = vec![7; 101];
    (payload[0], payload[1]) = (100, 0x20);
    let ids: Vec<EntryId> = (0..ENTRIES).map(|_| EntryId::now()).collect();
    Batch::from_entries(ids.iter().map(|id| EntryRef {
        id: *id,
        event: "TodoRenamed",
        primary_key: "todo-123456",
        payload: &payload,
    }))
}

fn sequences() -> impl Iterator<Item = Sequence> {
    (1_000_000..).map_while(|sequence| Sequence::new(sequence).ok())
}

fn rpc(c: &mut Criterion) {
    let batch = batch();
    let write = encode_write_entries(KEY, "default", &batch);
    let encoded = EncodedRemoteEntries::new(sequences().zip(batch.iter()));
    let id = RequestId::from_number(7);
    let limits = Limits::default();
    let mut group = c.benchmark_group("rpc");
    group.throughput(Throughput::Elements(ENTRIES));
    group.bench_function("write to batch", |b| {
        b.iter(|| {
            let write = WriteEntries::decode(black_box(&write)).expect("a write");
            write.batch(&limits).expect("a batch")
        });
    });
    group.bench_function("batch to acks", |b| {
        b.iter(|| encode_acks(&id, black_box(&batch).ids().zip(sequences())));
    });
    group.bench_function("segment to entries", |b| {
        b.iter(|| EncodedRemoteEntries::new(sequences().zip(black_box(&batch).iter())));
    });
    group.bench_function("entries to message", |b| {
        b.iter(|| {
            let all = black_box(&encoded).run(Sequence::FIRST, Sequence::MAX);
            encode_changes(&id, &[all], 0)
        });
    });
    group.bench_function("batch to write", |b| {
        b.iter(|| encode_write_entries(KEY, "default", black_box(&batch)));
    });
    group.finish();
}

criterion_group!(benches, rpc);
criterion_main!(benches);
