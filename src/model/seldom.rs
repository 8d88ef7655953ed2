//! Logs a line at most once in a period, however often its cause occurs: strangers must not fill the disk with log
//! lines.
//!
//! Keeps: suppressed lines are counted, and the next line can say how many there were.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// A log line that appears at most once in a period.
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

    /// How many lines were suppressed, if a line may appear `now`; otherwise counts this one for the next.
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
