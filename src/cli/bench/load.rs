//! A load of writes: who writes what, and the phases of the writers.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use eventlog_server::model::{EntryId, PublicKey};
use serde_json::{Value, json};
use tokio::task::{JoinError, JoinSet, LocalSet};

use super::args::{IdTimes, LoadArgs, TimeArgs};
use super::process::Usages;
use super::progress::Progress;
use super::target::Target;
use super::template::EntryShape;
use super::writer::{Run, Sent, Writer};

/// Answers that do not come within this time after the end are given up.
const DRAIN_PATIENCE: Duration = Duration::from_secs(30);

/// A load with every number chosen.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Load {
    pub(super) connections: usize,
    pub(super) in_flight: usize,
    pub(super) shape: EntryShape,
    pub(super) keys: usize,
    pub(super) stores: usize,
    pub(super) time: TimeArgs,
    pub(super) ids: IdTimes,
    /// The number of entries, instead of a duration; then there is no warm-up.
    pub(super) count: Option<u64>,
    pub(super) round: Round,
    /// The server echoes what it gets.
    pub(super) echo: bool,
    /// Others write to its stores as well.
    pub(super) shared: bool,
}

/// Whether everything is sent a second time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Round {
    #[default]
    Only,
    /// What is sent is kept for the second round.
    First,
    /// What was kept is sent instead of new entries.
    Second,
}

impl Load {
    /// This many connections, each with a key of its own, that write to one store.
    pub(super) fn new(connections: usize, in_flight: usize, shape: EntryShape) -> Self {
        let connections = connections.max(1);
        let in_flight = in_flight.max(1);
        Self { connections, in_flight, shape, keys: connections, stores: 1, ..Self::default() }
    }

    /// What `args` leave open comes from `defaults`: connections, in flight, batch.
    pub(super) fn of(args: &LoadArgs, defaults: (usize, usize, usize)) -> Self {
        let connections = args.connections.unwrap_or(defaults.0).max(1);
        let in_flight = args.in_flight.unwrap_or(defaults.1);
        let stores = args.stores.max(1);
        Self {
            keys: args.keys.unwrap_or(0).max(connections).max(stores),
            stores,
            time: args.time,
            ids: args.ids,
            count: args.count,
            ..Self::new(connections, in_flight, args.entries.shape(defaults.2))
        }
    }

    /// How many batches connection `number` writes; unlimited unless the load has a count.
    pub(super) fn batches(&self, number: usize) -> u64 {
        let Some(count) = self.count else { return u64::MAX };
        let all = count.div_ceil(self.shape.batch as u64);
        let (share, rest) = (all / self.connections as u64, all % self.connections as u64);
        share + u64::from((number as u64) < rest)
    }

    /// The time that a connection has for a batch, in nanoseconds, if the load has a rate.
    pub(super) fn nanos_each(&self) -> Option<f64> {
        Some(1e9 * self.connections as f64 / self.time.rate?)
    }

    pub(super) fn settings(&self) -> Value {
        json!({
            "connections": self.connections,
            "in_flight": self.in_flight,
            "batch": self.shape.batch,
            "payload_bytes": self.shape.payload,
            "keys": self.keys,
            "stores": self.stores,
            "ids": self.ids.name(),
            "batches_per_second": self.time.rate,
            "entries": self.count,
        })
    }

    pub(super) fn title(&self) -> String {
        let Self { connections, in_flight, stores, shape: EntryShape { batch, payload }, .. } =
            self;
        let rate = self.time.rate.map_or_else(String::new, |rate| format!(", {rate} batches/s"));
        let ids = match self.ids {
            IdTimes::Now => String::new(),
            times => format!(", ids: {}", times.name()),
        };
        format!(
            "{connections} connections, {in_flight} in flight, {batch} x {payload} bytes a batch, \
             {stores} stores{rate}{ids}"
        )
    }
}

/// A key and the name of its store.
pub(super) type Key = (PublicKey, String);

/// Fresh keys, all of one length, distributed over fresh stores. They never collide with those of another run.
pub(super) fn fresh_keys(keys: usize, stores: usize) -> Vec<Key> {
    let run = EntryId::now().to_string();
    let run = &run[run.len() - 8..];
    let keys = (0..keys).map(|number| {
        let store = format!("bench-{run}-{:05}", number % stores);
        PublicKey::new(format!("bench-{run}-{number:07}")).ok().map(|key| (key, store))
    });
    keys.flatten().collect()
}

/// The last sequence of the store of `key`: the store may already have entries if keys were not assigned. Writes an
/// entry to find out.
pub(super) async fn head_of(target: &Target, key: &Key, shape: EntryShape) -> io::Result<u64> {
    if target.assigns() {
        return Ok(0);
    }
    let load = Load { count: Some(1), ..Load::new(1, 1, EntryShape { batch: 1, ..shape }) };
    let measured = run(target, std::slice::from_ref(key), &load, Vec::new()).await?;
    Ok(measured.run.seen[0].max())
}

/// The result of a run.
pub(super) struct Measured {
    pub(super) run: Run,
    pub(super) before: Usages,
    pub(super) after: Usages,
}

impl Measured {
    /// Acknowledged entries per second.
    pub(super) fn entries_per_second(&self) -> f64 {
        let figures = &self.run.figures;
        figures.acks.entries as f64 / figures.elapsed().as_secs_f64()
    }
}

/// Runs `load` alone. In its second round, `sent` is what was sent in the first one.
pub(super) async fn run(
    target: &Target,
    keys: &[Key],
    load: &Load,
    sent: Vec<Vec<Sent>>,
) -> io::Result<Measured> {
    let run = Rc::new(RefCell::new(Run::new(load, sent)));
    let local = LocalSet::new();
    let writers = open_writers(target, &run, keys, load, &local).await?;
    local.run_until(conduct(target, &run, load, writers, async || ())).await
}

/// Opens the connections that write `load`; they begin once `local` is polled. Key `n` belongs to store `n` modulo the
/// number of stores, and connection `n` modulo the number of connections writes with it.
pub(super) async fn open_writers(
    target: &Target,
    run: &Rc<RefCell<Run>>,
    keys: &[Key],
    load: &Load,
    local: &LocalSet,
) -> io::Result<JoinSet<io::Result<()>>> {
    let mut writers = JoinSet::new();
    for number in 0..load.connections {
        let writer = Writer::open(target, run.clone(), keys, *load, number).await?;
        writers.spawn_local_on(writer.write(), local);
    }
    Ok(writers)
}

/// Leads writers through the phases of a run, and returns the result. At its end waits for `settle`: for what follows
/// from the writes.
pub(super) async fn conduct(
    target: &Target,
    run: &RefCell<Run>,
    load: &Load,
    mut writers: JoinSet<io::Result<()>>,
    settle: impl AsyncFnOnce(),
) -> io::Result<Measured> {
    if load.count.is_none() && !load.time.warm_up.is_zero() {
        Progress::say("warming up");
        tokio::time::sleep(load.time.warm_up).await;
    }
    let before = target.usages();
    run.borrow_mut().figures.begin();
    let duration = Some(load.time.duration).filter(|_| load.count.is_none());
    let mut progress = Progress::lasting(duration);
    let deadline = tokio::time::Instant::now() + load.time.duration;
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    ticks.tick().await;
    loop {
        tokio::select! {
            biased;
            () = tokio::time::sleep_until(deadline), if load.count.is_none() => break,
            _ = ticks.tick() => progress.show(&run.borrow().figures),
            ended = writers.join_next() => match ended {
                Some(ended) => flatten(ended)?,
                None => break,
            },
        }
    }
    run.borrow_mut().figures.stop();
    let after = target.usages();
    Progress::say("");
    let drained = tokio::time::timeout(DRAIN_PATIENCE, async {
        while let Some(ended) = writers.join_next().await {
            flatten(ended)?;
        }
        settle().await;
        io::Result::Ok(())
    });
    match drained.await {
        Ok(drained) => drained?,
        Err(_) => run.borrow_mut().figures.fault("something never came"),
    }
    let mut run = run.take();
    // What others were answered is not known here.
    let own = if load.shared { &[][..] } else { &run.seen[..] };
    for seen in own {
        let missing = seen.missing(target.assigns());
        if missing > 0 {
            run.figures.fault(format!("{missing} sequences of a store were never acknowledged"));
        }
    }
    Ok(Measured { run, before, after })
}

fn flatten(joined: Result<io::Result<()>, JoinError>) -> io::Result<()> {
    joined.unwrap_or_else(|error| Err(io::Error::other(error)))
}
