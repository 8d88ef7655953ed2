//! The scenario `catch-up`: readers take in the whole history of a store.

use std::io;
use std::time::{Duration, Instant};

use eventlog_server::model::{PublicKey, Sequence};
use serde_json::json;

use super::args::CatchUpArgs;
use super::feed::Feeds;
use super::floors::{Doing, Floors};
use super::load::{self, Load, Record};
use super::report::{Report, grouped, human};
use super::rpc::id_number;
use super::target::Target;
use super::template::EntryShape;
use super::write::{INGEST, assigned_keys};

/// What one reader found.
struct Reading {
    /// From the request to the first entry.
    first: Duration,
    /// From the request to the last entry.
    all: Duration,
    bytes: u64,
    messages: u64,
    id_sum: u128,
}

/// What there is to read.
struct Filled {
    target: Target,
    keys: Vec<PublicKey>,
    readers: usize,
    first: Sequence,
    last: u64,
    /// The sum of the ids from `first` to `last`.
    id_sum: u128,
}

pub(super) async fn run(args: &CatchUpArgs) -> io::Result<bool> {
    let shape = EntryShape { batch: args.batch.max(1), payload: args.payload };
    let load = Load {
        connections: INGEST.0,
        in_flight: INGEST.1,
        shape,
        keys: INGEST.0,
        stores: 1,
        count: Some(args.count),
        ..Load::default()
    };
    let readers = args.readers.max(1);
    let settings = json!({
        "entries": args.count, "payload_bytes": shape.payload, "batch": shape.batch, "readers": readers,
    });
    let title = format!("{readers} readers, {} entries of {} bytes", args.count, shape.payload);
    let mut report = Report::new("catch-up", settings, &title);
    let floors = Floors::of(Doing::Reading, &args.target, &load, &mut report).await?;
    let filled = fill(args, &load, readers, &mut report).await?;
    let mut best = 0_f64;
    for number in 1..=args.rounds {
        best = best.max(round(&filled, number, &mut report).await?);
    }
    report.rate("entries_per_second", "best round", best);
    floors.compare_rates(0.0, best, &mut report);
    Ok(report.print(args.target.json))
}

async fn fill(
    args: &CatchUpArgs,
    load: &Load,
    readers: usize,
    report: &mut Report,
) -> io::Result<Filled> {
    let target = Target::open(&args.target)?;
    let keys = assigned_keys(&target, load)?;
    let (writing, filled) = load::run(&target, &keys, load, Record::Nothing).await?;
    report.rate("fill_per_second", "filled with", filled.entries_per_second());
    report.faults(&filled.faults);
    let keys = keys.into_iter().map(|(key, _)| key).collect();
    let seen = writing.seen.borrow();
    let first = Sequence::new(seen[0].min().max(1)).map_err(io::Error::other)?;
    let (last, id_sum) = (seen[0].max(), writing.id_sum.get());
    Ok(Filled { target, keys, readers, first, last, id_sum })
}

/// Reads everything once; entries per second.
async fn round(filled: &Filled, number: usize, report: &mut Report) -> io::Result<f64> {
    let Filled { target, keys, readers, .. } = filled;
    let before = target.usage();
    let readings = (0..*readers).map(|at| read(filled, &keys[at % keys.len()]));
    let readings = futures_util::future::try_join_all(readings).await?;
    let after = target.usage();
    if readings.iter().any(|reading| reading.id_sum != filled.id_sum) {
        report.fault("what was read is not what was written");
    }
    let elapsed = readings.iter().map(|reading| reading.all).max().unwrap_or_default();
    let sum = |of: fn(&Reading) -> u64| readings.iter().map(of).sum::<u64>() as f64;
    let entries = (filled.last + 1 - filled.first.get()) * *readers as u64;
    let entries_per_second = entries as f64 / elapsed.as_secs_f64();
    let bytes_per_second = sum(|reading| reading.bytes) / elapsed.as_secs_f64();
    let entries_per_message = entries as f64 / sum(|reading| reading.messages);
    let value = json!({
        "entries_per_second": entries_per_second.round(),
        "bytes_per_second": bytes_per_second.round(),
        "entries_per_message": entries_per_message,
        "first_entry_seconds": readings[0].first.as_secs_f64(),
    });
    let text = format!(
        "{} entries/s, {} MB/s, {entries_per_message:.0} entries a message, first after {}",
        grouped(entries_per_second),
        grouped(bytes_per_second / 1e6),
        human(readings[0].first),
    );
    report.add(&format!("round_{number}"), &format!("round {number}"), value, text);
    for (who, before, after) in [("server", before.0, after.0), ("generator", before.1, after.1)] {
        report.usage(who, before.zip(after), elapsed, entries);
    }
    Ok(entries_per_second)
}

/// Reads all of it with `key` on a connection of its own.
async fn read(filled: &Filled, key: &PublicKey) -> io::Result<Reading> {
    let Filled { target, first, last, .. } = filled;
    let mut socket = target.connect(&[key]).await?;
    let started = Instant::now();
    let mut feeds =
        Feeds::subscribe(target.protocol, &mut socket, std::iter::once(key.clone()), *first);
    socket.flush().await?;
    let none = Duration::ZERO;
    let mut reading = Reading { first: none, all: none, bytes: 0, messages: 0, id_sum: 0 };
    while feeds.reached() < *last {
        socket.receive().await?;
        while let Some(message) = socket.next_message()? {
            reading.bytes += message.len() as u64;
            reading.messages += 1;
            feeds.take(message, &mut |entry| {
                reading.id_sum = reading.id_sum.wrapping_add(id_number(entry.id));
            })?;
        }
        feeds.acknowledge(&mut socket);
        socket.flush().await?;
        if reading.first.is_zero() && feeds.reached() >= first.get() {
            reading.first = started.elapsed();
        }
    }
    reading.all = started.elapsed();
    Ok(reading)
}
