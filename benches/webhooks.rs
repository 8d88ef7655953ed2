//! How fast entries go to a receiver: from the start of a server whose stores it has never seen, until all have arrived.
//! The receiver is a thread of this process that reads requests and answers them.
//!
//! `cargo bench --bench webhooks`

#![expect(clippy::expect_used, reason = "a benchmark that cannot be set up has nothing to measure")]
#![expect(clippy::disallowed_methods, reason = "it measures time")]
#![expect(clippy::print_stdout, reason = "the figures are what it is for")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use eventlog_server::model::{
    Batch, EntryId, EntryRef, Origin, PublicKey, SegmentBuilder, StoreId,
};
use eventlog_server::processing::Processor;
use eventlog_server::server::Server;
use eventlog_server::services::auth::AllowAll;
use eventlog_server::services::journal::SledJournal;
use eventlog_server::services::registry::MemoryRegistry;
use eventlog_server::storage::Storage;
use eventlog_server::storage::sled::{Database, DatabaseOptions, SledStorage};
use eventlog_server::webhooks::{Begin, Webhook, WebhookOptions};

/// What arrived.
#[derive(Default)]
struct Arrived {
    requests: AtomicU64,
    entries: AtomicU64,
    bytes: AtomicU64,
}

fn main() {
    let arrived = Arc::new(Arrived::default());
    let receiver = receive(&arrived);
    actix_web::rt::System::new().block_on(async {
        for (stores, entries) in [(1, 200_000), (10, 400_000), (1_000, 200_000)] {
            measure(receiver, &arrived, stores, entries).await;
        }
    });
}

async fn measure(receiver: SocketAddr, arrived: &Arrived, stores: u64, entries: u64) {
    let directory = tempfile::tempdir().expect("a directory");
    let database = Database::open(directory.path(), DatabaseOptions::default());
    let database = database.expect("the directory opens");
    let storage = Arc::new(SledStorage::new(database.clone()));
    for store in 0..stores {
        let store = StoreId::new(format!("store {store}")).expect("a store");
        fill(&*storage, &store, entries / stores).await;
    }
    let all = [&arrived.requests, &arrived.entries, &arrived.bytes];
    all.iter().for_each(|count| count.store(0, Relaxed));
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().expect("a secret");
    let url = format!("http://{receiver}/");
    let webhook = Webhook::new(WebhookOptions::new("bench", url, [secret], Begin::Start));
    let webhook = webhook.expect("options that work");
    let journal = Arc::new(SledJournal::new(database));
    let processor = Processor::builder(journal).entry_group(webhook.group(), webhook).build();
    let builder = Server::builder(storage, Arc::new(MemoryRegistry::new()), Arc::new(AllowAll));
    let started = Instant::now();
    let server = builder.processor(processor.expect("a processor")).start().expect("starts");
    while arrived.entries.load(Relaxed) < entries {
        actix_web::rt::time::sleep(Duration::from_millis(1)).await;
    }
    let took = started.elapsed().as_secs_f64();
    let [requests, _, bytes] = all.map(|count| count.load(Relaxed) as f64);
    println!(
        "{stores} stores: {:.0} entries/s, {:.0} requests/s, {:.0} MB/s",
        entries as f64 / took,
        requests / took,
        bytes / took / 1e6,
    );
    server.shutdown(Duration::from_secs(20)).await;
}

/// Entries as small as those of a to-do list.
async fn fill(storage: &dyn Storage, store: &StoreId, entries: u64) {
    let log = storage.open(store).expect("opens");
    let origin = Origin::Client(PublicKey::new("alice").expect("a key"));
    let payload = [&b"\x82\xa2id\xa5todo1\xa5title\xd9\x3c"[..], &[b'x'; 60]].concat();
    let mut left = entries;
    while left > 0 {
        let count = left.min(1_000);
        left -= count;
        let mut segments = SegmentBuilder::new(log.head().next());
        for number in 0..count {
            let entry = EntryRef {
                id: EntryId::now(),
                event: "TodoRenamed",
                primary_key: &format!("todo-{}", number / 4),
                payload: &payload,
            };
            let batch = Batch::from_entries([entry]);
            segments.push(batch.record(0).expect("a slot"), &origin);
        }
        log.append(segments.finish()).await.expect("appended");
    }
}

/// Answers every request, each connection on a thread of its own.
fn receive(arrived: &Arc<Arrived>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let arrived = arrived.clone();
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let arrived = arrived.clone();
            std::thread::spawn(move || answer(socket, &arrived));
        }
    });
    address
}

fn answer(socket: TcpStream, arrived: &Arrived) -> Option<()> {
    socket.set_nodelay(true).ok()?;
    let (mut read, mut write) = (BufReader::new(socket.try_clone().ok()?), socket);
    let (mut line, mut body) = (String::new(), Vec::new());
    loop {
        let mut length = 0;
        loop {
            line.clear();
            if read.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let text = line.trim_end().to_ascii_lowercase();
            if text.is_empty() {
                break;
            }
            if let Some(number) = text.strip_prefix("content-length: ") {
                length = number.parse().ok()?;
            }
        }
        body.resize(length, 0);
        read.read_exact(&mut body).ok()?;
        let entries = body.windows(11).filter(|window| window == b"\"sequence\":").count();
        arrived.requests.fetch_add(1, Relaxed);
        arrived.bytes.fetch_add(length as u64, Relaxed);
        arrived.entries.fetch_add(entries as u64, Relaxed);
        write.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").ok()?;
    }
}
