//! What is counted while a scenario runs, shared by everything on the generator's thread.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// Longer latencies count as this long.
const LATENCY_NANOS_MAX: u64 = 600_000_000_000;

/// The counts of one run. Times are nanoseconds since it began.
pub(super) struct Figures {
    started: Instant,
    /// The measured period; both ends are far away until they are reached.
    measured: Range<u64>,
    /// Batches that were due in the measured period and were not sent.
    pub(super) unsent: u64,
    /// Writes that were acknowledged in the measured period.
    pub(super) acks: Tally,
    /// Entries that reached a subscriber in the measured period.
    pub(super) deliveries: Tally,
    /// What went wrong, and how often.
    pub(super) faults: BTreeMap<String, u64>,
}

/// How many of one kind are done, and how many nanoseconds they took.
#[derive(Clone)]
pub(super) struct Tally {
    pub(super) messages: u64,
    pub(super) entries: u64,
    pub(super) latency: Histogram<u64>,
}

impl Default for Figures {
    fn default() -> Self {
        let tally = Tally { messages: 0, entries: 0, latency: histogram() };
        Self {
            started: Instant::now(),
            measured: u64::MAX..u64::MAX,
            unsent: 0,
            acks: tally.clone(),
            deliveries: tally,
            faults: BTreeMap::new(),
        }
    }
}

impl Figures {
    /// The current time.
    pub(super) fn now(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    /// The time `nanos` as a time of the clock.
    pub(super) fn instant(&self, nanos: u64) -> Instant {
        self.started + Duration::from_nanos(nanos)
    }

    /// Measuring begins.
    pub(super) fn begin(&mut self) {
        self.measured.start = self.now();
    }

    /// Measuring has ended; nothing new is sent.
    pub(super) fn stop(&mut self) {
        self.measured.end = self.now();
    }

    pub(super) const fn has_stopped(&self) -> bool {
        self.measured.end < u64::MAX
    }

    /// How long the measured period is.
    pub(super) const fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.measured.end - self.measured.start)
    }

    /// A write that was due at `due` is acknowledged at `now`. Its latency counts even if that is after the end: slow
    /// writes must not be left out.
    pub(super) fn acked(&mut self, due: u64, now: u64, entries: u64) {
        if self.measured.contains(&now) {
            self.acks.messages += 1;
            self.acks.entries += entries;
        }
        if self.measured.contains(&due) {
            self.acks.record(due, now, 1);
        }
    }

    /// This many messages that came at `now` deliver this many entries that were due at `due`.
    pub(super) fn delivered(&mut self, due: u64, now: u64, messages: u64, entries: u64) {
        if self.measured.contains(&now) {
            self.deliveries.messages += messages;
            self.deliveries.entries += entries;
        }
        if self.measured.contains(&due) {
            self.deliveries.record(due, now, entries);
        }
    }

    /// Counts a batch that was due at `due` and never sent, as if it were answered now. `false` if it was due only
    /// after the end.
    pub(super) fn unsent(&mut self, due: u64) -> bool {
        if self.measured.contains(&due) {
            self.unsent += 1;
            self.acks.record(due, self.now(), 1);
        }
        due < self.measured.end
    }

    pub(super) fn fault(&mut self, what: impl Into<String>) {
        *self.faults.entry(what.into()).or_default() += 1;
    }
}

impl Tally {
    /// `count` of them took from `due` to `now`.
    fn record(&mut self, due: u64, now: u64, count: u64) {
        self.latency.saturating_record_n(now.saturating_sub(due), count);
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
        let mut figures = Figures::default();
        let before = figures.now();
        std::thread::sleep(Duration::from_micros(1));
        figures.begin();
        let due = figures.now();
        figures.stop();
        let after = figures.now() + 1;
        figures.acked(due, after + 5_000_000, 1);
        assert!(figures.unsent(before) && figures.unsent(due));
        assert!(!figures.unsent(after));
        figures.acked(after, after, 1);
        assert_eq!((figures.acks.latency.len(), figures.unsent), (2, 1));
        assert!(figures.acks.latency.max() >= 5_000_000);
        // It was not done in the measured period, though.
        assert_eq!((figures.acks.messages, figures.acks.entries), (0, 0));
    }
}
