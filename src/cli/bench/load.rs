//! A load of writes: who writes what, and the phases that writers are led through.

use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use eventlog_server::model::{EntryId, PublicKey};
use hdrhistogram::Histogram;
use tokio::task::{JoinError, JoinSet, LocalSet};

use super::args::LoadArgs;
use super::figures::{Counts, Figures, Phase};
use super::process::Usage;
use super::progress::Progress;
use super::seen::Seen;
use super::target::Target;
use super::template::{EntryShape, Template};
use super::writer::{Pace, Sent, Writer, WriterOptions, Writing};

/// Answers that do not come within this time after the end are given up.
const DRAIN_PATIENCE: Duration = Duration::from_secs(30);

/// A load with every number chosen.
#[derive(Clone, Debug, Default)]
pub(super) struct Load {
    pub(super) connections: usize,
    pub(super) in_flight: usize,
    pub(super) shape: EntryShape,
    pub(super) keys: usize,
    pub(super) stores: usize,
    pub(super) duration: Duration,
    /// In entries.
    pub(super) count: Option<u64>,
    pub(super) warm_up: Duration,
    /// In batches per second.
    pub(super) rate: Option<f64>,
    pub(super) echo: bool,
}

impl Load {
    /// What `args` leave open is taken from `defaults`: connections, in flight, batch.
    pub(super) fn new(args: &LoadArgs, defaults: (usize, usize, usize)) -> Self {
        let connections = args.connections.unwrap_or(defaults.0).max(1);
        let batch = args.batch.unwrap_or(defaults.2).max(1);
        let stores = args.stores.max(1);
        Self {
            connections,
            in_flight: args.in_flight.unwrap_or(defaults.1).max(1),
            shape: EntryShape { batch, payload: args.payload },
            keys: args.keys.unwrap_or(0).max(connections).max(stores),
            stores,
            duration: args.duration,
            count: args.count,
            warm_up: if args.count.is_some() { Duration::ZERO } else { args.warm_up },
            rate: args.rate,
            echo: false,
        }
    }

    /// How many batches connection `number` writes, if the load has an end.
    fn batches(&self, number: usize) -> Option<u64> {
        let all = self.count?.div_ceil(self.shape.batch as u64);
        let (share, rest) = (all / self.connections as u64, all % self.connections as u64);
        Some(share + u64::from((number as u64) < rest))
    }

    fn pace(&self, figures: &Figures, number: usize) -> Pace {
        let Some(rate) = self.rate else { return Pace::Closed };
        let every = 1e9 * self.connections as f64 / rate;
        // Spread, so that not all of them send at once.
        let first = every * number as f64 / self.connections as f64;
        #[expect(clippy::cast_sign_loss, reason = "a rate is positive")]
        Pace::Open { first: figures.nanos() + first as u64, every }
    }
}

/// A key and the name of its store.
pub(super) type Key = (PublicKey, String);

/// Fresh keys, all of one length, dealt out over fresh stores. No run meets those of another.
pub(super) fn fresh_keys(keys: usize, stores: usize) -> Vec<Key> {
    let run = EntryId::now().to_string();
    let run = &run[run.len() - 8..];
    let keys = (0..keys).map(|number| {
        let store = format!("bench-{run}-{:05}", number % stores);
        PublicKey::new(format!("bench-{run}-{number:07}")).ok().map(|key| (key, store))
    });
    keys.flatten().collect()
}

/// The last sequence of the store of `key`: it may have entries already if keys were not assigned. Writes an entry to
/// find out.
pub(super) async fn head_of(target: &Target, key: &Key, shape: EntryShape) -> io::Result<u64> {
    if target.assigns() {
        return Ok(0);
    }
    let shape = EntryShape { batch: 1, ..shape };
    let (connections, in_flight, stores, count) = (1, 1, 1, Some(1));
    let load = Load { connections, in_flight, shape, stores, count, ..Load::default() };
    let keys = std::slice::from_ref(key);
    let (writing, _) = run(target, keys, &load, Record::Nothing).await?;
    let seen = writing.seen.borrow();
    Ok(seen[0].max())
}

/// What is done with the writes beside sending them.
pub(super) enum Record {
    Nothing,
    /// They are kept, to be sent again.
    Keep,
    /// These are sent, by connection, instead of new ones.
    Again(Vec<Vec<Sent>>),
}

/// Opens the connections that write `load`; they begin once `local` is polled. Key `n` belongs to store `n` modulo the
/// number of stores, and is written with by connection `n` modulo the number of connections.
pub(super) async fn start_writers(
    target: &Target,
    writing: &Rc<Writing>,
    keys: &[Key],
    load: &Load,
    record: Record,
    local: &LocalSet,
) -> io::Result<JoinSet<io::Result<()>>> {
    let records = matches!(record, Record::Keep);
    let mut again = match record {
        Record::Again(sent) => sent.into_iter(),
        Record::Nothing | Record::Keep => Vec::new().into_iter(),
    };
    let mut writers = JoinSet::new();
    for number in 0..load.connections {
        let own = keys.iter().enumerate().skip(number % keys.len()).step_by(load.connections);
        let own: Vec<_> = own.map(|(at, (key, _))| (key.clone(), at % load.stores)).collect();
        let proved: Vec<&PublicKey> = own.iter().map(|(key, _)| key).collect();
        let socket = target.connect(&proved).await?;
        let template = Template::new(target.protocol, &own[0].0, load.shape);
        let options = WriterOptions {
            number,
            keys: own,
            in_flight: load.in_flight,
            pace: load.pace(&writing.figures, number),
            batches: load.batches(number),
            records,
            again: again.next(),
            echo: load.echo,
        };
        let writer = Writer::new(writing.clone(), socket, template, options);
        writers.spawn_local_on(writer.run(), local);
    }
    Ok(writers)
}

/// What a run came to.
pub(super) struct Measured {
    pub(super) elapsed: Duration,
    pub(super) acks: Stretch,
    pub(super) deliveries: Stretch,
    /// Batches that were due and never sent.
    pub(super) unsent: u64,
    pub(super) faults: BTreeMap<String, u64>,
    /// The server before and after.
    pub(super) server: Option<(Usage, Usage)>,
    /// This process before and after.
    pub(super) generator: Option<(Usage, Usage)>,
}

impl Measured {
    /// Acknowledged entries per second.
    pub(super) fn entries_per_second(&self) -> f64 {
        self.acks.counts.entries as f64 / self.elapsed.as_secs_f64()
    }
}

/// What was counted while it was measured.
pub(super) struct Stretch {
    pub(super) counts: Counts,
    /// In nanoseconds.
    pub(super) latency: Histogram<u64>,
}

/// Runs `load` alone.
pub(super) async fn run(
    target: &Target,
    keys: &[Key],
    load: &Load,
    record: Record,
) -> io::Result<(Rc<Writing>, Measured)> {
    let writing = Rc::new(Writing::new(load.stores, load.connections));
    let local = LocalSet::new();
    let writers = start_writers(target, &writing, keys, load, record, &local).await?;
    let measured = local.run_until(conduct(target, &writing, load, writers, async |_| ())).await?;
    Ok((writing, measured))
}

/// Leads writers through the phases of a run. At its end `settle` is given the figures, to wait for what follows from the
/// writes.
pub(super) async fn conduct(
    target: &Target,
    writing: &Writing,
    load: &Load,
    mut writers: JoinSet<io::Result<()>>,
    settle: impl AsyncFnOnce(&Writing),
) -> io::Result<Measured> {
    let figures = &writing.figures;
    if !load.warm_up.is_zero() {
        Progress::say("warming up");
        tokio::time::sleep(load.warm_up).await;
    }
    let (started, before) = (Instant::now(), target.usage());
    figures.begin(Phase::Measure);
    let mut progress = Progress::default();
    let deadline = tokio::time::Instant::now() + load.duration;
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    ticks.tick().await;
    loop {
        tokio::select! {
            biased;
            () = tokio::time::sleep_until(deadline), if load.count.is_none() => break,
            _ = ticks.tick() => progress.show(figures),
            ended = writers.join_next() => match ended {
                Some(ended) => flatten(ended)?,
                None => break,
            },
        }
    }
    let (elapsed, after) = (started.elapsed(), target.usage());
    let (acks, deliveries) = (figures.acks.counts(), figures.deliveries.counts());
    figures.begin(Phase::Stop);
    Progress::say("");
    let drained = tokio::time::timeout(DRAIN_PATIENCE, async {
        while let Some(ended) = writers.join_next().await {
            flatten(ended)?;
        }
        settle(writing).await;
        io::Result::Ok(())
    });
    match drained.await {
        Ok(drained) => drained?,
        Err(_) => figures.fault("something never came"),
    }
    let missing = |seen: &Seen| seen.missing(target.assigns());
    for missing in writing.seen.borrow().iter().map(missing).filter(|count| *count > 0) {
        figures.fault(format!("{missing} sequences of a store were never acknowledged"));
    }
    Ok(Measured {
        elapsed,
        acks: Stretch { counts: acks, latency: figures.acks.latency() },
        deliveries: Stretch { counts: deliveries, latency: figures.deliveries.latency() },
        unsent: figures.unsent_count(),
        faults: figures.faults(),
        server: before.0.zip(after.0),
        generator: before.1.zip(after.1),
    })
}

fn flatten(joined: Result<io::Result<()>, JoinError>) -> io::Result<()> {
    joined.unwrap_or_else(|error| Err(io::Error::other(error)))
}
