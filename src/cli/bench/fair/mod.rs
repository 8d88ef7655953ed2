//! The scenario `fair`: one client with one write in flight, alone and then next to others who ask for a lot.
//!
//! Keeps: the others run on a thread of the lowest priority, so that the one client waits for the server and not for
//! this process. Leaves out: what they do (`neighbours`, `strangers`).

pub(super) mod kinds;
mod neighbours;
mod strangers;

use std::io;
use std::sync::Arc;

use serde_json::json;

use self::neighbours::{Neighbours, Work};
use super::args::{Beside, FairArgs};
use super::load::{self, Key, Load};
use super::report::Report;
use super::target::Target;
use super::template::EntryShape;
use super::write::INGEST;

/// What the one client writes.
const SHAPE: EntryShape = EntryShape { batch: 1, payload: 100 };

pub(super) async fn run(args: &FairArgs) -> io::Result<bool> {
    let count = args.neighbours.unwrap_or(args.beside.usual()).max(1);
    if args.beside == Beside::Strangers {
        return strangers::run(args, count).await;
    }
    let settings = json!({ "beside": args.beside.name(), "neighbours": count });
    let title = format!("one write in flight beside {} ({count})", args.beside.name());
    let mut report = Report::new("fair", settings, &title);
    let target = Arc::new(Target::open(&args.target)?);
    let (one, others) = keys(&target, args.beside, count)?;
    let work = match args.beside {
        Beside::CatchUp => fill(&target, others, args.count, &mut report).await?,
        Beside::LargeWrites => Work::large_writes(others, count),
        Beside::Ingest => Work::ingest(others),
        Beside::FanOut => Work::FanOut { keys: others },
        // Strangers have a run of their own, see above.
        Beside::Identify | Beside::Strangers => Work::Identify { keys: others },
    };
    let load = Load { time: args.time, shared: true, ..Load::new(1, 1, SHAPE) };
    let alone = load::run(&target, &one, &load, Vec::new()).await?;
    report.latency("alone", &alone.run.figures);
    let neighbours = Neighbours::start(target.clone(), work, args.time.warm_up)?;
    let beside = load::run(&target, &one, &load, Vec::new()).await?;
    let theirs = neighbours.stop()?;
    report.measured(&beside);
    report.neighbours(&theirs);
    Ok(report.print(args.target.json))
}

/// The key of the one client, and those of the others: of another store, unless they should write to the same.
fn keys(target: &Target, beside: Beside, count: usize) -> io::Result<(Vec<Key>, Vec<Key>)> {
    let stores = if beside == Beside::Ingest { 1 } else { 2 };
    if stores > 1 && !target.assigns() {
        return Err(io::Error::other("two stores take an admin token, to assign keys to them"));
    }
    let others = match beside {
        Beside::CatchUp | Beside::Identify | Beside::Strangers => count,
        Beside::LargeWrites | Beside::Ingest => INGEST.0,
        Beside::FanOut => count + neighbours::FAN_OUT_WRITERS,
    };
    let mut one = load::fresh_keys(others + 1, 1);
    let mut others = one.split_off(1);
    if stores > 1 {
        others.iter_mut().for_each(|(_, store)| store.push_str("-other"));
    }
    target.assign(&one)?;
    target.assign(&others)?;
    Ok((one, others))
}

/// Fills the store of these keys with what they should read.
async fn fill(
    target: &Target,
    keys: Vec<Key>,
    count: u64,
    report: &mut Report,
) -> io::Result<Work> {
    let shape = EntryShape { batch: INGEST.2, ..SHAPE };
    let load = Load { count: Some(count), ..Load::new(1, INGEST.1, shape) };
    let filled = load::run(target, &keys[..1], &load, Vec::new()).await?;
    report.faults(&filled.run.figures.faults);
    let keys = keys.into_iter().map(|(key, _)| key).collect();
    Ok(Work::CatchUp { keys, last: filled.run.seen[0].max() })
}
