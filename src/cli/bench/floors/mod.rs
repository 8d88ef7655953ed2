//! Floors: what the disk, a bare echo server and the storage achieve by themselves. Machines differ; ratios to the
//! floors differ less.
//!
//! Keeps: a floor is measured in the same run, by the same generator with the same frames, before the server starts, so
//! that neither disturbs the other.

mod echo;
mod storage;
mod sync;

use std::io;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use self::sync::Syncs;
use super::args::{FloorArg, TargetArgs};
use super::load::{Load, Measured};
use super::progress::Progress;
use super::report::{Report, grouped, human, quantile_of};

/// What an entry takes on disk in addition to its payload, roughly.
const ENTRY_BYTES: usize = 60;

/// The floors of a run; those that were not measured are absent.
#[derive(Default)]
pub(super) struct Floors {
    /// One sync in the way the server does it, by itself.
    sync: Option<Duration>,
    /// Messages there and back per second.
    echo: Option<f64>,
    /// Entries per second.
    storage: Option<f64>,
}

/// What is done with a load for which floors are measured.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Doing {
    /// It is written.
    Writing,
    /// It is sent again.
    Repeating,
    /// It is read.
    Reading,
    /// It is delivered.
    Delivering,
}

impl Floors {
    /// Measures the requested ones.
    pub(super) async fn of(
        doing: Doing,
        args: &TargetArgs,
        load: &Load,
        report: &mut Report,
    ) -> io::Result<Self> {
        let mut floors = Self::default();
        if doing == Doing::Writing && args.measures(FloorArg::Sync) {
            floors.sync = Some(syncs(args, load, report)?);
        }
        if doing != Doing::Reading && args.measures(FloorArg::Echo) {
            floors.echo = Some(echo(args, load, report).await?);
        }
        if doing != Doing::Delivering && args.measures(FloorArg::Storage) {
            say("storage alone");
            let directory = args.temporary_directory()?;
            let (path, time) = (directory.path(), args.floor_duration);
            let (verb, per_second) = match doing {
                Doing::Repeating => (" finds", storage::find(path, load).await?),
                Doing::Reading => (" reads", storage::read(path, load).await?),
                Doing::Writing | Doing::Delivering => {
                    ("", storage::append(path, load, time).await?)
                }
            };
            let label = format!("floor: storage alone{verb}");
            report.rate("floor_storage_per_second", &label, per_second);
            floors.storage = Some(per_second);
        }
        Ok(floors)
    }

    /// What an idle connection of a bare echo server takes, in bytes.
    pub(super) async fn of_idle(
        args: &TargetArgs,
        connections: usize,
        report: &mut Report,
    ) -> io::Result<Option<f64>> {
        if !args.measures(FloorArg::Echo) {
            return Ok(None);
        }
        say("connections of an echo server");
        let Some(each) = echo::idle_bytes(connections).await? else { return Ok(None) };
        let text = format!("{:.2} KiB", each / 1_024.0);
        report.add("floor_echo_bytes_per_connection", "floor: echo each", each.round(), text);
        Ok(Some(each))
    }

    /// Compares the measurement with them.
    pub(super) fn compare(&self, measured: &Measured, report: &mut Report) {
        let figures = &measured.run.figures;
        let messages = figures.acks.messages.max(figures.deliveries.messages);
        let messages_per_second = messages as f64 / figures.elapsed().as_secs_f64();
        self.compare_rates(messages_per_second, measured.entries_per_second(), report);
        if let Some(sync) = self.sync {
            let median = quantile_of(&figures.acks.latency, 0.5);
            let times = median.as_secs_f64() / sync.as_secs_f64();
            report.add("p50_of_one_sync", "p50 to one sync", times, format!("{times:.2} times"));
        }
    }

    /// Like [`Floors::compare`], from rates per second.
    pub(super) fn compare_rates(&self, messages: f64, entries: f64, report: &mut Report) {
        if let Some(echo) = self.echo {
            report.share("of_echo", "of echo", messages / echo);
        }
        if let Some(storage) = self.storage {
            report.share("of_storage", "of storage alone", entries / storage);
        }
    }
}

/// Measures syncs after about as many bytes as a batch has; returns the median of the kind that the server uses.
fn syncs(args: &TargetArgs, load: &Load, report: &mut Report) -> io::Result<Duration> {
    let bytes = load.shape.batch * (load.shape.payload + ENTRY_BYTES);
    let mut measure = |key, label, repeat: fn(&Path, usize, Duration) -> io::Result<Syncs>| {
        say(label);
        let directory = args.temporary_directory()?;
        let (per_second, median) = repeat(directory.path(), bytes, args.floor_duration)?;
        let value = json!({
            "per_second": per_second.round(), "p50": median.as_secs_f64(), "bytes": bytes,
        });
        let text = format!("{}/s, p50 {}", grouped(per_second), human(median));
        report.add(key, label, value, text);
        Ok(median)
    };
    measure("floor_fdatasync", "floor: fdatasync", sync::of_file)?;
    measure("floor_sync", "floor: server's sync", sync::of_log)
}

async fn echo(args: &TargetArgs, load: &Load, report: &mut Report) -> io::Result<f64> {
    say("an echo server");
    let measured = echo::run(load, args.floor_duration).await?;
    let figures = &measured.run.figures;
    let per_second = figures.acks.messages as f64 / figures.elapsed().as_secs_f64();
    let cpu = measured.before[0].zip(measured.after[0]);
    let nanos = cpu.map(|(before, after)| {
        1e9 * after.cpu_since(&before) / figures.acks.messages.max(1) as f64
    });
    let mut text = format!("{} messages/s", grouped(per_second));
    if let Some(nanos) = nanos {
        text = format!("{text}, {} ns of CPU a message", grouped(nanos));
    }
    let value = json!({
        "messages_per_second": per_second.round(), "cpu_nanos_per_message": nanos.map(f64::round),
    });
    report.add("floor_echo", "floor: echo", value, text);
    Ok(per_second)
}

fn say(what: &str) {
    Progress::say(&format!("measuring {what}"));
}
