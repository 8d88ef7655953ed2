//! What is counted while the server runs. `server` shows it as Prometheus text.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::latency::Latency;
use crate::model::histogram::Histogram;
use crate::protocol::msgpack::ErrorCode;

/// Counters since the start, and current gauges.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) histograms: Histograms,
    pub(crate) writes_acked: Counter,
    pub(crate) entries_committed: Counter,
    pub(crate) bytes_committed: Counter,
    pub(crate) entries_duplicate: Counter,
    pub(crate) entries_sent: Counter,
    pub(crate) group_commits: Counter,
    pub(crate) appends_failed: Counter,
    pub(crate) requests_refused: Counter,
    pub(crate) refused_with: Family<CodeLabel, Counter>,
    pub(crate) bytes_received: Counter,
    pub(crate) bytes_sent: Counter,
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
    /// From the end of a write's checks until its session has the answer.
    pub(crate) acks: Latency,
    pub(crate) quota_refused: Family<QuotaLabels, Counter>,
    pub(crate) quota_held: Family<QuotaLabels, Counter>,
}

/// How long things take, and how much is done together.
#[derive(Debug)]
pub(crate) struct Histograms {
    pub(crate) ack_seconds: Histogram,
    pub(crate) commit_seconds: Histogram,
    pub(crate) delivery_seconds: Histogram,
    pub(crate) group_entries: Histogram,
    pub(crate) group_writes: Histogram,
}

impl Default for Histograms {
    fn default() -> Self {
        Self {
            ack_seconds: Histogram::of_times(),
            commit_seconds: Histogram::of_times(),
            delivery_seconds: Histogram::of_times(),
            group_entries: Histogram::of_counts(),
            group_writes: Histogram::of_counts(),
        }
    }
}

/// The code of a refusal, and its protocol.
type CodeLabel = [(&'static str, &'static str); 2];

/// Whose quota, and of what: only a few combinations, however many clients there are.
type QuotaLabels = [(&'static str, &'static str); 2];

impl Histograms {
    /// Each histogram with its name and description.
    pub(crate) const fn all(&self) -> [(&'static str, &'static str, &Histogram); 5] {
        [
            ("ack_seconds", "From a write at its store to its answer", &self.ack_seconds),
            (
                "commit_seconds",
                "From a group at the storage until it is durable",
                &self.commit_seconds,
            ),
            (
                "delivery_seconds",
                "From durable until sent to a subscription, of entries still in memory",
                &self.delivery_seconds,
            ),
            ("group_entries", "Entries committed together", &self.group_entries),
            ("group_writes", "Writes answered together", &self.group_writes),
        ]
    }
}

impl Metrics {
    /// Registers every metric in `registry`.
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
            ("bytes_received", "Bytes that clients sent over WebSockets", &self.bytes_received),
            ("bytes_sent", "Bytes of messages to clients", &self.bytes_sent),
            (
                "subscriptions_ahead",
                "Subscriptions from beyond the last sequence of their store",
                &self.subscriptions_ahead,
            ),
            ("connections_accepted", "WebSockets opened", &self.connections_accepted),
            ("connections_refused", "WebSockets refused", &self.connections_refused),
            (
                "connections_broken",
                "WebSockets closed for what their client sent",
                &self.connections_broken,
            ),
            (
                "connections_stalled",
                "Connections ended because their client did not read",
                &self.connections_stalled,
            ),
            (
                "connections_slow",
                "Connections closed because what they had begun came too slowly",
                &self.connections_slow,
            ),
            (
                "connections_flooding",
                "WebSockets closed for messages without effect",
                &self.connections_flooding,
            ),
            ("admin_tokens_refused", "Wrong admin tokens", &self.admin_tokens_refused),
            (
                "tls_handshakes_failed",
                "Connections whose TLS handshake failed",
                &self.tls_handshakes_failed,
            ),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        // Those that have not been counted yet are shown as 0.
        let rpc = [
            "Unauthorized",
            "Forbidden",
            "NotFound",
            "InvalidRequest",
            "InternalServerError",
            "Die",
        ];
        let msgpack = ErrorCode::ALL.map(|code| ("msgpack", code.as_str()));
        for (protocol, code) in rpc.map(|code| ("rpc", code)).into_iter().chain(msgpack) {
            drop(self.refused_with.get_or_create(&[("protocol", protocol), ("code", code)]));
        }
        let help = "Requests answered with an error, by its code";
        registry.register("refusals", help, self.refused_with.clone());
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

    /// A group was answered: the number of its writes, of committed entries and their bytes, and of all slots.
    pub(crate) fn committed(&self, writes: usize, entries: usize, bytes: usize, slots: usize) {
        self.writes_acked.inc_by(writes as u64);
        self.entries_committed.inc_by(entries as u64);
        self.bytes_committed.inc_by(bytes as u64);
        self.entries_duplicate.inc_by(slots.saturating_sub(entries) as u64);
        self.group_commits.inc_by(u64::from(entries > 0));
        self.histograms.group_writes.observe(writes as u64);
        if entries > 0 {
            self.histograms.group_entries.observe(entries as u64);
        }
    }
}
