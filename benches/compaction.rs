//! What old history costs its readers, with and without a compactor, and what the compactor costs writers. A whole
//! server on sled and a client on a socket, one after another on one machine:
//!
//! ```text
//! cargo bench --bench compaction
//! ```
//!
//! A read is timed from the request to the last entry. Repeated reads are done at least five times and for half a
//! second, and the median counts; but for the baseline, all entries without a compactor, the fastest of five counts.
//! `docs/COMPACTION.md` has the figures.

#![expect(clippy::disallowed_methods, reason = "a benchmark reads clocks and files")]
#![expect(clippy::expect_used, reason = "a benchmark that cannot be set up has nothing to measure")]
#![expect(clippy::print_stdout, reason = "the figures are what it is for")]

use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::BytesMut;
use eventlog_server::model::{Batch, EntryId, EntryRef, PublicKey, Sequence, StoreId};
use eventlog_server::processing::compaction::{Compaction, EventPattern, Strategy};
use eventlog_server::protocol::msgpack::{
    Response, decode_response, encode_request_changes, encode_write,
};
use eventlog_server::server::{Listen, Server, listen};
use eventlog_server::services::auth::AllowAll;
use eventlog_server::services::registry::MemoryRegistry;
use eventlog_server::storage::sled::{Database, DatabaseOptions, SledStorage};
use tokio_tungstenite::tungstenite::stream::MaybeTlsStream;
use tokio_tungstenite::tungstenite::{Message, WebSocket, connect};

const ENTRIES: u64 = 1_000_000;
const KEYS: u64 = 10_000;
const PAYLOAD: [u8; 100] = [7; 100];
const MONTH: Duration = Duration::from_secs(30 * 24 * 60 * 60);
const BATCH: u64 = 1_000;
/// Batches that a writer has in flight.
const WINDOW: u64 = 16;
const WRITE_ROUNDS: usize = 7;
const WRITE_BATCHES: u64 = 200;

fn main() {
    let directory = tempfile::tempdir().expect("a directory");
    let database = Database::open(directory.path(), DatabaseOptions::default());
    let storage = Arc::new(SledStorage::new(database.expect("a database")));
    let registry = Arc::new(MemoryRegistry::new());
    let server = Server::builder(storage, registry, Arc::new(AllowAll)).start();
    let server = server.expect("a server");
    let address = serve(&server);
    for (store, says, key) in [
        ("random", "each entry has a random key", random_key as fn(u64) -> u64),
        ("periods", "each key has a hundred entries in a row", |n| n / (ENTRIES / KEYS)),
    ] {
        assign(&server, store);
        let mut writer = Client::connect(&address, store);
        writer.fill(ENTRIES, 2 * MONTH, key);
        println!("\n{ENTRIES} old entries over {KEYS} primary keys; {says}");
        reads(&server, &address, store);
    }
    assign(&server, "written");
    writes(&server, &address);
}

fn assign(server: &Server, name: &str) {
    let (key, store) = (public_key(name), StoreId::new(name).expect("a store"));
    let assigned = server.assign(key, store);
    actix_web::rt::System::new().block_on(assigned).expect("an assignment");
}

/// Reads one store in all possible ways.
fn reads(server: &Server, address: &str, store: &str) {
    let compaction: &Compaction = server.compaction();
    let tail = ENTRIES / 100 * 99 + 1;
    let read = |from| Client::connect(address, store).read(from, ENTRIES);
    read(0);
    let all_raw = (0..5).map(|_| read(0)).min_by_key(|read| read.time);
    let raw = all_raw.expect("five of them");
    row("all, raw", &raw, &raw);
    row("last 1%, raw", &again(|| read(tail)), &raw);
    let keep_latest = || register(compaction, Strategy::KeepLatest);
    let guard = keep_latest();
    row("last 1%, keep-latest, first", &read(tail), &raw);
    drop(guard);
    let guard = keep_latest();
    row("all, keep-latest, first", &read(0), &raw);
    row("all, keep-latest, again", &again(|| read(0)), &raw);
    row("last 1%, keep-latest, again", &again(|| read(tail)), &raw);
    drop(guard);
    let guard = register(
        compaction,
        Strategy::effect(|bucket, out| {
            out.write("TodoCounted", (bucket.entries.len() as u64).to_be_bytes().to_vec());
            Ok(())
        }),
    );
    row("all, an effect, first", &read(0), &raw);
    row("all, an effect, again", &again(|| read(0)), &raw);
    row("last 1%, an effect, again", &again(|| read(tail)), &raw);
    drop(guard);
}

fn register(
    compaction: &Compaction,
    strategy: Strategy,
) -> eventlog_server::processing::compaction::CompactionGuard {
    compaction.register([EventPattern::glob("Todo*")], MONTH, strategy).expect("the only one")
}

/// Writes recent and old entries with and without a compactor, taking turns, so that both meet the same conditions.
fn writes(server: &Server, address: &str) {
    let mut writer = Client::connect(address, "written");
    let (mut without, mut with) = (Vec::new(), Vec::new());
    let mut round = |age| {
        let started = Instant::now();
        writer.fill(WRITE_BATCHES * BATCH, age, random_key);
        (WRITE_BATCHES * BATCH) as f64 / started.elapsed().as_secs_f64()
    };
    round(Duration::ZERO);
    for _ in 0..WRITE_ROUNDS {
        without.push(round(Duration::ZERO));
        let guard = register(server.compaction(), Strategy::KeepLatest);
        with.push(round(Duration::ZERO));
        drop(guard);
    }
    let (without, with) = (median(&mut without), median(&mut with));
    println!("\nwriting, one connection, batches of {BATCH}, median of {WRITE_ROUNDS} rounds");
    println!("{:32} {without:>12.0} entries/s", "without a compactor");
    let share = with / without;
    println!("{:32} {with:>12.0} entries/s  {share:.2} of that", "with keep-latest");
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

struct Read {
    entries: u64,
    bytes: u64,
    time: Duration,
}

/// The median of several reads. Five reads of a few milliseconds are no sample: for some tens of milliseconds after
/// other work they take half as long again, as if both ends shared a core.
fn again(mut read: impl FnMut() -> Read) -> Read {
    let started = Instant::now();
    let mut reads = Vec::new();
    while reads.len() < 5 || started.elapsed() < Duration::from_millis(500) {
        reads.push(read());
    }
    reads.sort_by_key(|read| read.time);
    reads.swap_remove(reads.len() / 2)
}

fn row(what: &str, read: &Read, raw: &Read) {
    let Read { entries, bytes, time } = read;
    let (millis, share) = (time.as_secs_f64() * 1e3, raw.time.as_secs_f64() / time.as_secs_f64());
    println!("{what:32} {entries:>9} entries {bytes:>11} bytes {millis:>9.1} ms  1/{share:.1}");
}

/// The same for every run: a pseudo-random key for each entry.
fn random_key(n: u64) -> u64 {
    let mixed = (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed ^ (mixed >> 27)) % KEYS
}

fn public_key(name: &str) -> PublicKey {
    PublicKey::new(name).expect("a key")
}

/// Serves in a thread of its own until the process ends.
fn serve(server: &Server) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("ws://{}/eventlog", listener.local_addr().expect("an address"));
    let server = server.clone();
    std::thread::spawn(move || {
        let options = Listen { workers: 1, shutdown_timeout: Duration::from_secs(1) };
        let served = listen(server, listener, options, std::future::pending());
        actix_web::rt::System::new().block_on(served).expect("it serves");
    });
    address
}

struct Client {
    socket: WebSocket<MaybeTlsStream<TcpStream>>,
    key: PublicKey,
    /// Entry ids ascend, whatever time they claim.
    written: u64,
}

impl Client {
    fn connect(address: &str, name: &str) -> Self {
        let (socket, _) = connect(address).expect("a connection");
        Self { socket, key: public_key(name), written: 0 }
    }

    fn send(&mut self, bytes: BytesMut) {
        self.socket.send(Message::Binary(bytes.freeze())).expect("sent");
    }

    fn next(&mut self) -> (Response, u64) {
        loop {
            if let Message::Binary(bytes) = self.socket.read().expect("a message") {
                return (decode_response(&bytes).expect("a response"), bytes.len() as u64);
            }
        }
    }

    /// Reads from `start` to the entry at `last`, which is always sent.
    fn read(&mut self, start: u64, last: u64) -> Read {
        let started = Instant::now();
        let mut request = BytesMut::new();
        let start = Sequence::new(start).expect("a sequence");
        encode_request_changes(&mut request, &self.key, start);
        self.send(request);
        let mut read = Read { entries: 0, bytes: 0, time: Duration::ZERO };
        let mut seen = 0;
        while seen < last {
            if let (Response::Changes(view), bytes) = self.next() {
                read.bytes += bytes;
                for (sequence, _) in view.iter() {
                    read.entries += 1;
                    seen = sequence.get();
                }
            }
        }
        read.time = started.elapsed();
        read
    }

    /// Appends this many entries of that age.
    fn fill(&mut self, entries: u64, age: Duration, key: fn(u64) -> u64) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970");
        let created = now.saturating_sub(age).as_millis() as u64;
        let batches = entries / BATCH;
        let mut acked = 0;
        for batch in 0..batches {
            self.write(batch, created, key);
            while batch + 1 - acked >= WINDOW.min(batches) {
                acked += u64::from(matches!(self.next().0, Response::Ack { .. }));
            }
        }
        while acked < batches {
            acked += u64::from(matches!(self.next().0, Response::Ack { .. }));
        }
    }

    fn write(&mut self, id: u64, created: u64, key: fn(u64) -> u64) {
        let mut batch = Batch::default();
        for _ in 0..BATCH {
            let primary_key = format!("todo-{:06}", key(self.written));
            // A thousand entries a millisecond.
            let id = entry_id(created + self.written / 1_000, self.written);
            let entry =
                EntryRef { id, event: "TodoRenamed", primary_key: &primary_key, payload: &PAYLOAD };
            batch.push(&entry);
            self.written += 1;
        }
        let mut request = BytesMut::new();
        encode_write(&mut request, &self.key, id, &batch);
        self.send(request);
    }
}

fn entry_id(created: u64, number: u64) -> EntryId {
    let mut id = [0; EntryId::LEN];
    id[..6].copy_from_slice(&created.to_be_bytes()[2..]);
    id[6] = 0x70;
    id[8..].copy_from_slice(&(number | 1 << 63).to_be_bytes());
    EntryId::from_bytes(id)
}
