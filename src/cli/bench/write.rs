//! The scenarios `write`, `ingest` and `echo`: batches from many connections.

use std::io;

use super::args::{EchoArgs, LoadArgs};
use super::floors::{Doing, Floors};
use super::load::{self, Key, Load, Measured, Round};
use super::report::{Report, grouped};
use super::target::{Target, disk_bytes};
use crate::cli::text::people_bytes;

/// The default connections, batches in flight and entries in a batch.
pub(super) const WRITE: (usize, usize, usize) = (16, 64, 1);
pub(super) const INGEST: (usize, usize, usize) = (4, 4, 1_000);

/// How much is sent again by default.
const RESEND_ENTRIES: u64 = 1_000_000;

pub(super) async fn run(
    name: &str,
    args: &LoadArgs,
    defaults: (usize, usize, usize),
) -> io::Result<bool> {
    let mut load = Load::of(args, defaults);
    if args.resend {
        load.count = load.count.or(Some(RESEND_ENTRIES));
    }
    let mut report = Report::new(name, load.settings(), &load.title());
    let doing = if args.resend { Doing::Repeating } else { Doing::Writing };
    let floors = Floors::of(doing, &args.target, &load, &mut report).await?;
    let target = Target::open(&args.target)?;
    let keys = assigned_keys(&target, &load)?;
    let measured = if args.resend {
        resend(&target, &keys, &load, &mut report).await?
    } else {
        load::run(&target, &keys, &load, Vec::new()).await?
    };
    report.measured(&measured);
    floors.compare(&measured, &mut report);
    Ok(report.print(args.target.json))
}

/// Writes everything, and then everything again, which is what is reported.
async fn resend(
    target: &Target,
    keys: &[Key],
    load: &Load,
    report: &mut Report,
) -> io::Result<Measured> {
    let disk = |target: &Target| target.data_dir().map(|path| disk_bytes(&path)).transpose();
    let round = |round| Load { round, ..*load };
    let first = load::run(target, keys, &round(Round::First), Vec::new()).await?;
    report.rate("first_per_second", "written first with", first.entries_per_second());
    report.faults(&first.run.figures.faults);
    let before = disk(target)?;
    let again = load::run(target, keys, &round(Round::Second), first.run.sent).await?;
    if let Some((before, after)) = before.zip(disk(target)?) {
        let (growth, text) = (after.saturating_sub(before), people_bytes(after));
        let text = format!("{} bytes, to {text}", grouped(growth as f64));
        report.add("disk_growth_bytes", "disk growth", growth, text);
    }
    Ok(again)
}

pub(super) async fn echo(args: &EchoArgs) -> io::Result<bool> {
    let load = Load { echo: true, ..Load::of(&args.load(), WRITE) };
    let target = Target::start_echo()?;
    let keys = load::fresh_keys(load.keys, load.stores);
    let measured = load::run(&target, &keys, &load, Vec::new()).await?;
    let mut report = Report::new("echo", load.settings(), &load.title());
    report.measured(&measured);
    Ok(report.print(args.json))
}

/// Fresh keys that the server knows.
pub(super) fn assigned_keys(target: &Target, load: &Load) -> io::Result<Vec<Key>> {
    if load.stores > 1 && !target.assigns() {
        return Err(io::Error::other("several stores take an admin token, to assign keys to them"));
    }
    let keys = load::fresh_keys(load.keys, load.stores);
    target.assign(&keys)?;
    Ok(keys)
}
