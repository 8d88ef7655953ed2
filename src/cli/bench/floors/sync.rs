//! How often the disk syncs: no durable answer comes sooner than one sync.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use eventlog_server::storage::sled::{LOG_UNIT_BYTES, VALUE_BYTES_MAX};

use super::super::figures::histogram;
use super::super::report::quantile_of;

/// How many syncs there were in a second, and the median of how long they took.
pub(super) type Syncs = (f64, Duration);

/// `fdatasync` of a file, each after `bytes` more of it.
fn of_file(directory: &Path, bytes: usize, time: Duration) -> io::Result<Syncs> {
    let mut file = File::create(directory.join("file"))?;
    let piece = vec![7; bytes];
    repeat(time, |_| {
        file.write_all(&piece)?;
        file.sync_data()
    })
}

/// What a commit of the server waits for, without anything around it: sled takes `bytes`, flushes, and its log is
/// synced.
fn of_database(directory: &Path, bytes: usize, time: Duration) -> io::Result<Syncs> {
    let path = directory.join("sled");
    let config = sled::Config::new()
        .path(&path)
        .segment_size(LOG_UNIT_BYTES)
        .flush_every_ms(None)
        .mode(sled::Mode::HighThroughput);
    let database = config.open()?;
    let log = File::options().write(true).open(path.join("db"))?;
    let value = vec![7; bytes];
    repeat(time, |number| {
        let mut batch = sled::Batch::default();
        for (at, part) in value.chunks(VALUE_BYTES_MAX).enumerate() {
            batch.insert([number.to_be_bytes(), (at as u64).to_be_bytes()].concat(), part);
        }
        database.apply_batch(batch)?;
        database.flush()?;
        log.sync_data()
    })
}

/// `fdatasync` and what the server does, in this order.
pub(super) const KINDS: [Kind; 2] = [
    Kind { key: "floor_fdatasync", label: "floor: fdatasync", measure: of_file },
    Kind { key: "floor_sync", label: "floor: server's sync", measure: of_database },
];

/// A kind of sync.
pub(super) struct Kind {
    /// What it is called for machines.
    pub(super) key: &'static str,
    /// And for people.
    pub(super) label: &'static str,
    /// Does it for so long, each time after so many bytes.
    pub(super) measure: fn(&Path, usize, Duration) -> io::Result<Syncs>,
}

fn repeat(time: Duration, mut sync: impl FnMut(u64) -> io::Result<()>) -> io::Result<Syncs> {
    let mut latency = histogram();
    let start = Instant::now();
    let mut elapsed = Duration::ZERO;
    while elapsed < time {
        sync(latency.len())?;
        let now = start.elapsed();
        latency.saturating_record(now.saturating_sub(elapsed).as_nanos() as u64);
        elapsed = now;
    }
    Ok((latency.len() as f64 / elapsed.as_secs_f64(), quantile_of(&latency, 0.5)))
}
