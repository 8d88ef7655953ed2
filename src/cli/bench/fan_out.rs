//! The scenario `fan-out`: many subscribers of one store, and a few writers.
//!
//! Keeps: every subscriber gets every entry. Delivery time is measured from the moment when the write was due to the
//! moment when the subscriber has read the entry; the first moment is in the payload.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use eventlog_server::model::{PublicKey, Sequence};
use serde_json::json;
use tokio::task::LocalSet;

use super::args::{FanOutArgs, TargetArgs};
use super::floors::{Doing, Floors};
use super::load::{self, Load, conduct, open_writers};
use super::report::Report;
use super::subscriber::Subscriber;
use super::target::Target;
use super::template::EntryShape;
use super::writer::Run;

const BATCH: usize = 10;
/// A smaller payload has no space for the time in it.
const PAYLOAD_BYTES_MIN: usize = 8;

pub(super) async fn run(args: &FanOutArgs) -> io::Result<bool> {
    let shape = args.entries.shape(BATCH);
    let shape = EntryShape { payload: shape.payload.max(PAYLOAD_BYTES_MIN), ..shape };
    let load = Load { time: args.time, ..Load::new(args.writers, args.in_flight, shape) };
    let connections =
        args.connections.unwrap_or(args.subscribers).clamp(1, args.subscribers.max(1));
    let on_each = args.subscribers.div_ceil(connections);
    let mut settings = load.settings();
    settings["subscribers"] = json!(connections * on_each);
    settings["subscriber_connections"] = json!(connections);
    let title = format!(
        "{} subscribers on {connections} connections; writers: {}",
        connections * on_each,
        load.title()
    );
    let mut report = Report::new("fan-out", settings, &title);
    // Each connection of an echo server sends a frame and waits for it.
    let echoed = Load::new(connections, 1, shape);
    let floors = Floors::of(Doing::Delivering, &args.target, &echoed, &mut report).await?;
    let target = Target::open(&args.target)?;
    let elsewhere = args
        .subscribers_url
        .clone()
        .map(|url| Target::open(&TargetArgs { url: Some(url), ..args.target.clone() }));
    let elsewhere = elsewhere.transpose()?;
    // The first ones belong to the writers.
    let keys = load::fresh_keys(load.keys + on_each, 1);
    target.assign(&keys)?;
    let (writer_keys, reader_keys) = keys.split_at(load.keys);
    let reader_keys: Vec<PublicKey> = reader_keys.iter().map(|(key, _)| key.clone()).collect();
    let head = load::head_of(&target, &keys[0], load.shape).await?;
    let first = Sequence::new(head + 1).map_err(io::Error::other)?;

    let run = Rc::new(RefCell::new(Run::new(&load, Vec::new())));
    let local = LocalSet::new();
    let mut reached = Vec::new();
    for _ in 0..connections {
        let read_at = elsewhere.as_ref().unwrap_or(&target);
        let subscriber = Subscriber::open(read_at, &reader_keys, first).await?;
        let reaches = Rc::new(Cell::new(0));
        reached.push(reaches.clone());
        local.spawn_local(read(subscriber, run.clone(), reaches));
    }
    let writers = open_writers(&target, &run, writer_keys, &load, &local).await?;
    let settle = async || all_reached(&run, &reached).await;
    let measured = local.run_until(conduct(&target, &run, &load, writers, settle)).await?;
    report.measured(&measured);
    floors.compare(&measured, &mut report);
    Ok(report.print(args.target.json))
}

/// Waits until every subscriber has everything that was acknowledged.
async fn all_reached(run: &RefCell<Run>, reached: &[Rc<Cell<u64>>]) {
    let head = run.borrow().seen[0].max();
    while reached.iter().any(|reached| reached.get() < head) {
        if !run.borrow().figures.faults.is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Reads for as long as it is polled. `reached` is the last sequence that all feeds have reached.
pub(super) async fn read(
    mut subscriber: Subscriber,
    run: Rc<RefCell<Run>>,
    reached: Rc<Cell<u64>>,
) {
    let error = loop {
        if let Err(error) = subscriber.wait().await {
            break error;
        }
        if let Err(error) = take(&mut subscriber, &run) {
            break error;
        }
        reached.set(subscriber.reached());
    };
    run.borrow_mut().figures.fault(format!("a subscriber ended: {error}"));
}

fn take(subscriber: &mut Subscriber, run: &RefCell<Run>) -> io::Result<()> {
    let figures = &mut run.borrow_mut().figures;
    let (now, messages_before) = (figures.now(), subscriber.messages);
    // Entries of one batch were due at the same time.
    let (mut same_due, mut count) = (0, 0);
    let taken = subscriber.take(&mut |entry| {
        let due = entry.payload.first_chunk().map_or(0, |due| u64::from_be_bytes(*due));
        if due != same_due {
            figures.delivered(same_due, now, 0, std::mem::take(&mut count));
            same_due = due;
        }
        count += 1;
    });
    figures.delivered(same_due, now, subscriber.messages - messages_before, count);
    taken
}
