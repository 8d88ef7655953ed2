//! A process that writes into a data directory, and the check of its result.
//!
//! Every entry is determined by its store and its sequence, so the check only needs the answers that the process
//! printed. The process is this test binary, started with the name of [`write_in_a_child_process`].

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;

use eventlog_server::model::{
    Batch, EntryId, EntryRef, Origin, PublicKey, Segment, SegmentBuilder, Sequence, StoreId,
};
use eventlog_server::storage::sled::{Database, DatabaseOptions, SledStorage};
use eventlog_server::storage::{Storage, StoreLog};
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;

const DIRECTORY: &str = "EVENTLOG_TEST_WRITE_IN";
const LOAD: &str = "EVENTLOG_TEST_WRITE";
const IN_FLIGHT: usize = 3;

/// What is written; each load has its own stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// Entries of some bytes up to 150 KB, some of them in batches of 500.
    Mixed,
    /// One entry of 300 bytes at a time.
    Small,
    /// One of 20 KB.
    Medium,
    /// One of 600 KB.
    Large,
    /// Batches of 12 MB.
    Batches,
    /// One of 300 bytes, to each of 10,000 stores.
    Stores,
}

impl Load {
    pub const ALL: [Self; 6] =
        [Self::Mixed, Self::Small, Self::Medium, Self::Large, Self::Batches, Self::Stores];

    fn of(store: u64) -> Self {
        Self::ALL[(store / STORES_MAX) as usize]
    }

    fn stores(self) -> std::ops::Range<u64> {
        let first = self as u64 * STORES_MAX;
        match self {
            Self::Stores => first..first + 10_000,
            Self::Batches => first..first + 2,
            _ => first..first + 12,
        }
    }

    /// How many entries the batch has that begins here.
    fn batch(self, mixed: u64) -> u64 {
        match self {
            Self::Mixed if mixed.is_multiple_of(20) => 500,
            Self::Mixed => mixed % 8 + 1,
            Self::Batches => 600,
            _ => 1,
        }
    }

    /// How many bytes an entry has.
    fn bytes(self, mixed: u64) -> usize {
        match self {
            Self::Mixed if mixed % 500 == 7 => 150_000,
            Self::Mixed => (mixed % 300) as usize,
            Self::Small | Self::Stores => 300,
            Self::Medium | Self::Batches => 20_000,
            Self::Large => 600_000,
        }
    }
}

/// The numbers of a load's stores begin with a multiple of this.
const STORES_MAX: u64 = 100_000;

fn store_id(store: u64) -> StoreId {
    StoreId::new(format!("store {store}")).expect("a name")
}

fn mixed(store: u64, sequence: u64) -> u64 {
    let mut mixed = (store << 48 ^ sequence).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed ^= mixed >> 29;
    mixed.wrapping_mul(0xBF58_476D_1CE4_E5B9) ^ mixed >> 32
}

fn entry_id(store: u64, sequence: u64) -> EntryId {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&((1_700_000_000_000 + sequence / 10) << 16).to_be_bytes());
    bytes[8..].copy_from_slice(&mixed(store, sequence).to_be_bytes());
    EntryId::from_bytes(bytes)
}

/// The first sequence and the length of its batch, then as many bytes as its sequence determines.
fn payload(store: u64, sequence: u64, batch: (u64, u64)) -> Vec<u8> {
    let mut payload = [batch.0.to_be_bytes(), batch.1.to_be_bytes()].concat();
    let mixed = mixed(store, sequence);
    let len = Load::of(store).bytes(mixed);
    payload.extend(mixed.to_le_bytes().iter().cycle().take(len));
    payload
}

fn segments(store: u64, first: u64, count: u64) -> Vec<Segment> {
    let origin = Origin::Client(PublicKey::new("alice").expect("a key"));
    let mut builder = SegmentBuilder::new(Sequence::new(first).expect("a sequence"));
    for sequence in first..first + count {
        let payload = payload(store, sequence, (first, count));
        let id = entry_id(store, sequence);
        let entry = EntryRef { id, event: "Noted", primary_key: "n", payload: &payload };
        builder.push(Batch::from_entries([entry]).record(0).expect("a slot"), &origin);
    }
    builder.finish()
}

fn open(directory: &Path) -> (SledStorage, Database) {
    // Small enough that checkpoints and changes of files happen all the time.
    let options = DatabaseOptions {
        ballast_bytes: 4 << 20,
        checkpoint_bytes: 256 << 10,
        log_file_bytes: 2 << 20,
        ..Default::default()
    };
    let database = Database::open(directory, options).expect("it opens");
    (SledStorage::new(database.clone()), database)
}

/// Not a test by itself: [`Writing::start`] runs it, until it is killed or the disk fails.
#[test]
fn write_in_a_child_process() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let (storage, _database) = open(Path::new(&directory));
    let runtime = tokio::runtime::Builder::new_multi_thread().build().expect("a runtime");
    let load = std::env::var(LOAD).expect("what to write");
    let load = Load::ALL.into_iter().find(|one| format!("{one:?}") == load).expect("a load");
    let writers: Vec<_> = load
        .stores()
        .map(|store| {
            let log = storage.open(&store_id(store)).expect("open");
            runtime.spawn(write(store, log))
        })
        .collect();
    for writer in writers {
        runtime.block_on(writer).expect("no panic");
    }
    println!("failed");
    // Nothing is closed in an orderly way.
    std::process::exit(0);
}

async fn write(store: u64, log: Arc<dyn StoreLog>) {
    let mut next = log.head().get() + 1;
    let mut pending = FuturesOrdered::new();
    loop {
        while pending.len() < IN_FLIGHT {
            let count = Load::of(store).batch(mixed(store, next));
            let append = log.append(segments(store, next, count));
            next += count;
            pending.push_back(async move { append.await.map(|()| next - 1) });
        }
        match pending.next().await {
            Some(Ok(last)) => println!("ack {store} {last}"),
            Some(Err(_)) | None => return,
        }
    }
}

/// The other process.
pub struct Writing {
    child: Child,
    acks: JoinHandle<HashMap<u64, u64>>,
    first_ack: std::sync::mpsc::Receiver<()>,
}

impl Writing {
    /// Makes another process write `load` into `directory`.
    pub fn start(directory: &Path, load: Load) -> Self {
        let binary = std::env::current_exe().expect("this binary");
        let mut child = Command::new(binary)
            .args(["--exact", "storage::load::write_in_a_child_process", "--nocapture"])
            .env(DIRECTORY, directory)
            .env(LOAD, format!("{load:?}"))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a process");
        let output = child.stdout.take().expect("its output");
        let (tell, first_ack) = std::sync::mpsc::channel();
        let acks = std::thread::spawn(move || {
            let mut acks = HashMap::new();
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                // The last line may be cut short.
                let numbers: Vec<u64> = match line.strip_prefix("ack ") {
                    Some(rest) => rest.split(' ').filter_map(|n| n.parse().ok()).collect(),
                    None => continue,
                };
                if let [store, last] = numbers[..] {
                    acks.insert(store, last);
                    // Only the first one is awaited.
                    let _ = tell.send(());
                }
            }
            acks
        });
        Self { child, acks, first_ack }
    }

    /// Waits for the first answer.
    pub fn wait_for_an_ack(&self) {
        self.first_ack.recv().expect("it wrote something");
    }

    /// Kills it, and returns the last sequence that was answered for each store.
    pub fn kill(mut self) -> HashMap<u64, u64> {
        // It may have ended by itself.
        let _ = self.child.kill();
        self.child.wait().expect("it ended");
        self.acks.join().expect("no panic")
    }
}

/// Checks that everything that was answered is there, and that what is there of these loads is what was written, batch
/// by batch. Returns the number of entries.
pub fn check(directory: &Path, loads: &[Load], acks: &HashMap<u64, u64>) -> u64 {
    let (storage, database) = open(directory);
    let mut entries = 0;
    for store in loads.iter().flat_map(|load| load.stores()) {
        let log = storage.open(&store_id(store)).expect("open");
        let head = log.head().get();
        let acked = acks.get(&store).copied().unwrap_or(0);
        assert!(head >= acked, "store {store}: {acked} was answered, {head} is there");
        check_entries(store, &*log);
        check_ids(store, &*log);
        entries += head;
    }
    database.close().expect("closed");
    entries
}

fn check_entries(store: u64, log: &dyn StoreLog) {
    let (mut next, mut batch) = (1, (1, 0));
    while next <= log.head().get() {
        let from = Sequence::new(next).expect("a sequence");
        for segment in log.read(from, 1 << 20).expect("a read") {
            for (sequence, entry) in segment.iter() {
                assert_eq!(sequence.get(), next);
                assert_eq!(entry.id, entry_id(store, next));
                if batch.0 + batch.1 == next {
                    let number = |at| {
                        u64::from_be_bytes(entry.payload[at..at + 8].try_into().expect("eight"))
                    };
                    batch = (number(0), number(8));
                    assert_eq!(batch.0, next);
                }
                assert_eq!(entry.payload, payload(store, next, batch), "store {store}, {next}");
                next += 1;
            }
        }
    }
    assert_eq!(batch.0 + batch.1, next, "the last batch is whole");
}

fn check_ids(store: u64, log: &dyn StoreLog) {
    let head = log.head().get();
    let sequences: Vec<u64> = (1..=head).step_by(7).chain(head + 1..head + 20).collect();
    let ids: Vec<EntryId> = sequences.iter().map(|sequence| entry_id(store, *sequence)).collect();
    let found = log.lookup(&ids).expect("a lookup");
    for (found, sequence) in found.into_iter().zip(sequences) {
        let expected = (sequence <= head).then(|| Sequence::new(sequence).expect("a sequence"));
        assert_eq!(found, expected);
    }
}
