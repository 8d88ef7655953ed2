//! What the processing counts, and how `/metrics` shows it.
//!
//! Keeps: no label names a store or an event, so that the output does not grow with its users. Leaves out: the route
//! (`server`).

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::processor::Processor;

/// What has been counted since the server started. Every processed entry counts once, in one of the first six.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct ProcessingStats {
    /// A handler succeeded.
    pub handled: AtomicU64,
    /// A handler returned an error.
    pub failed: AtomicU64,
    /// A handler panicked.
    pub panicked: AtomicU64,
    /// The payload could not be decoded.
    pub undecodable: AtomicU64,
    /// No handler takes the event.
    pub unhandled: AtomicU64,
    /// Written with the option not to run handlers.
    pub skipped: AtomicU64,
    /// A handler asked for a retry.
    pub retried: AtomicU64,
    /// A replay paused because the journal or the feed failed.
    pub pauses: AtomicU64,
}

impl ProcessingStats {
    fn outcomes(&self) -> [(&'static str, &AtomicU64); 6] {
        [
            ("handled", &self.handled),
            ("failed", &self.failed),
            ("panicked", &self.panicked),
            ("undecodable", &self.undecodable),
            ("unhandled", &self.unhandled),
            ("skipped", &self.skipped),
        ]
    }
}

/// How far the replays are behind their feeds.
#[derive(Default)]
struct Lag {
    /// The stores with something left to do.
    stores: u64,
    /// Entries left, of all stores.
    total: u64,
    /// Entries left, of the store that is furthest behind.
    max: u64,
}

impl Processor {
    /// Registers in `registry` what is counted now.
    pub(crate) fn register(&self, registry: &mut Registry) {
        let processed = Family::<[(&str, &str); 1], Counter>::default();
        for (outcome, count) in self.stats.outcomes() {
            processed.get_or_create(&[("outcome", outcome)]).inc_by(count.load(Relaxed));
        }
        registry.register("entries_processed", "Entries that replays passed", processed);
        let pauses = ConstCounter::new(self.stats.pauses.load(Relaxed));
        registry.register("replay_pauses", "Pauses after a failed journal or feed", pauses);
        let retries = ConstCounter::new(self.stats.retried.load(Relaxed));
        registry.register("handler_retries", "Times that a handler asked for a retry", retries);
        let letters = self.groups.iter().map(|group| group.letters.load(Relaxed) as u64).sum();
        registry.register("dead_letters", "Dead letters", ConstGauge::<u64>::new(letters));
        let lag = self.lag();
        let gauges = [
            ("replay_stores_behind", "Stores with entries left to process", lag.stores),
            ("replay_lag", "Entries left to process and journal", lag.total),
            ("replay_lag_max", "Entries left, of the store furthest behind", lag.max),
        ];
        for (name, help, value) in gauges {
            registry.register(name, help, ConstGauge::new(value));
        }
    }

    fn lag(&self) -> Lag {
        let stores = self.stores.lock();
        let lags = stores.values().map(|progress| progress.left(None));
        lags.fold(Lag::default(), |sum, lag| Lag {
            stores: sum.stores + u64::from(lag > 0),
            total: sum.total.saturating_add(lag),
            max: sum.max.max(lag),
        })
    }
}
