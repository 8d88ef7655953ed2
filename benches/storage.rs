//! How many entries a second the storage makes durable, without sockets: by entries per append and number of stores;
//! and for comparison how many syncs the disk does.
//!
//! `cargo bench --bench storage -- [FILTER] [--directory DIR] [--seconds N]`. Prints a table: throughput depends on the
//! current state of the disk, so quote ratios to the sync of the same run.

#![expect(clippy::disallowed_methods, reason = "a benchmark reads clocks and files")]
#![allow(clippy::expect_used, reason = "a benchmark may end where it cannot go on")]

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use eventlog_server::model::{
    Batch, EntryId, EntryRef, Origin, PublicKey, Segment, SegmentBuilder, Sequence, StoreId,
};
use eventlog_server::storage::sled::{Database, DatabaseOptions, SledStorage};
use eventlog_server::storage::{Storage, StoreLog};
use futures_util::future::BoxFuture;
use tokio::runtime::Runtime;

const PAYLOAD_BYTES: usize = 100;

struct Args {
    filter: Option<String>,
    directory: PathBuf,
    time: Duration,
}

fn args() -> Args {
    let mut args =
        Args { filter: None, directory: std::env::temp_dir(), time: Duration::from_secs(3) };
    let mut given = std::env::args().skip(1);
    while let Some(arg) = given.next() {
        match (arg.as_str(), given.len()) {
            ("--directory", 1..) => args.directory = given.next().unwrap_or_default().into(),
            ("--seconds", 1..) => {
                let seconds = given.next().and_then(|seconds| seconds.parse().ok());
                args.time = Duration::from_secs(seconds.unwrap_or(3));
            }
            (flag, _) if flag.starts_with("--") => {}
            _ => args.filter = Some(arg),
        }
    }
    args
}

fn main() {
    let args = args();
    let runs = |name: &str| args.filter.as_ref().is_none_or(|filter| name.contains(filter));
    if runs("sync") {
        syncs(&args);
    }
    println!("{:<34} {:>12} {:>12} {:>10} {:>8}", "", "entries/s", "appends/s", "MB/s", "x disk");
    for (stores, in_flight, entries) in [
        (1, 1, 1),
        (1, 64, 1),
        (1, 1_024, 1),
        (16, 4, 1),
        (1_000, 1, 1),
        (10_000, 1, 1),
        (1, 4, 100),
        (4, 4, 100),
        (1, 4, 1_000),
        (4, 2, 1_000),
        (4, 8, 1_000),
    ] {
        let name = format!("append {stores}x{in_flight}x{entries}");
        if runs(&name) {
            append(&args, &name, stores, in_flight, entries);
        }
    }
    if runs("catch-up") || runs("duplicates") {
        read(&args);
    }
}

/// One sync of a file after a small write: no durable answer can be faster.
fn syncs(args: &Args) {
    let directory = tempfile::tempdir_in(&args.directory).expect("a directory");
    let mut file = File::create(directory.path().join("file")).expect("a file");
    let (start, mut count) = (Instant::now(), 0_u32);
    while start.elapsed() < args.time {
        file.write_all(&[7; 300]).expect("written");
        file.sync_data().expect("synced");
        count += 1;
    }
    println!(
        "fdatasync after 300 bytes: {:.0}/s",
        f64::from(count) / start.elapsed().as_secs_f64()
    );
}

fn batch(entries: usize) -> Batch {
    let payload = [7; PAYLOAD_BYTES];
    let mut batch = Batch::default();
    for _ in 0..entries {
        batch.push(&EntryRef {
            id: EntryId::now(),
            event: "Noted",
            primary_key: "n1",
            payload: &payload,
        });
    }
    batch
}

fn segments(first: Sequence, batch: &Batch, origin: &Origin) -> Vec<Segment> {
    let mut builder = SegmentBuilder::new(first);
    (0..batch.len()).filter_map(|slot| batch.record(slot)).for_each(|record| {
        builder.push(record, origin);
    });
    builder.finish()
}

struct Writer {
    log: Arc<dyn StoreLog>,
    next: Sequence,
    pending: VecDeque<BoxFuture<'static, Result<(), eventlog_server::storage::AppendError>>>,
}

impl Writer {
    fn append(&mut self, entries: usize, origin: &Origin) {
        let batch = batch(entries);
        let segments = segments(self.next, &batch, origin);
        self.next = self.next.plus(entries as u64);
        self.pending.push_back(self.log.append(segments));
    }
}

fn open(directory: &std::path::Path) -> (SledStorage, Database) {
    let database = Database::open(directory, DatabaseOptions::default()).expect("open");
    (SledStorage::new(database.clone()), database)
}

fn writers(storage: &SledStorage, stores: usize) -> Vec<Writer> {
    let open = |n| {
        let store = StoreId::new(format!("store {n}")).expect("a name");
        let log = storage.open(&store).expect("open");
        Writer { next: log.head().next(), log, pending: VecDeque::new() }
    };
    (0..stores).map(open).collect()
}

fn append(args: &Args, name: &str, stores: usize, in_flight: usize, entries: usize) {
    let directory = tempfile::tempdir_in(&args.directory).expect("a directory");
    let (storage, database) = open(directory.path());
    let origin = Origin::Client(PublicKey::new("alice").expect("a key"));
    let runtime = Runtime::new().expect("a runtime");
    let mut writers = writers(&storage, stores);
    let written = written_bytes();
    let (start, mut appends) = (Instant::now(), 0_u64);
    while start.elapsed() < args.time {
        for writer in &mut writers {
            if writer.pending.len() == in_flight
                && let Some(append) = writer.pending.pop_front()
            {
                runtime.block_on(append).expect("durable");
                appends += 1;
            }
            while writer.pending.len() < in_flight {
                writer.append(entries, &origin);
            }
        }
    }
    for append in writers.iter_mut().flat_map(|writer| writer.pending.drain(..)) {
        runtime.block_on(append).expect("durable");
        appends += 1;
    }
    let seconds = start.elapsed().as_secs_f64();
    let bytes: u64 = writers.iter().map(|writer| writer.log.bytes()).sum();
    let per_second = appends as f64 / seconds;
    println!(
        "{name:<34} {:>12.0} {per_second:>12.0} {:>10.1} {:>8.2}",
        per_second * entries as f64,
        bytes as f64 / 1e6 / seconds,
        (written_bytes() - written) as f64 / bytes as f64,
    );
    database.close().expect("closed");
}

/// What this process has sent to disks, if the system tells.
fn written_bytes() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    line.and_then(|bytes| bytes.parse().ok()).unwrap_or(0)
}

fn read(args: &Args) {
    const ENTRIES: usize = 1_000_000;
    let directory = tempfile::tempdir_in(&args.directory).expect("a directory");
    let (storage, database) = open(directory.path());
    let origin = Origin::Client(PublicKey::new("alice").expect("a key"));
    let runtime = Runtime::new().expect("a runtime");
    let mut writer = writers(&storage, 1).remove(0);
    let batches: Vec<Batch> = (0..ENTRIES / 1_000).map(|_| batch(1_000)).collect();
    for batch in &batches {
        let append = writer.log.append(segments(writer.next, batch, &origin));
        writer.next = writer.next.plus(batch.len() as u64);
        writer.pending.push_back(append);
        if writer.pending.len() > 8
            && let Some(append) = writer.pending.pop_front()
        {
            runtime.block_on(append).expect("durable");
        }
    }
    drop(writer);
    let log = writers(&storage, 1).remove(0).log;
    let start = Instant::now();
    let mut next = Sequence::FIRST;
    while next <= log.head() {
        let read = log.read(next, 1 << 20).expect("a read");
        next = read.last().map_or(next, Segment::last).next();
    }
    let rate = ENTRIES as f64 / start.elapsed().as_secs_f64();
    println!("{:<34} {rate:>12.0}", "catch-up of 1,000,000");

    let start = Instant::now();
    for batch in &batches {
        let ids: Vec<EntryId> = batch.ids().collect();
        let known = match log.probe(&ids).complete() {
            Some(known) => known,
            None => log.lookup(&ids).expect("a lookup"),
        };
        assert!(known.iter().all(Option::is_some));
    }
    let rate = ENTRIES as f64 / start.elapsed().as_secs_f64();
    println!("{:<34} {rate:>12.0}", "duplicates of 1,000,000");
    database.close().expect("closed");
}
