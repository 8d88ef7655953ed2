//! Traces of some of the writes.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use uuid::Uuid;

use super::Step;
use crate::model::{Sequence, StoreId};
use crate::storage::StoreLog;

/// A moment, and its nanoseconds since 1970. All times are counted from there, so that they never go backwards.
static BEGAN: LazyLock<(Instant, u64)> = LazyLock::new(|| {
    #[expect(clippy::disallowed_methods, reason = "collectors are told when something was")]
    let (instant, time) = (Instant::now(), SystemTime::now());
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    (instant, u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
});

static SINK: OnceLock<Sink> = OnceLock::new();

/// The destination of finished traces.
pub(crate) struct Sink {
    /// One of this many writes is traced.
    pub(crate) every: u64,
    /// Accepts a trace without waiting.
    pub(crate) put: Box<dyn Fn(Finished) + Send + Sync>,
    pub(crate) count: AtomicU64,
}

/// Traces writes of this process from now on. Only the first call counts. Returns false for all others.
pub(crate) fn send_to(sink: Sink) -> bool {
    LazyLock::force(&BEGAN);
    SINK.set(sink).is_ok()
}

/// When something began, in nanoseconds since 1970. 0 while nothing is traced.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Moment(u64);

impl Moment {
    pub(crate) fn now() -> Self {
        Self(if SINK.get().is_some() { now() } else { 0 })
    }
}

#[expect(clippy::disallowed_methods, reason = "traces say how long something took")]
fn now() -> u64 {
    nanos(Instant::now())
}

fn nanos(at: Instant) -> u64 {
    let (began, nanos) = *BEGAN;
    nanos.saturating_add(at.saturating_duration_since(began).as_nanos() as u64)
}

/// The trace of a write, if it is traced. It ends when the last clone is dropped.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trace(Option<Arc<Under>>);

/// A trace in progress. Times are in nanoseconds since 1970, and 0 before they are known.
struct Under {
    received: u64,
    steps: [AtomicU64; 5],
    synced: [AtomicU64; 2],
    about: OnceLock<(StoreId, (usize, usize))>,
}

impl fmt::Debug for Under {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Under").field("received", &self.received).finish_non_exhaustive()
    }
}

/// A finished trace. Times are in nanoseconds since 1970.
#[derive(Clone, Debug)]
pub(crate) struct Finished {
    pub(crate) id: Uuid,
    pub(crate) received: u64,
    pub(crate) ended: u64,
    /// When each step was reached, in their order. 0 if it was not reached.
    pub(crate) steps: [u64; 5],
    /// When its sync began and ended. 0 if that is not known.
    pub(crate) synced: [u64; 2],
    /// The store, and the number of written entries and bytes, if the write came that far.
    pub(crate) about: Option<(StoreId, (usize, usize))>,
}

impl Trace {
    /// Starts the trace of a write whose message arrived at this time. Most writes get none.
    pub(crate) fn begin(Moment(received): Moment) -> Self {
        let Some(sink) = SINK.get().filter(|_| received > 0) else { return Self(None) };
        if !sink.count.fetch_add(1, Relaxed).is_multiple_of(sink.every) {
            return Self(None);
        }
        let (steps, synced) = Default::default();
        Self(Some(Arc::new(Under { received, steps, synced, about: OnceLock::new() })))
    }

    pub(crate) const fn is_traced(&self) -> bool {
        self.0.is_some()
    }

    /// It goes to this store, with this many entries and bytes.
    pub(crate) fn about(&self, store: &StoreId, size: (usize, usize)) {
        if let Some(under) = &self.0 {
            // A write goes to one store.
            let _ = under.about.set((store.clone(), size));
        }
    }

    pub(crate) fn reached(&self, step: Step) {
        if let Some(under) = &self.0 {
            under.steps[step as usize].store(now(), Relaxed);
        }
    }
}

/// The writes with these traces are durable, up to this entry of the log.
pub(crate) fn committed(traces: &[Trace], log: &dyn StoreLog, last: Option<Sequence>) {
    if traces.is_empty() {
        return;
    }
    let synced = last.and_then(|last| log.synced(last));
    for trace in traces {
        trace.reached(Step::Committed);
        if let (Some(under), Some((began, ended))) = (&trace.0, synced) {
            under.synced[0].store(nanos(began), Relaxed);
            under.synced[1].store(nanos(ended), Relaxed);
        }
    }
}

impl Drop for Under {
    fn drop(&mut self) {
        let Some(sink) = SINK.get() else { return };
        (sink.put)(Finished {
            id: Uuid::new_v4(),
            received: self.received,
            ended: now(),
            steps: self.steps.each_ref().map(|at| at.load(Relaxed)),
            synced: self.synced.each_ref().map(|at| at.load(Relaxed)),
            about: self.about.take(),
        });
    }
}
