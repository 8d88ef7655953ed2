//! How often something took how long, or how large it was. Counts without a lock, because every write is counted.
//!
//! Keeps: each observation is in exactly one bucket. Leaves out: how it is shown (`server::metrics`).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Bounds of times, in microseconds: from a memory access to longer than anyone waits.
const MICROS: &[u64] = &[
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000,
];
/// Bounds of counts.
const COUNTS: &[u64] =
    &[1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 50_000, 100_000];

/// Counts of what was observed.
#[derive(Debug)]
pub(crate) struct Histogram {
    bounds: &'static [u64],
    /// How many counted units make one shown unit.
    unit: f64,
    /// One more than there are bounds: the last one counts everything above the highest bound.
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

/// What a histogram has observed so far.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// The upper bound of each bucket, ascending, and the count in it. The last bound is infinite.
    pub buckets: Vec<(f64, u64)>,
    /// The sum of all values.
    pub sum: f64,
}

impl Histogram {
    fn new(bounds: &'static [u64], unit: f64) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, unit, counts, sum: AtomicU64::new(0) }
    }

    /// A histogram of times, shown in seconds.
    pub(crate) fn of_times() -> Self {
        Self::new(MICROS, 1e6)
    }

    /// A histogram of numbers.
    pub(crate) fn of_counts() -> Self {
        Self::new(COUNTS, 1.0)
    }

    /// Records how long something took.
    pub(crate) fn took(&self, time: Duration) {
        self.observe(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    /// Records how large something was.
    pub(crate) fn observe(&self, value: u64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.counts.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// All counts, at roughly this moment.
    pub(crate) fn observed(&self) -> Observed {
        let bounds = self.bounds.iter().map(|bound| *bound as f64 / self.unit);
        let bounds = bounds.chain([f64::INFINITY]);
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed));
        let sum = self.sum.load(Ordering::Relaxed) as f64 / self.unit;
        Observed { buckets: bounds.zip(counts).collect(), sum }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_is_in_the_first_bucket_that_holds_it() {
        let times = Histogram::of_times();
        for micros in [0, 100, 101, 10_000_000, 10_000_001] {
            times.took(Duration::from_micros(micros));
        }
        let Observed { buckets, sum } = times.observed();
        assert_eq!(buckets[0], (0.0001, 2));
        assert_eq!(buckets[1], (0.00025, 1));
        assert_eq!(buckets[15], (10.0, 1));
        assert_eq!(buckets[16], (f64::INFINITY, 1));
        assert!((sum - 20.000_202).abs() < 1e-9, "{sum}");
        let counts = Histogram::of_counts();
        counts.observe(3);
        assert_eq!(counts.observed().buckets[2], (5.0, 1));
    }
}
