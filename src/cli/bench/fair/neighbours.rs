//! Clients that ask for a lot, on a thread of their own.
//!
//! Keeps: the thread has the lowest possible priority. Leaves out: whom they keep waiting.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use eventlog_server::model::{PublicKey, Sequence};
use tokio::task::{JoinSet, LocalSet};

use super::SHAPE;
use crate::cli::bench::fan_out;
use crate::cli::bench::figures::Figures;
use crate::cli::bench::load::{Key, Load, open_writers};
use crate::cli::bench::subscriber::Subscriber;
use crate::cli::bench::target::Target;
use crate::cli::bench::template::EntryShape;
use crate::cli::bench::write::INGEST;
use crate::cli::bench::writer::Run;

/// How many connections write what is fanned out, how many batches each has in flight, and the number of entries in
/// each batch.
pub(super) const FAN_OUT_WRITERS: usize = 2;
const FAN_OUT_IN_FLIGHT: usize = 4;
const FAN_OUT_BATCH: usize = 10;
/// The payload of a large write, in bytes.
const LARGE_BYTES: usize = 200_000;
/// How often to check whether they should end.
const POLL: Duration = Duration::from_millis(10);
/// The lowest priority, as a nice value.
const LOWEST: i32 = 19;

/// What they do, and with which keys.
pub(super) enum Work {
    /// Each reads the store up to `last`, over and over.
    CatchUp { keys: Vec<PublicKey>, last: u64 },
    /// Writes, as many at a time as the load says.
    Write { keys: Vec<Key>, load: Load },
    /// The first ones write, and the others read that as it comes.
    FanOut { keys: Vec<Key> },
    /// All connect within a second and prove their keys, over and over.
    Identify { keys: Vec<Key> },
}

impl Work {
    /// This many large writes in flight.
    pub(super) fn large_writes(keys: Vec<Key>, count: usize) -> Self {
        let shape = EntryShape { batch: 1, payload: LARGE_BYTES };
        let load = Load::new(keys.len(), count.div_ceil(keys.len()), shape);
        Self::Write { keys, load: Load { shared: true, ..load } }
    }

    /// The scenario `ingest`.
    pub(super) fn ingest(keys: Vec<Key>) -> Self {
        let load = Load::new(INGEST.0, INGEST.1, EntryShape { batch: INGEST.2, ..SHAPE });
        Self::Write { keys, load: Load { shared: true, ..load } }
    }
}

/// They run until they are stopped.
pub(super) struct Neighbours {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<Figures>>,
}

impl Neighbours {
    /// Starts them; what they achieve counts after `warm_up`.
    pub(super) fn start(target: Arc<Target>, work: Work, warm_up: Duration) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let until = stop.clone();
        let thread = std::thread::Builder::new().name("neighbours".to_owned());
        let thread = thread.spawn(move || {
            lowest_priority()?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let local = LocalSet::new();
            runtime.block_on(local.run_until(run(&target, work, warm_up, &until, &local)))
        })?;
        Ok(Self { stop, thread })
    }

    /// Stops them, and returns what they achieved.
    pub(super) fn stop(self) -> io::Result<Figures> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|_| Err(io::Error::other("the neighbours panicked")))
    }
}

/// Makes this thread run only when no other wants to.
pub(super) fn lowest_priority() -> io::Result<()> {
    Ok(rustix::process::setpriority_process(None, LOWEST)?)
}

async fn run(
    target: &Arc<Target>,
    work: Work,
    warm_up: Duration,
    stop: &AtomicBool,
    local: &LocalSet,
) -> io::Result<Figures> {
    let load = match &work {
        Work::Write { load, .. } => *load,
        Work::FanOut { .. } => {
            let shape = EntryShape { batch: FAN_OUT_BATCH, ..SHAPE };
            Load { shared: true, ..Load::new(FAN_OUT_WRITERS, FAN_OUT_IN_FLIGHT, shape) }
        }
        Work::CatchUp { .. } | Work::Identify { .. } => Load::new(1, 1, SHAPE),
    };
    let run = Rc::new(RefCell::new(Run::new(&load, Vec::new())));
    // The writers among them; when this is dropped, they end.
    let _writers = begin(target, work, &load, &run, local).await?;
    tokio::time::sleep(warm_up).await;
    run.borrow_mut().figures.begin();
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep(POLL).await;
    }
    let mut run = run.borrow_mut();
    run.figures.stop();
    Ok(std::mem::take(&mut run.figures))
}

async fn begin(
    target: &Arc<Target>,
    work: Work,
    load: &Load,
    run: &Rc<RefCell<Run>>,
    local: &LocalSet,
) -> io::Result<JoinSet<io::Result<()>>> {
    match work {
        Work::Write { keys, .. } => return open_writers(target, run, &keys, load, local).await,
        Work::FanOut { keys } => {
            let (writers, readers) = keys.split_at(load.connections);
            for (key, _) in readers {
                // The writers have not begun yet.
                let first = Sequence::FIRST;
                let subscriber = Subscriber::open(target, std::slice::from_ref(key), first).await?;
                local.spawn_local(fan_out::read(subscriber, run.clone(), Rc::new(Cell::new(0))));
            }
            return open_writers(target, run, writers, load, local).await;
        }
        Work::CatchUp { keys, last } => {
            for key in keys {
                local.spawn_local(note(
                    run.clone(),
                    catch_up(target.clone(), run.clone(), key, last),
                ));
            }
        }
        Work::Identify { keys } => {
            local.spawn_local(note(run.clone(), identify(target.clone(), run.clone(), keys)));
        }
    }
    Ok(JoinSet::new())
}

/// Runs `work`, which ends only if it fails.
async fn note(run: Rc<RefCell<Run>>, work: impl Future<Output = io::Result<()>>) {
    if let Err(error) = work.await {
        run.borrow_mut().figures.fault(format!("a neighbour ended: {error}"));
    }
}

/// Reads everything up to `last`, over and over.
async fn catch_up(
    target: Arc<Target>,
    run: Rc<RefCell<Run>>,
    key: PublicKey,
    last: u64,
) -> io::Result<()> {
    loop {
        let key = std::slice::from_ref(&key);
        let mut subscriber = Subscriber::open(&target, key, Sequence::FIRST).await?;
        let mut messages = 0;
        while subscriber.reached() < last {
            subscriber.wait().await?;
            let mut count = 0;
            subscriber.take(&mut |_| count += 1)?;
            let figures = &mut run.borrow_mut().figures;
            // How long each entry was on its way means nothing here: none counts as late.
            figures.delivered(0, figures.now(), subscriber.messages - messages, count);
            messages = subscriber.messages;
        }
    }
}

/// Connects with each key in turn, all of them within a second, and proves it; over and over.
async fn identify(target: Arc<Target>, run: Rc<RefCell<Run>>, keys: Vec<Key>) -> io::Result<()> {
    let mut due = tokio::time::interval(Duration::from_secs(1) / keys.len() as u32);
    let mut proving: JoinSet<io::Result<()>> = JoinSet::new();
    let mut keys = keys.iter().map(|(key, _)| key).cycle();
    loop {
        due.tick().await;
        while let Some(proved) = proving.try_join_next() {
            proved.map_err(io::Error::other)??;
        }
        let Some(key) = keys.next().cloned() else { return Ok(()) };
        let (target, run) = (target.clone(), run.clone());
        proving.spawn_local(async move {
            let asked = run.borrow().figures.now();
            let _connection = target.prove(&key).await?;
            let figures = &mut run.borrow_mut().figures;
            figures.acked(asked, figures.now(), 1);
            Ok(())
        });
    }
}
