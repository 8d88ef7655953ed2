//! How fast one core reads writes and writes changes. Throughput counts entries.

#![expect(clippy::expect_used, reason = "a benchmark that cannot be set up has nothing to measure")]

use std::hint::black_box;

use bytes::{BufMut, Bytes, BytesMut};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use eventlog_server::model::{
    Batch, EntryId, EntryRef, Limits, Origin, PublicKey, Segment, SegmentBuilder, Sequence,
};
use eventlog_server::protocol::msgpack;

const KEY: &str = "3f0c2f1e-6f0b-4c89-9d0a-0f3f5a1f2b77";

fn batch(entries: usize) -> Batch {
    let ids: Vec<EntryId> = (0..entries).map(|_| EntryId::now()).collect();
    Batch::from_entries(ids.iter().map(|id| EntryRef {
        id: *id,
        event: "TodoRenamed",
        primary_key: "todo-123456",
        payload: &[7; 100],
    }))
}

/// The batch as JavaScript clients encode it: every map with a head of three bytes.
fn javascript_write(batch: &Batch) -> Bytes {
    let mut out = BytesMut::new();
    out.put_slice(b"\xde\0\x04\xa4_tag\xacWriteEntries\xa9publicKey\xd9\x24");
    out.put_slice(KEY.as_bytes());
    out.put_slice(b"\xa2id\x01\xa7entries\xdc");
    out.put_u16(batch.len() as u16);
    for entry in batch.iter() {
        out.put_slice(b"\xde\0\x04\xa2id\xc4\x10");
        out.put_slice(entry.id.as_bytes());
        out.put_slice(b"\xa5event\xab");
        out.put_slice(entry.event.as_bytes());
        out.put_slice(b"\xaaprimaryKey\xab");
        out.put_slice(entry.primary_key.as_bytes());
        out.put_slice(b"\xa7payload\xc4\x64");
        out.put_slice(entry.payload);
    }
    out.freeze()
}

fn segment(batch: &Batch) -> Segment {
    let key = PublicKey::new(KEY).expect("a key");
    let mut builder = SegmentBuilder::new(Sequence::new(1_000_000).expect("fits"));
    for slot in 0..batch.len() {
        let record = batch.record(slot).expect("a slot");
        builder.push(record, &Origin::Client(key.clone()));
    }
    builder.finish().remove(0)
}

fn changes(segment: &Segment) -> Bytes {
    let key = PublicKey::new(KEY).expect("a key");
    let entries = msgpack::encode_entries(segment);
    let mut out = BytesMut::new();
    msgpack::encode_changes_header(&mut out, &key, entries.len());
    out.put_slice(entries.bytes());
    out.freeze()
}

fn messages(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("msgpack");
    let limits = Limits::default();
    let key = PublicKey::new(KEY).expect("a key");
    for entries in [1, 100, 1_000] {
        let batch = batch(entries);
        let frame = javascript_write(&batch);
        group.throughput(Throughput::Elements(entries as u64));
        group.bench_function(format!("decode write of {entries}"), |bencher| {
            bencher.iter(|| msgpack::decode_request(black_box(&frame), &limits));
        });
        let mut out = BytesMut::new();
        group.bench_function(format!("encode write of {entries}"), |bencher| {
            bencher.iter(|| {
                out.clear();
                msgpack::encode_write(&mut out, &key, 1, black_box(&batch));
            });
        });
    }
    let segment = segment(&batch(200));
    group.throughput(Throughput::Elements(segment.len() as u64));
    group.bench_function("encode segment", |bencher| {
        bencher.iter(|| msgpack::encode_entries(black_box(&segment)));
    });
    let frame = changes(&segment);
    group.bench_function("decode changes", |bencher| {
        bencher.iter(|| msgpack::decode_response(black_box(&frame)));
    });
    group.bench_function("decode and read changes", |bencher| {
        bencher.iter(|| match msgpack::decode_response(black_box(&frame)) {
            Ok(msgpack::Response::Changes(changes)) => {
                changes.iter().map(|(_, entry)| entry.payload.len()).sum::<usize>()
            }
            other => panic!("{other:?}"),
        });
    });
    group.finish();
}

criterion_group!(benches, messages);
criterion_main!(benches);
