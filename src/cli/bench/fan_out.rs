//! The scenario `fan-out`: many subscribers of one store, and a few who write to it.
//!
//! Keeps: every subscriber gets every entry. Delivery time counts from the moment when the write was due to the moment
//! when the subscriber has read the entry; it travels in the payload.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};

use eventlog_server::model::{PublicKey, Sequence};
use serde_json::json;
use tokio::task::{JoinSet, LocalSet};

use super::args::FanOutArgs;
use super::feed::Feeds;
use super::floors::{Doing, Floors};
use super::load::{self, Load, Record, conduct, start_writers};
use super::report::Report;
use super::socket::Socket;
use super::target::Target;
use super::template::EntryShape;
use super::write::{settings, title};
use super::writer::Writing;

/// Less has no room for the time in it.
const PAYLOAD_BYTES_MIN: usize = 8;

/// One connection that reads.
struct Subscriber {
    writing: Rc<Writing>,
    socket: Socket,
    feeds: Feeds,
    /// The last sequence that all its feeds have come to.
    reached: Rc<Cell<u64>>,
}

pub(super) async fn run(args: &FanOutArgs) -> io::Result<bool> {
    let load = Load {
        connections: args.writers.max(1),
        in_flight: args.in_flight.max(1),
        shape: EntryShape {
            batch: args.batch.max(1),
            payload: args.payload.max(PAYLOAD_BYTES_MIN),
        },
        keys: args.writers.max(1),
        stores: 1,
        duration: args.duration,
        warm_up: args.warm_up,
        rate: args.rate,
        ..Load::default()
    };
    let connections =
        args.connections.unwrap_or(args.subscribers).clamp(1, args.subscribers.max(1));
    let on_each = args.subscribers.div_ceil(connections);
    let mut all_settings = settings(&load);
    all_settings["subscribers"] = json!(connections * on_each);
    all_settings["subscriber_connections"] = json!(connections);
    let title = format!(
        "{} subscribers on {connections} connections; writers: {}",
        connections * on_each,
        title(&load)
    );
    let mut report = Report::new("fan-out", all_settings, &title);
    let doing = Doing::Delivering(connections);
    let floors = Floors::of(doing, &args.target, &load, &mut report).await?;
    let target = Target::open(&args.target)?;
    // The first ones are the writers'.
    let keys = load::fresh_keys(load.keys + on_each, 1);
    target.assign(&keys)?;
    let (writer_keys, reader_keys) = keys.split_at(load.keys);
    let reader_keys: Vec<PublicKey> = reader_keys.iter().map(|(key, _)| key.clone()).collect();
    let head = load::head_of(&target, &keys[0], load.shape).await?;
    let first = Sequence::new(head + 1).map_err(io::Error::other)?;

    let writing = Rc::new(Writing::new(1, load.connections));
    let local = LocalSet::new();
    let mut reached = Vec::new();
    let mut subscribers = JoinSet::new();
    for _ in 0..connections {
        let subscriber = Subscriber::open(&target, writing.clone(), &reader_keys, first).await?;
        reached.push(subscriber.reached.clone());
        subscribers.spawn_local_on(subscriber.run(), &local);
    }
    let record = Record::Nothing;
    let writers = start_writers(&target, &writing, writer_keys, &load, record, &local).await?;
    let settle = async |writing: &Writing| all_reached(writing, &reached).await;
    let measured = local.run_until(conduct(&target, &writing, &load, writers, settle)).await?;
    report.measured(&measured);
    floors.compare(&measured, &mut report);
    Ok(report.print(args.target.json))
}

/// Waits until every subscriber has everything that was acknowledged.
async fn all_reached(writing: &Writing, reached: &[Rc<Cell<u64>>]) {
    let head = writing.seen.borrow()[0].max();
    while reached.iter().any(|reached| reached.get() < head) {
        if !writing.figures.faults().is_empty() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

impl Subscriber {
    async fn open(
        target: &Target,
        writing: Rc<Writing>,
        keys: &[PublicKey],
        first: Sequence,
    ) -> io::Result<Self> {
        let mut socket = target.connect(&keys.iter().collect::<Vec<_>>()).await?;
        let feeds = Feeds::subscribe(target.protocol, &mut socket, keys.iter().cloned(), first);
        Ok(Self { writing, socket, feeds, reached: Rc::default() })
    }

    /// Reads for as long as it is polled.
    async fn run(mut self) {
        if let Err(error) = std::future::poll_fn(|cx| self.poll(cx)).await {
            self.writing.figures.fault(format!("a subscriber ended: {error}"));
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let _ = self.socket.poll_write(cx)?;
            if self.socket.poll_read(cx)?.is_pending() {
                return Poll::Pending;
            }
            self.receive()?;
        }
    }

    fn receive(&mut self) -> io::Result<()> {
        let figures = &self.writing.figures;
        let now = figures.nanos();
        while let Some(message) = self.socket.next_message()? {
            // Entries of one batch, which were due at the same time.
            let mut same = Run { due: 0, count: 0 };
            let mut entries = 0;
            self.feeds.take(message, &mut |entry| {
                entries += 1;
                let due = entry.payload.first_chunk().map_or(0, |due| u64::from_be_bytes(*due));
                if due != same.due {
                    same.record(&self.writing, now);
                    same = Run { due, count: 0 };
                }
                same.count += 1;
            })?;
            same.record(&self.writing, now);
            figures.deliveries.count(1, entries);
        }
        self.feeds.acknowledge(&mut self.socket);
        self.reached.set(self.feeds.reached());
        Ok(())
    }
}

struct Run {
    due: u64,
    count: u64,
}

impl Run {
    fn record(&self, writing: &Writing, now: u64) {
        if self.count > 0 && writing.figures.is_measured(self.due) {
            writing.figures.deliveries.record(self.due, now, self.count);
        }
    }
}
