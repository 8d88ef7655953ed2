//! Something that is said once in so long, however often it happens: strangers must not fill the disk with lines.
//!
//! Keeps: what goes unsaid is counted, and the next line can tell.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// A line of the log that comes once in so long at most.
#[derive(Debug)]
pub(crate) struct Seldom {
    interval: Duration,
    since: Mutex<Since>,
}

#[derive(Debug, Default)]
struct Since {
    line: Option<Instant>,
    unsaid: u64,
}

impl Seldom {
    pub(crate) const fn every(interval: Duration) -> Self {
        Self { interval, since: Mutex::new(Since { line: None, unsaid: 0 }) }
    }

    /// How many have gone unsaid, if there may be a line `now`; else this one is counted for the next.
    pub(crate) fn next_line(&self, now: Instant) -> Option<u64> {
        let mut since = self.since.lock();
        if since.line.is_some_and(|last| now.saturating_duration_since(last) < self.interval) {
            since.unsaid += 1;
            return None;
        }
        since.line = Some(now);
        Some(std::mem::take(&mut since.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_are_one_line_and_all_are_counted() {
        #[expect(clippy::disallowed_methods, reason = "some time to begin with")]
        let start = Instant::now();
        let interval = Duration::from_secs(1);
        let seldom = Seldom::every(interval);
        assert_eq!(seldom.next_line(start), Some(0));
        for millis in [0, 1, 999] {
            assert_eq!(seldom.next_line(start + Duration::from_millis(millis)), None);
        }
        assert_eq!(seldom.next_line(start + interval), Some(3));
        assert_eq!(seldom.next_line(start + 3 * interval), Some(0));
    }
}
