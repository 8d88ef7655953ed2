//! The scenario `catch-up`: readers receive the whole history of a store.

use std::io;
use std::time::{Duration, Instant};

use eventlog_server::model::{PublicKey, Sequence};
use serde_json::json;

use super::args::CatchUpArgs;
use super::floors::{Doing, Floors};
use super::load::{self, Load};
use super::report::{Report, grouped, human};
use super::rpc::id_number;
use super::subscriber::Subscriber;
use super::target::Target;
use super::write::{INGEST, assigned_keys};

/// The result of one reader.
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
    /// The key of each reader.
    keys: Vec<PublicKey>,
    first: Sequence,
    last: u64,
    /// The sum of the ids from `first` to `last`.
    id_sum: u128,
}

pub(super) async fn run(args: &CatchUpArgs) -> io::Result<bool> {
    let shape = args.entries.shape(INGEST.2);
    let load = Load { count: Some(args.count), ..Load::new(INGEST.0, INGEST.1, shape) };
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
    let filled = load::run(&target, &keys, load, Vec::new()).await?;
    report.rate("fill_per_second", "filled with", filled.entries_per_second());
    report.faults(&filled.run.figures.faults);
    let keys = keys.into_iter().map(|(key, _)| key).cycle().take(readers).collect();
    let (seen, id_sum) = (&filled.run.seen[0], filled.run.id_sum);
    let first = Sequence::new(seen.min().max(1)).map_err(io::Error::other)?;
    Ok(Filled { target, keys, first, last: seen.max(), id_sum })
}

/// Reads everything once; returns entries per second.
async fn round(filled: &Filled, number: usize, report: &mut Report) -> io::Result<f64> {
    let before = filled.target.usages();
    let readings = filled.keys.iter().map(|key| read(filled, key));
    let readings = futures_util::future::try_join_all(readings).await?;
    let after = filled.target.usages();
    if readings.iter().any(|reading| reading.id_sum != filled.id_sum) {
        report.fault("what was read is not what was written");
    }
    let elapsed = readings.iter().map(|reading| reading.all).max().unwrap_or_default();
    let sum = |of: fn(&Reading) -> u64| readings.iter().map(of).sum::<u64>() as f64;
    let entries = (filled.last + 1 - filled.first.get()) * readings.len() as u64;
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
    report.usages(before, after, elapsed, entries);
    Ok(entries_per_second)
}

/// Reads all of it with `key` on a connection of its own.
async fn read(filled: &Filled, key: &PublicKey) -> io::Result<Reading> {
    let Filled { target, first, last, .. } = filled;
    let mut subscriber = Subscriber::open(target, std::slice::from_ref(key), *first).await?;
    let started = Instant::now();
    let (mut first_after, mut id_sum) = (None, 0_u128);
    while subscriber.reached() < *last {
        subscriber.wait().await?;
        subscriber.take(&mut |entry| id_sum = id_sum.wrapping_add(id_number(entry.id)))?;
        if subscriber.reached() >= first.get() {
            first_after.get_or_insert_with(|| started.elapsed());
        }
    }
    let all = started.elapsed();
    let Subscriber { bytes, messages, .. } = subscriber;
    Ok(Reading { first: first_after.unwrap_or(all), all, bytes, messages, id_sum })
}
