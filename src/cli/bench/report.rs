//! What a run is told as: a table for people, JSON for machines.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use super::load::{Measured, Stretch};
use super::process::{self, Usage};

/// Named figures, in the order in which they were added.
pub(super) struct Report {
    title: String,
    lines: Vec<(String, String)>,
    json: Map<String, Value>,
    faults: BTreeMap<String, u64>,
}

impl Report {
    /// Begins with what was done, and on which machine.
    pub(super) fn new(scenario: &str, settings: Value, title: &str) -> Self {
        let mut report = Self {
            title: format!("{scenario}: {title}"),
            lines: Vec::new(),
            json: Map::new(),
            faults: BTreeMap::new(),
        };
        report.json.insert("scenario".to_owned(), scenario.into());
        report.json.insert("settings".to_owned(), settings);
        let machine = process::machine();
        report.json.insert("unix_seconds".to_owned(), (process::unix_millis() / 1_000).into());
        report.add("machine", "machine", machine.clone(), machine);
        report
    }

    /// A figure: `key` for machines, `label` and `text` for people.
    pub(super) fn add(&mut self, key: &str, label: &str, value: impl Into<Value>, text: String) {
        self.json.insert(key.to_owned(), value.into());
        self.lines.push((label.to_owned(), text));
    }

    /// A rate per second.
    pub(super) fn rate(&mut self, key: &str, label: &str, per_second: f64) {
        self.add(key, label, per_second.round(), format!("{}/s", grouped(per_second)));
    }

    /// A part of a whole.
    pub(super) fn share(&mut self, key: &str, label: &str, share: f64) {
        self.add(key, label, share, format!("{:.1}%", 100.0 * share));
    }

    /// Throughput, latency, CPU and memory.
    pub(super) fn measured(&mut self, measured: &Measured) {
        let elapsed = measured.elapsed;
        self.add("seconds", "measured", elapsed.as_secs_f64(), human(elapsed));
        self.stretch("acknowledged", &measured.acks, elapsed);
        if measured.deliveries.counts.entries > 0 {
            self.stretch("delivered", &measured.deliveries, elapsed);
        }
        let entries = measured.acks.counts.entries.max(measured.deliveries.counts.entries);
        self.usage("server", measured.server, elapsed, entries);
        self.usage("generator", measured.generator, elapsed, entries);
        if measured.unsent > 0 {
            let text = format!("{} batches that were due", grouped(measured.unsent as f64));
            self.add("unsent", "never sent", measured.unsent, text);
        }
        self.faults(&measured.faults);
    }

    fn stretch(&mut self, what: &str, stretch: &Stretch, elapsed: Duration) {
        let per_second = |count: u64| count as f64 / elapsed.as_secs_f64();
        let (messages, entries) =
            (per_second(stretch.counts.messages), per_second(stretch.counts.entries));
        let value = json!({
            "messages_per_second": messages.round(),
            "entries_per_second": entries.round(),
            "latency": latency_json(&stretch.latency),
        });
        let text = format!("{} entries/s, {} messages/s", grouped(entries), grouped(messages));
        self.add(what, what, value, text);
        self.lines.push((format!("{what} after"), latency_text(&stretch.latency)));
    }

    /// CPU time and memory of a process over some time, in which it handled so many entries.
    pub(super) fn usage(
        &mut self,
        who: &str,
        usage: Option<(Usage, Usage)>,
        elapsed: Duration,
        entries: u64,
    ) {
        let Some((before, after)) = usage else { return };
        let cpu = after.cpu.saturating_sub(before.cpu).as_secs_f64();
        let cores = cpu / elapsed.as_secs_f64();
        let nanos_per_entry = 1e9 * cpu / entries.max(1) as f64;
        let value = json!({
            "cores": cores,
            "cpu_nanos_per_entry": nanos_per_entry,
            "resident_bytes": after.resident_bytes,
            "resident_bytes_max": after.resident_bytes_max,
        });
        let text = format!(
            "{cores:.2} cores, {} ns of CPU an entry, {} resident, {} at most",
            grouped(nanos_per_entry),
            mebibytes(after.resident_bytes),
            mebibytes(after.resident_bytes_max),
        );
        self.add(who, who, value, text);
    }

    /// Adds to what went wrong.
    pub(super) fn faults(&mut self, faults: &BTreeMap<String, u64>) {
        for (what, count) in faults {
            *self.faults.entry(what.clone()).or_default() += count;
        }
    }

    /// Adds one thing that went wrong.
    pub(super) fn fault(&mut self, what: &str) {
        self.faults(&BTreeMap::from([(what.to_owned(), 1)]));
    }

    /// Prints it all; `true` if nothing went wrong.
    pub(super) fn print(mut self, as_json: bool) -> bool {
        let sound = self.faults.is_empty();
        if as_json {
            self.json.insert("faults".to_owned(), json!(self.faults));
            println!("{}", Value::Object(self.json));
            return sound;
        }
        println!("{}", self.title);
        let width = self.lines.iter().map(|(label, _)| label.chars().count()).max().unwrap_or(0);
        for (label, text) in &self.lines {
            println!("  {label:width$}  {text}");
        }
        for (what, count) in &self.faults {
            println!("  FAULT, {count} times: {what}");
        }
        if sound {
            println!("  {:width$}  none", "errors");
        }
        sound
    }
}

const QUANTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

fn latency_json(latency: &Histogram<u64>) -> Value {
    let seconds = QUANTILES.map(|(name, quantile)| {
        (name.to_owned(), quantile_of(latency, quantile).as_secs_f64().into())
    });
    Value::Object(seconds.into_iter().collect())
}

fn latency_text(latency: &Histogram<u64>) -> String {
    let texts = QUANTILES.map(|(name, q)| format!("{name} {}", human(quantile_of(latency, q))));
    texts.join("  ")
}

/// The latency that the fraction `quantile` does not exceed.
pub(super) fn quantile_of(latency: &Histogram<u64>, quantile: f64) -> Duration {
    Duration::from_nanos(latency.value_at_quantile(quantile))
}

/// `1234567.8` as `1,234,568`.
pub(super) fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A duration with three significant digits.
pub(super) fn human(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    let (value, unit) = match seconds {
        s if s >= 1.0 => (s, "s"),
        s if s >= 1e-3 => (s * 1e3, "ms"),
        s => (s * 1e6, "µs"),
    };
    let decimals = match value {
        v if v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        _ => 2,
    };
    format!("{value:.decimals$} {unit}")
}

/// Bytes as MiB.
pub(super) fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_readable() {
        assert_eq!(grouped(1_234_567.8), "1,234,568");
        assert_eq!(grouped(999.0), "999");
        assert_eq!(human(Duration::from_micros(1_234)), "1.23 ms");
        assert_eq!(human(Duration::from_secs(123)), "123 s");
        assert_eq!(human(Duration::from_nanos(45_600)), "45.6 µs");
    }
}
