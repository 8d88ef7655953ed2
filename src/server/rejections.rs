//! Says in the log who was not let in: one line for many, since a client that is refused is back within a second.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::services::{Caller, Rejected};

/// At most one line in so long.
const INTERVAL: Duration = Duration::from_secs(1);

/// The handshakes that were refused since the last line.
#[derive(Default)]
pub(super) struct Rejections(Mutex<Since>);

#[derive(Default)]
struct Since {
    line: Option<Instant>,
    unsaid: u64,
}

impl Rejections {
    /// Says that `caller` was not let in, or counts it for the next line.
    pub(super) fn log(&self, caller: &Caller, rejected: &Rejected) {
        log::debug!("{caller:?} is not let in: {rejected}");
        #[expect(
            clippy::disallowed_methods,
            reason = "strangers must not fill the disk with lines"
        )]
        let Some(unsaid) = self.0.lock().next_line(Instant::now()) else { return };
        let address = caller.address().map_or_else(|| "?".to_owned(), |at| at.to_string());
        let path = caller.path();
        log::info!("{address} is not let in at {path:?}: {rejected} ({unsaid} others before it)");
    }
}

impl Since {
    /// How many have gone unsaid, if there may be a line now.
    fn next_line(&mut self, now: Instant) -> Option<u64> {
        if self.line.is_some_and(|last| now.duration_since(last) < INTERVAL) {
            self.unsaid += 1;
            return None;
        }
        self.line = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_refusals_are_one_line_and_all_are_counted() {
        #[expect(clippy::disallowed_methods, reason = "some time to begin with")]
        let start = Instant::now();
        let mut since = Since::default();
        assert_eq!(since.next_line(start), Some(0));
        for millis in [0, 1, 999] {
            assert_eq!(since.next_line(start + Duration::from_millis(millis)), None);
        }
        assert_eq!(since.next_line(start + INTERVAL), Some(3));
        assert_eq!(since.next_line(start + 3 * INTERVAL), Some(0));
    }
}
