//! Shows the counters as Prometheus text.
//!
//! Making the text costs more than most requests, and anybody may ask for it. So while strangers wait for their turn,
//! they get the last one again.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix_web::HttpResponse;
use bytes::Bytes;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;
use tokio::time::Instant;

use super::handle::Server;
use crate::actors::quarantine::Aside;
use crate::actors::session::shared::Shared;
use crate::model::{Observed, RemoteId, Sequence};
use crate::services::Auth;
use crate::storage::{Figure, Storage};

/// The media type of the text that is encoded here.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The media type of the older format, for tools that know no other.
const PLAIN_CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How old a text may be that is given again.
const AGE_MAX: Duration = Duration::from_secs(1);

/// A text that was made.
struct Made {
    server: RemoteId,
    is_plain: bool,
    at: Instant,
    text: Bytes,
}

impl Made {
    fn is_for(&self, server: RemoteId, is_plain: bool, now: Instant) -> bool {
        let is_old = now.saturating_duration_since(self.at) >= AGE_MAX;
        (self.server, self.is_plain) == (server, is_plain) && !is_old
    }
}

thread_local! {
    /// The last one of this thread.
    static LAST: RefCell<Option<Made>> = const { RefCell::new(None) };
}

/// As `OpenMetrics`, or in the older format if only that is accepted. With `may_be_old`, it may be as of a second ago.
pub(super) fn show(server: &Server, accept: Option<&str>, may_be_old: bool) -> HttpResponse {
    let is_plain = accept.is_some_and(|accept| {
        accept.contains("text/plain") && !accept.contains("application/openmetrics-text")
    });
    let mut answer = HttpResponse::Ok();
    answer.content_type(if is_plain { PLAIN_CONTENT_TYPE } else { CONTENT_TYPE });
    let id = server.remote_id();
    let last = LAST.with_borrow(|last| {
        let last =
            last.as_ref().filter(|last| may_be_old && last.is_for(id, is_plain, Instant::now()));
        last.map(|last| last.text.clone())
    });
    if let Some(text) = last {
        return answer.body(text);
    }
    match text(server) {
        Ok(text) => {
            let text = Bytes::from(if is_plain { plain(&text) } else { text });
            if may_be_old {
                let (at, text) = (Instant::now(), text.clone());
                LAST.set(Some(Made { server: id, is_plain, at, text }));
            }
            answer.body(text)
        }
        Err(error) => HttpResponse::InternalServerError().body(format!("{error}\n")),
    }
}

fn text(server: &Server) -> Result<String, std::fmt::Error> {
    let mut registry = Registry::with_prefix("eventlog");
    server.inner().shared.metrics.register(&mut registry);
    for (name, help, histogram) in server.inner().shared.metrics.histograms.all() {
        registry.register(name, help, Shown(histogram.observed()));
    }
    register_lag(&server.inner().shared, &mut registry);
    register_streams(server, &mut registry);
    #[cfg(feature = "tls")]
    register_certificates(server, &mut registry);
    register_strangers(&server.inner().shared, &mut registry);
    if let Some(processor) = server.processor() {
        processor.register(&mut registry);
    }
    register_trims(server, &mut registry);
    if let Some(spill) = &server.inner().shared.spill {
        register_spill(&spill.figures(), &mut registry);
    }
    if let Some(aside) = &server.inner().shared.aside {
        register_quarantine(aside, &mut registry);
    }
    register_newcomers(server, &mut registry);
    register_auth(&*server.inner().shared.auth, &mut registry);
    register_storage(&*server.inner().storage, &mut registry);
    let mut text = String::new();
    encode(&mut text, &registry).map(|()| text)
}

fn register_lag(shared: &Shared, registry: &mut Registry) {
    let cursors = shared.connections.slowest_cursors();
    let lags = cursors.iter().map(|(store, cursor)| {
        // Nothing is known for a moment about a store that was just opened again.
        let head = shared.stores.head(store).map_or(0, Sequence::get);
        (head + 1).saturating_sub(*cursor)
    });
    let help = "Entries that the subscription furthest behind was not sent yet";
    registry.register("subscriptions_lag_max", help, ConstGauge::new(lags.max().unwrap_or(0)));
}

fn register_streams(server: &Server, registry: &mut Registry) {
    let (open, help) = (server.inner().open_streams.count(), "Live streams of the admin API");
    registry.register("streams_open", help, ConstGauge::new(open as u64));
}

#[cfg(feature = "tls")]
fn register_certificates(server: &Server, registry: &mut Registry) {
    if let Some(expires) = server.inner().tls.get().and_then(super::tls::Tls::expires) {
        let help = "When the certificate of the port expires, in seconds since 1970";
        registry.register("tls_certificate_expires_seconds", help, ConstGauge::new(expires));
    }
}

/// The same in the older format: there a counter is called what its value is called, and nothing marks the end.
fn plain(text: &str) -> String {
    let counters: HashSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    let mut plain = String::with_capacity(text.len() + 8 * counters.len());
    for line in text.lines().filter(|line| *line != "# EOF") {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some(what), Some(name), rest) if counters.contains(name) => {
                // Writing to a `String` does not fail.
                let _ = write!(plain, "# {what} {name}_total {}", rest.unwrap_or_default());
            }
            _ => plain.push_str(line),
        }
        plain.push('\n');
    }
    plain
}

/// A histogram with its current values.
#[derive(Debug)]
struct Shown(Observed);

impl EncodeMetric for Shown {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Observed { buckets, sum } = &self.0;
        let count = buckets.iter().map(|(_, count)| count).sum();
        encoder.encode_histogram::<NoLabelSet>(*sum, count, buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

fn register_spill(&(reserved, waiting): &(u64, usize), registry: &mut Registry) {
    let sets = "Disk space reserved for large writes that are not stored yet, in bytes";
    for (name, help, value) in [
        ("spill_reserved_bytes", sets, i64::try_from(reserved)),
        ("spill_sets_waiting", "Large writes that wait for disk space", i64::try_from(waiting)),
    ] {
        let gauge: Gauge = Gauge::default();
        gauge.set(value.unwrap_or(i64::MAX));
        registry.register(name, help, gauge);
    }
}

fn register_quarantine(aside: &Aside, registry: &mut Registry) {
    let (entries, bytes) = aside.figures();
    let held = "Entries in quarantine, since they are larger than entry_bytes_max";
    let size = "Bytes of these entries, each counted as at least 64 KiB";
    for (name, help, value) in
        [("quarantine_entries", held, entries as u64), ("quarantine_bytes", size, bytes)]
    {
        registry.register(name, help, ConstGauge::new(value));
    }
    let refused = "Entries for which the quarantine had no space, each time they came";
    registry.register("quarantine_refused", refused, aside.refused.clone());
}

/// The groups that trims wait for: those that run, and others that are waited for.
fn register_trims(server: &Server, registry: &mut Registry) {
    let waiting: Family<[(&'static str, String); 1], Gauge> = Family::default();
    let running = server.processor().map(|processor| processor.group_names());
    let none = running.into_iter().flatten().map(|group| (group, 0));
    for (group, stores) in none.chain(server.inner().trims.waiting()) {
        let gauge = waiting.get_or_create_owned(&[("group", group.to_string())]);
        gauge.set(i64::try_from(stores).unwrap_or(i64::MAX));
    }
    let help = "Stores whose trim waits for this group of handlers";
    registry.register("trims_waiting", help, waiting);
}

/// What strangers caused to be stored.
fn register_newcomers(server: &Server, registry: &mut Registry) {
    let shared = &server.inner().shared;
    let refused = "New ones refused because there were too many";
    registry.register("keys_refused", refused, shared.new_keys.refused.clone());
    registry.register("identities_refused", refused, shared.new_identities.refused.clone());
    let counts = [
        ("keys_used", "Public keys that clients have used", shared.new_keys.count()),
        ("identities_bound", "Public keys with a signing key", shared.new_identities.count()),
    ];
    for (name, help, count) in counts {
        // Nothing is shown until they are counted.
        if let Some(count) = count {
            registry.register(name, help, ConstGauge::new(count as u64));
        }
    }
}

fn register_strangers(shared: &Shared, registry: &mut Registry) {
    let (strangers, pushed_out, refused) = shared.strangers.counts();
    let (admin, admin_pushed_out, admin_refused) = shared.token_holders.counts();
    let gauges = [
        ("connections_strangers", "Connections without an accepted request now", strangers),
        ("connections_admin", "Connections over HTTP that have shown an admin token now", admin),
        ("unfinished_bytes", "Bytes of incomplete messages", shared.budget.level()),
        (
            "unfinished_waiting",
            "Connections that the server does not read from for lack of space",
            shared.budget.waiting(),
        ),
    ];
    let in_flight = shared.write_bytes_in_flight.load(Ordering::Relaxed);
    let held = ("write_bytes_in_flight", "Bytes of writes that are not answered yet", in_flight);
    for (name, help, value) in gauges.into_iter().chain([held]) {
        let gauge: Gauge = Gauge::default();
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        registry.register(name, help, gauge);
    }
    let counters = [
        ("strangers_pushed_out", "Strangers closed to make way for others", pushed_out),
        ("strangers_refused", "Connections refused because of too many strangers", refused),
        (
            "admin_connections_pushed_out",
            "Idle connections with an admin token that were closed to make way for others",
            admin_pushed_out,
        ),
        (
            "admin_connections_refused",
            "Requests with an admin token that were refused because of too many such connections",
            admin_refused,
        ),
    ];
    for (name, help, value) in counters {
        let counter: Counter = Counter::default();
        counter.inc_by(value);
        registry.register(name, help, counter);
    }
}

fn register_auth(auth: &dyn Auth, registry: &mut Registry) {
    let registry = registry.sub_registry_with_prefix("auth");
    for Figure { name, help, value } in auth.figures() {
        registry.register(name, help, ConstCounter::new(value));
    }
}

fn register_storage(storage: &dyn Storage, registry: &mut Registry) {
    let registry = registry.sub_registry_with_prefix("storage");
    if let Some(syncs) = storage.syncs() {
        let help = "From the write of a group to the commit log until it is on disk";
        registry.register("sync_seconds", help, Shown(syncs));
    }
    if let Some(waits) = storage.waits() {
        let help = "How long callers waited for a connection to the database";
        registry.register("pool_wait_seconds", help, Shown(waits));
    }
    let help = "1 while writes are taken";
    let ready = Figure { name: "is_ready", help, value: u64::from(storage.ready().is_ok()) };
    for Figure { name, help, value } in [ready].into_iter().chain(storage.figures()) {
        if let Some(counter) = name.strip_suffix("_total") {
            // The encoder adds it again.
            registry.register(counter, help, ConstCounter::new(value));
            continue;
        }
        let gauge: Gauge = Gauge::default();
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        registry.register(name, help, gauge);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_given_again_for_a_second_and_only_as_what_it_is() {
        let (server, text) = (RemoteId::random(), Bytes::new());
        let at = Instant::now();
        let made = Made { server, is_plain: true, at, text };
        assert!(made.is_for(server, true, at));
        assert!(!made.is_for(server, false, at) && !made.is_for(RemoteId::random(), true, at));
        assert!(!made.is_for(server, true, at + AGE_MAX));
    }
}
