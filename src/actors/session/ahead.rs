//! Reports clients that know more than the server: a sign that its data directory is an older copy.
//!
//! Keeps: at most one line a minute, whatever clients send; a cursor can be forged, so it has no other effect. Leaves
//! out: what an operator does about it (`eventlog-server heal`).

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::actors::metrics::Metrics;
use crate::model::{PublicKey, Sequence, StoreId};

/// At most one line in this time.
const INTERVAL: Duration = Duration::from_secs(60);

/// When the last line was logged, and how many cases came since.
#[derive(Default)]
pub(crate) struct Ahead(Mutex<(Option<Instant>, u64)>);

impl Ahead {
    /// `key` asks for its store from `start` on, but the store ends at `head`. Without a key it is whoever follows the
    /// store through the admin API.
    pub(super) fn look(
        &self,
        (key, store): (Option<&PublicKey>, &StoreId),
        (start, head): (Sequence, Sequence),
        (metrics, now): (&Metrics, Instant),
    ) {
        // A client that has everything asks from after the last sequence, and one that wants to know the head asks from
        // the greatest sequence.
        if start <= head.next() || start == Sequence::MAX {
            return;
        }
        metrics.subscriptions_ahead.inc();
        let mut said = self.0.lock();
        if said.0.is_some_and(|last| now.duration_since(last) < INTERVAL) {
            said.1 += 1;
            return;
        }
        said.0 = Some(now);
        let unsaid = std::mem::take(&mut said.1);
        let why = format!(
            "has store {store:?} up to {}, but here it ends at {head} ({unsaid} more since the last such line). If the data \
             directory was restored, rolled back or copied, new entries get sequences that were given out before, \
             and such clients never get these entries: stop the server and run `eventlog-server heal --data-dir DIR` (or `--database URL`). Otherwise \
             the client is wrong",
            start.prev()
        );
        if let Some(key) = key.map(PublicKey::in_log) {
            log::error!(key:%, store:%, error = "ahead"; "a client with the key {key} {why}");
        } else {
            log::error!(store:%, error = "ahead"; "a client of the admin API {why}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_ahead_is_counted_and_nobody_else() {
        let (ahead, metrics) = (Ahead::default(), Metrics::default());
        #[expect(clippy::disallowed_methods, reason = "some time to begin with")]
        let now = Instant::now();
        let (key, store) =
            (PublicKey::new("k").expect("a key"), StoreId::new("s").expect("a name"));
        let at = |n: u64| Sequence::new(n).expect("a small number");
        let asked = Sequence::MAX.get();
        for (start, head) in [(0, 0), (1, 0), (5, 5), (6, 5), (1, 9), (asked, 5)] {
            ahead.look((Some(&key), &store), (at(start), at(head)), (&metrics, now));
        }
        assert_eq!(metrics.subscriptions_ahead.get(), 0);
        for n in 1..4 {
            ahead.look((Some(&key), &store), (at(7), at(5)), (&metrics, now));
            assert_eq!((metrics.subscriptions_ahead.get(), ahead.0.lock().1), (n, n - 1));
        }
        ahead.look((Some(&key), &store), (at(7), at(5)), (&metrics, now + INTERVAL));
        assert_eq!(ahead.0.lock().1, 0, "the others were said");
    }
}
