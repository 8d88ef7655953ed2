//! What is counted while a scenario runs, shared by everything on the generator's thread.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// Longer latencies count as this long.
const LATENCY_NANOS_MAX: u64 = 600_000_000_000;

/// Where a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    WarmUp,
    Measure,
    /// Nothing new is sent.
    Stop,
}

/// The counts of one run.
pub(super) struct Figures {
    started: Instant,
    phase: Cell<Phase>,
    /// Between these moments it is measured.
    measured: Cell<(u64, u64)>,
    /// Batches that were due while it was measured and were not sent.
    unsent: Cell<u64>,
    /// Writes that were acknowledged since it is measured.
    pub(super) acks: Tally,
    /// Entries that reached a subscriber since then.
    pub(super) deliveries: Tally,
    faults: RefCell<BTreeMap<String, u64>>,
}

/// How many of one kind are done, and how long they took.
pub(super) struct Tally {
    messages: Cell<u64>,
    entries: Cell<u64>,
    latency: RefCell<Histogram<u64>>,
}

/// Messages and entries so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) messages: u64,
    pub(super) entries: u64,
}

impl Figures {
    pub(super) fn new() -> Self {
        Self {
            started: Instant::now(),
            phase: Cell::new(Phase::WarmUp),
            measured: Cell::new((u64::MAX, u64::MAX)),
            unsent: Cell::new(0),
            acks: Tally::new(),
            deliveries: Tally::new(),
            faults: RefCell::default(),
        }
    }

    /// Nanoseconds since the run began.
    pub(super) fn nanos(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    /// The moment `nanos` after the run began.
    pub(super) fn moment(&self, nanos: u64) -> Instant {
        self.started + Duration::from_nanos(nanos)
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase.get()
    }

    pub(super) fn begin(&self, phase: Phase) {
        self.phase.set(phase);
        let (since, _) = self.measured.get();
        match phase {
            Phase::WarmUp => {}
            Phase::Measure => {
                self.measured.set((self.nanos(), u64::MAX));
                self.acks.count_afresh();
                self.deliveries.count_afresh();
            }
            Phase::Stop => self.measured.set((since, self.nanos())),
        }
    }

    /// Whether what was due at `due` belongs to what is measured. So it does if it is done after the end: what takes
    /// long must not be left out for that.
    pub(super) fn is_measured(&self, due: u64) -> bool {
        let (since, until) = self.measured.get();
        (since..until).contains(&due)
    }

    /// Takes in that a batch that was due at `due` was never sent: it counts as if it were answered now. `false` if it
    /// was due after the end only.
    pub(super) fn unsent(&self, due: u64) -> bool {
        if self.is_measured(due) {
            self.unsent.set(self.unsent.get() + 1);
            self.acks.record(due, self.nanos(), 1);
        }
        due < self.measured.get().1
    }

    /// How many batches were due while it was measured and were never sent.
    pub(super) fn unsent_count(&self) -> u64 {
        self.unsent.get()
    }

    /// A write that was due at `due` is acknowledged at `now`.
    pub(super) fn acked(&self, due: u64, now: u64, entries: u64) {
        self.acks.count(1, entries);
        if self.is_measured(due) {
            self.acks.record(due, now, 1);
        }
    }

    /// Something went wrong, or is not what it has to be.
    pub(super) fn fault(&self, what: impl Into<String>) {
        *self.faults.borrow_mut().entry(what.into()).or_default() += 1;
    }

    /// What went wrong, and how often.
    pub(super) fn faults(&self) -> BTreeMap<String, u64> {
        self.faults.borrow().clone()
    }
}

impl Tally {
    fn new() -> Self {
        Self { messages: Cell::new(0), entries: Cell::new(0), latency: RefCell::new(histogram()) }
    }

    pub(super) fn count(&self, messages: u64, entries: u64) {
        self.messages.set(self.messages.get() + messages);
        self.entries.set(self.entries.get() + entries);
    }

    fn count_afresh(&self) {
        self.messages.set(0);
        self.entries.set(0);
    }

    /// `count` took from `due` to `now`.
    pub(super) fn record(&self, due: u64, now: u64, count: u64) {
        self.latency.borrow_mut().saturating_record_n(now.saturating_sub(due), count);
    }

    pub(super) const fn counts(&self) -> Counts {
        Counts { messages: self.messages.get(), entries: self.entries.get() }
    }

    pub(super) fn latency(&self) -> Histogram<u64> {
        self.latency.borrow().clone()
    }
}

/// An empty histogram of nanoseconds.
pub(super) fn histogram() -> Histogram<u64> {
    let histogram = Histogram::new_with_bounds(1_000, LATENCY_NANOS_MAX, 3);
    histogram.unwrap_or_else(|_| unreachable!("constant bounds that fit"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_late_or_never_sent_still_counts() {
        let figures = Figures::new();
        let before = figures.nanos();
        std::thread::sleep(Duration::from_micros(1));
        figures.begin(Phase::Measure);
        let due = figures.nanos();
        figures.begin(Phase::Stop);
        let after = figures.nanos() + 1;
        figures.acked(due, after + 5_000_000, 1);
        assert!(figures.unsent(before) && figures.unsent(due));
        assert!(!figures.unsent(after));
        figures.acked(after, after, 1);
        assert_eq!((figures.acks.latency().len(), figures.unsent_count()), (2, 1));
        assert!(figures.acks.latency().max() >= 5_000_000);
    }
}
