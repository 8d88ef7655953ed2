//! What is counted while the server runs. `server` shows it as Prometheus text.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::latency::Latency;

/// Counters since the start, and gauges of the moment.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) writes_acked: Counter,
    pub(crate) entries_committed: Counter,
    pub(crate) bytes_committed: Counter,
    pub(crate) entries_duplicate: Counter,
    pub(crate) entries_sent: Counter,
    pub(crate) group_commits: Counter,
    pub(crate) appends_failed: Counter,
    pub(crate) requests_refused: Counter,
    pub(crate) subscriptions_ahead: Counter,
    pub(crate) stores_open: Gauge,
    pub(crate) subscriptions_open: Gauge,
    pub(crate) connections_open: Gauge,
    pub(crate) connections_accepted: Counter,
    pub(crate) connections_refused: Counter,
    pub(crate) connections_broken: Counter,
    pub(crate) connections_stalled: Counter,
    pub(crate) connections_slow: Counter,
    pub(crate) connections_flooding: Counter,
    pub(crate) admin_tokens_refused: Counter,
    pub(crate) tls_handshakes_failed: Counter,
    /// From the moment in which a write was checked until its session has the answer.
    pub(crate) acks: Latency,
    pub(crate) quota_refused: Family<QuotaLabels, Counter>,
    pub(crate) quota_held: Family<QuotaLabels, Counter>,
}

/// Whose quota, and of what: few, however many clients there are.
type QuotaLabels = [(&'static str, &'static str); 2];

impl Metrics {
    /// Names every metric in `registry`.
    pub(crate) fn register(&self, registry: &mut Registry) {
        let counters = [
            ("writes_acked", "Batches acknowledged", &self.writes_acked),
            ("entries_committed", "Entries committed", &self.entries_committed),
            ("bytes_committed", "Bytes of entries committed", &self.bytes_committed),
            ("entries_duplicate", "Slots answered as duplicates", &self.entries_duplicate),
            ("entries_sent", "Entries sent to subscriptions", &self.entries_sent),
            ("group_commits", "Appends that became durable", &self.group_commits),
            ("appends_failed", "Appends that failed", &self.appends_failed),
            ("requests_refused", "Requests answered with an error", &self.requests_refused),
            (
                "subscriptions_ahead",
                "Subscriptions from beyond what their store ever had",
                &self.subscriptions_ahead,
            ),
            ("connections_accepted", "WebSockets opened", &self.connections_accepted),
            ("connections_refused", "WebSockets refused", &self.connections_refused),
            ("connections_broken", "WebSockets closed for what was sent", &self.connections_broken),
            ("connections_stalled", "WebSockets severed as stalled", &self.connections_stalled),
            (
                "connections_slow",
                "WebSockets closed in the middle of a message",
                &self.connections_slow,
            ),
            (
                "connections_flooding",
                "WebSockets closed for messages that lead to nothing",
                &self.connections_flooding,
            ),
            ("admin_tokens_refused", "Wrong admin tokens", &self.admin_tokens_refused),
            (
                "tls_handshakes_failed",
                "Connections that came to no TLS",
                &self.tls_handshakes_failed,
            ),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        let quotas = [
            ("quota_refused", "Requests refused for a quota", &self.quota_refused),
            ("quota_held", "Writes held back for a quota", &self.quota_held),
        ];
        for (name, help, family) in quotas {
            registry.register(name, help, family.clone());
        }
        let gauges = [
            ("stores_open", "Stores open now", &self.stores_open),
            ("subscriptions_open", "Subscriptions open now", &self.subscriptions_open),
            ("connections_open", "WebSockets open now", &self.connections_open),
        ];
        for (name, help, gauge) in gauges {
            registry.register(name, help, gauge.clone());
        }
    }

    /// A group was answered: so many writes, entries committed with so many bytes, and slots in all.
    pub(crate) fn committed(&self, writes: usize, entries: usize, bytes: usize, slots: usize) {
        self.writes_acked.inc_by(writes as u64);
        self.entries_committed.inc_by(entries as u64);
        self.bytes_committed.inc_by(bytes as u64);
        self.entries_duplicate.inc_by(slots.saturating_sub(entries) as u64);
        self.group_commits.inc_by(u64::from(entries > 0));
    }
}
