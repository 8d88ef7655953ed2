//! How long things took recently, as counts in buckets: cheap to add to from many threads, and read now and then.
//!
//! Keeps: a result is at most a quarter above what was measured. Leaves out: reading the clock, which the caller does.

use std::array;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Four buckets for each doubling, from one microsecond to some eight minutes.
const BUCKETS: usize = 112;

/// How often each duration was measured since the start.
#[derive(Debug)]
pub(crate) struct Latency([AtomicU64; BUCKETS]);

/// The counts of a [`Latency`] at some moment.
pub(crate) type Counted = [u64; BUCKETS];

impl Default for Latency {
    fn default() -> Self {
        Self(array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Latency {
    pub(crate) fn add(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.0[bucket(micros)].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn counted(&self) -> Counted {
        array::from_fn(|at| self.0[at].load(Ordering::Relaxed))
    }
}

fn bucket(micros: u64) -> usize {
    let micros = micros.max(1);
    if micros < 4 {
        return micros as usize - 1;
    }
    let doublings = micros.ilog2() as usize;
    let quarter = (micros >> (doublings - 2)) as usize & 3;
    (3 + (doublings - 2) * 4 + quarter).min(BUCKETS - 1)
}

/// Durations in the bucket are below this, in microseconds.
fn end(bucket: usize) -> u64 {
    let next = bucket as u64 + 1;
    if next < 3 {
        return next + 1;
    }
    let (doublings, quarter) = ((next - 3) / 4 + 2, (next - 3) % 4);
    (4 + quarter) << (doublings - 2)
}

/// The given percentile, in microseconds, of what was counted between two moments. `None` if nothing was counted.
pub(crate) fn percentile(before: &Counted, now: &Counted, percent: u64) -> Option<u64> {
    let counts = before.iter().zip(now).map(|(before, now)| now.saturating_sub(*before));
    let total: u64 = counts.clone().sum();
    let wanted = (total * percent).div_ceil(100).max(1);
    let mut seen = 0;
    let mut upto = counts.enumerate().map(|(at, count)| {
        seen += count;
        (at, seen)
    });
    let (at, _) = upto.find(|(_, seen)| *seen >= wanted)?;
    Some(end(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_ends_where_the_next_one_begins() {
        for micros in (1..10_000).chain([1 << 20, (1 << 20) - 1, 3_000_000]) {
            let at = bucket(micros);
            assert!(micros < end(at), "{micros}");
            assert!(at == 0 || micros >= end(at - 1), "{micros}");
            assert!(end(at) <= micros + micros / 4 + 1, "{micros}");
        }
        assert_eq!(bucket(0), 0);
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn percentiles_are_of_what_came_in_between() {
        let latency = Latency::default();
        latency.add(Duration::from_secs(1));
        let before = latency.counted();
        assert_eq!(percentile(&before, &before, 50), None);
        for _ in 0..99 {
            latency.add(Duration::from_micros(100));
        }
        latency.add(Duration::from_millis(50));
        let now = latency.counted();
        let median = percentile(&before, &now, 50).expect("there are some");
        assert!((100..=125).contains(&median), "{median}");
        assert_eq!(percentile(&before, &now, 99), Some(median));
        assert!(percentile(&before, &now, 100).expect("one") > 50_000);
    }
}
