//! The last hour in rows of two seconds, kept in memory: 150 KB in all.
//!
//! Keeps: it samples only counters that exist anyway, whether or not anybody looks.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use actix::ArbiterHandle;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::actors::latency::{Counted, percentile};
use crate::actors::metrics::Metrics;
use crate::server::handle::{Inner, Server};

const INTERVAL: Duration = Duration::from_secs(2);

/// An hour.
const ROWS_MAX: usize = 1_800;

/// The numbers of a row, in order: the time in milliseconds since 1970, rates a second, how long acknowledgements took
/// in microseconds, and counts of what exists.
pub(super) const FIELDS: [&str; 12] = [
    "unixMillis",
    "entries",
    "bytes",
    "writes",
    "sent",
    "ackP50Micros",
    "ackP99Micros",
    "connections",
    "subscriptions",
    "storesOpen",
    "strangers",
    "diskFreeBytes",
];

/// A sample.
#[derive(Clone, Debug)]
pub(super) struct Row {
    unix_millis: u64,
    /// Entries, bytes, acknowledged writes, entries sent, each a second.
    rates: [f64; 4],
    acks: [Option<u64>; 2],
    /// Connections, subscriptions, open stores, strangers.
    levels: [i64; 4],
    disk_free: Option<u64>,
    troubles: Troubles,
}

impl Row {
    /// In the order of [`FIELDS`].
    pub(super) fn values(&self) -> Value {
        let rates = self.rates.map(|rate| (rate * 10.0).round() / 10.0);
        let Self { unix_millis: at, acks: [p50, p99], levels: l, disk_free, .. } = self;
        let [entries, bytes, writes, sent] = rates;
        json!([at, entries, bytes, writes, sent, p50, p99, l[0], l[1], l[2], l[3], disk_free])
    }
}

/// What went wrong since the start, or in between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Troubles {
    pub(super) appends_failed: u64,
    pub(super) connections_stalled: u64,
    pub(super) connections_refused: u64,
    pub(super) requests_refused: u64,
    pub(super) admin_tokens_refused: u64,
}

impl Troubles {
    fn read(metrics: &Metrics) -> Self {
        Self {
            appends_failed: metrics.appends_failed.get(),
            connections_stalled: metrics.connections_stalled.get(),
            connections_refused: metrics.connections_refused.get(),
            requests_refused: metrics.requests_refused.get(),
            admin_tokens_refused: metrics.admin_tokens_refused.get(),
        }
    }

    const fn since(self, before: Self) -> Self {
        Self {
            appends_failed: self.appends_failed - before.appends_failed,
            connections_stalled: self.connections_stalled - before.connections_stalled,
            connections_refused: self.connections_refused - before.connections_refused,
            requests_refused: self.requests_refused - before.requests_refused,
            admin_tokens_refused: self.admin_tokens_refused - before.admin_tokens_refused,
        }
    }
}

/// The rows of the last hour.
pub(in crate::server) struct History {
    rows: Mutex<VecDeque<Row>>,
    news: watch::Sender<()>,
}

impl Default for History {
    fn default() -> Self {
        Self { rows: Mutex::default(), news: watch::Sender::new(()) }
    }
}

impl History {
    fn push(&self, row: Row) {
        let mut rows = self.rows.lock();
        if rows.len() >= ROWS_MAX {
            rows.pop_front();
        }
        rows.push_back(row);
        drop(rows);
        self.news.send_replace(());
    }

    pub(super) fn rows(&self) -> VecDeque<Row> {
        self.rows.lock().clone()
    }

    pub(super) fn last(&self) -> Option<Row> {
        self.rows.lock().back().cloned()
    }

    /// Changes with each row.
    pub(super) fn news(&self) -> watch::Receiver<()> {
        self.news.subscribe()
    }

    /// What went wrong in this hour.
    pub(super) fn troubles(&self) -> Troubles {
        let rows = self.rows.lock();
        match (rows.front(), rows.back()) {
            // The first row of a server includes what went wrong since its start.
            (Some(_), Some(last)) if rows.len() < ROWS_MAX => last.troubles,
            (Some(first), Some(last)) => last.troubles.since(first.troubles),
            _ => Troubles::default(),
        }
    }
}

/// Samples until the server is gone.
pub(in crate::server) fn start(server: &Server, thread: &ArbiterHandle) {
    let server = Arc::downgrade(server.shared_inner());
    // Only a thread that has stopped refuses this.
    thread.spawn(sample(server));
}

async fn sample(server: Weak<Inner>) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before: Option<Counts> = None;
    loop {
        ticks.tick().await;
        let Some(server) = server.upgrade() else { return };
        let now = Counts::read(&server);
        if let Some(before) = &before {
            server.looking.history.push(row(&server, before, &now));
        }
        before = Some(now);
    }
}

/// The counters at some moment.
struct Counts {
    at: Instant,
    totals: [u64; 4],
    acks: Counted,
}

impl Counts {
    fn read(server: &Inner) -> Self {
        let metrics = &server.shared.metrics;
        let counters = [
            &metrics.entries_committed,
            &metrics.bytes_committed,
            &metrics.writes_acked,
            &metrics.entries_sent,
        ];
        let totals = counters.map(prometheus_client::metrics::counter::Counter::get);
        Self { at: Instant::now(), totals, acks: metrics.acks.counted() }
    }

    /// The increase a second.
    fn rates(&self, before: &Self) -> [f64; 4] {
        let seconds = self.at.duration_since(before.at).as_secs_f64().max(0.001);
        std::array::from_fn(|at| (self.totals[at] - before.totals[at]) as f64 / seconds)
    }
}

fn row(server: &Inner, before: &Counts, now: &Counts) -> Row {
    let metrics = &server.shared.metrics;
    #[expect(clippy::disallowed_methods, reason = "charts have the time of day")]
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let figures = server.storage.figures();
    let disk_free = figures.iter().find(|figure| figure.name == "disk_free_bytes");
    Row {
        unix_millis: time.as_millis() as u64,
        rates: now.rates(before),
        acks: [50, 99].map(|percent| percentile(&before.acks, &now.acks, percent)),
        levels: [
            metrics.connections_open.get(),
            metrics.subscriptions_open.get(),
            metrics.stores_open.get(),
            server.shared.strangers.counts().0 as i64,
        ],
        disk_free: disk_free.map(|figure| figure.value),
        troubles: Troubles::read(metrics),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(number: u64) -> Row {
        let troubles = Troubles { appends_failed: number, ..Troubles::default() };
        Row {
            unix_millis: number,
            rates: [1.26; 4],
            acks: [None, Some(7)],
            levels: [1, 2, 3, 4],
            disk_free: None,
            troubles,
        }
    }

    #[test]
    fn an_hour_is_kept_and_what_went_wrong_in_it() {
        let history = History::default();
        assert_eq!(history.troubles(), Troubles::default());
        history.push(row(3));
        assert_eq!(history.troubles().appends_failed, 3);
        for number in 4..ROWS_MAX as u64 + 10 {
            history.push(row(number));
        }
        assert_eq!(history.rows().len(), ROWS_MAX);
        assert_eq!(history.troubles().appends_failed, ROWS_MAX as u64 - 1);
        assert_eq!(history.last().map(|row| row.unix_millis), Some(ROWS_MAX as u64 + 9));
    }

    #[test]
    fn a_row_has_a_number_for_each_field() {
        let values = row(9).values();
        assert_eq!(values.as_array().map(Vec::len), Some(FIELDS.len()));
        assert_eq!(values, json!([9, 1.3, 1.3, 1.3, 1.3, null, 7, 1, 2, 3, 4, null]));
    }
}
