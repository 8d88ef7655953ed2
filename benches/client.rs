//! How much one client receives and sends, against a server in another thread that costs as little as a WebSocket can:
//! it sends prepared frames, and answers writes without looking into them. Throughput counts entries.

#![expect(clippy::expect_used, reason = "a benchmark that cannot be set up has nothing to measure")]

use std::net::TcpListener;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use eventlog_server::client::{EventLogRemote, Options};
use eventlog_server::model::{Batch, EntryId, EntryRef, Limits, PublicKey, RemoteId, Sequence};
use eventlog_server::protocol::msgpack::{
    Request, decode_request, encode_ack, encode_changes_header, encode_hello, encode_pong,
    encode_remote_entries,
};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::runtime::Runtime;
use tokio_tungstenite::tungstenite::{Message, accept};

/// A catch-up has this many messages with this many entries each: what a server sends of 100-byte entries in 48 KiB.
const MESSAGES: u64 = 1_000;
const MESSAGE_ENTRIES: u64 = 330;
const WRITES: usize = 10_000;
const IN_FLIGHT: usize = 64;

fn entry<'a>() -> EntryRef<'a> {
    let (event, primary_key) = ("TodoRenamed", "todo-123456");
    EntryRef { id: EntryId::now(), event, primary_key, payload: &[7; 100] }
}

fn key() -> PublicKey {
    PublicKey::new("3f0c2f1e-6f0b-4c89-9d0a-0f3f5a1f2b77").expect("a key")
}

fn sequence(n: u64) -> Sequence {
    Sequence::new(n).expect("a sequence")
}

fn frame(encode: impl FnOnce(&mut BytesMut)) -> Message {
    let mut out = BytesMut::new();
    encode(&mut out);
    Message::Binary(out.freeze())
}

fn feed() -> Vec<Bytes> {
    let message = |n: u64| {
        let first = n * MESSAGE_ENTRIES + 1;
        let entries = (first..first + MESSAGE_ENTRIES).map(|n| (sequence(n), entry()));
        let encoded = encode_remote_entries(entries);
        let mut out = BytesMut::new();
        encode_changes_header(&mut out, &key(), encoded.len());
        out.extend_from_slice(encoded.bytes());
        out.freeze()
    };
    (0..MESSAGES).map(message).collect()
}

/// Serves connections, one after another.
fn serve(listener: &TcpListener) {
    let (remote_id, feed, limits) = (RemoteId::random(), feed(), Limits::default());
    while let Ok((tcp, _)) = listener.accept() {
        tcp.set_nodelay(true).expect("a socket");
        let mut socket = accept(tcp).expect("a websocket");
        socket.send(frame(|out| encode_hello(out, &remote_id))).expect("sent");
        let mut next = 1;
        while let Ok(message) = socket.read() {
            let Message::Binary(request) = message else { continue };
            let answered = match decode_request(&request, &limits).expect("a request") {
                Request::Write(write) => {
                    let sequences = (next..).take(write.batch.len()).map(sequence);
                    next += write.batch.len() as u64;
                    let sequences: Vec<_> = sequences.collect();
                    socket.write(frame(|out| encode_ack(out, write.id, sequences.into_iter())))
                }
                Request::RequestChanges { .. } => {
                    let mut frames = feed.iter().cloned().map(Message::Binary);
                    frames.try_for_each(|frame| socket.write(frame))
                }
                Request::Ping { id } => socket.write(frame(|out| encode_pong(out, id))),
                Request::StopChanges { .. } | Request::Chunk { .. } => Ok(()),
            };
            if answered.and_then(|()| socket.flush()).is_err() {
                break;
            }
        }
    }
}

struct Bench {
    runtime: Runtime,
    url: String,
}

impl Bench {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("ws://{}/", listener.local_addr().expect("an address"));
        std::thread::spawn(move || serve(&listener));
        let mut builder = tokio::runtime::Builder::new_current_thread();
        Self { runtime: builder.enable_all().build().expect("a runtime"), url }
    }

    fn connect(&self) -> EventLogRemote {
        let connecting = EventLogRemote::connect(&self.url, Options::default());
        self.runtime.block_on(connecting).expect("a connection")
    }
}

fn catch_up(criterion: &mut Criterion) {
    let bench = Bench::start();
    let entries = MESSAGES * MESSAGE_ENTRIES;
    let mut group = criterion.benchmark_group("client catch-up");
    group.throughput(Throughput::Elements(entries));
    let pages = |remote: EventLogRemote| {
        bench.runtime.block_on(async {
            let mut pages = remote.pages(&key(), Sequence::FIRST);
            let mut payloads = 0;
            while let Some(page) = pages.next().await {
                let page = page.expect("a page");
                payloads += page.iter().map(|(_, entry)| entry.payload.len()).sum::<usize>();
                if page.last().get() == entries {
                    break;
                }
            }
            remote.close().await;
            payloads
        })
    };
    group.bench_function("pages", |bencher| {
        bencher.iter_batched(|| bench.connect(), pages, BatchSize::PerIteration);
    });
    let changes = |remote: EventLogRemote| {
        bench.runtime.block_on(async {
            let mut changes = remote.changes(&key(), Sequence::FIRST);
            let mut payloads = 0;
            while let Some(change) = changes.next().await {
                let change = change.expect("an entry");
                payloads += change.entry.payload.len();
                if change.remote_sequence.get() == entries {
                    break;
                }
            }
            remote.close().await;
            payloads
        })
    };
    group.bench_function("changes", |bencher| {
        bencher.iter_batched(|| bench.connect(), changes, BatchSize::PerIteration);
    });
    group.finish();
}

fn writes(criterion: &mut Criterion) {
    let bench = Bench::start();
    let remote = bench.connect();
    let mut group = criterion.benchmark_group("client writes");
    for batch_entries in [1, 1_000] {
        let count = WRITES / batch_entries;
        group.throughput(Throughput::Elements((count * batch_entries) as u64));
        let batches = || -> Vec<Batch> {
            let batch = || Batch::from_entries((0..batch_entries).map(|_| entry()));
            (0..count).map(|_| batch()).collect()
        };
        let write = |batches: Vec<Batch>| {
            bench.runtime.block_on(async {
                let key = key();
                let mut in_flight = FuturesUnordered::new();
                for batch in batches {
                    in_flight.push(remote.write(&key, batch));
                    if in_flight.len() == IN_FLIGHT {
                        in_flight.next().await.expect("a write").expect("an ack");
                    }
                }
                while let Some(answer) = in_flight.next().await {
                    answer.expect("an ack");
                }
            });
        };
        group.bench_function(format!("batches of {batch_entries}"), |bencher| {
            bencher.iter_batched(batches, write, BatchSize::PerIteration);
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(Duration::from_secs(10));
    targets = catch_up, writes
}
criterion_main!(benches);
