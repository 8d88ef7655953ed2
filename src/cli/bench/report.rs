//! The report of a run: a table for people, JSON for machines.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use super::figures::{Figures, Tally};
use super::load::Measured;
use super::process::{self, Usages};
use crate::cli::text::people_bytes;

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

    /// A fraction of a whole.
    pub(super) fn share(&mut self, key: &str, label: &str, share: f64) {
        self.add(key, label, share, format!("{:.1}%", 100.0 * share));
    }

    /// Throughput, latency, CPU and memory.
    pub(super) fn measured(&mut self, measured: &Measured) {
        let figures = &measured.run.figures;
        let elapsed = figures.elapsed();
        self.add("seconds", "measured", elapsed.as_secs_f64(), human(elapsed));
        self.tally("acknowledged", &figures.acks, elapsed);
        if figures.deliveries.entries > 0 {
            self.tally("delivered", &figures.deliveries, elapsed);
        }
        let entries = figures.acks.entries.max(figures.deliveries.entries);
        self.usages(measured.before, measured.after, elapsed, entries);
        if figures.unsent > 0 {
            let text = format!("{} batches that were due", grouped(figures.unsent as f64));
            self.add("unsent", "never sent", figures.unsent, text);
        }
        self.faults(&figures.faults);
    }

    /// How long acks took.
    pub(super) fn latency(&mut self, what: &str, figures: &Figures) {
        self.tally(what, &figures.acks, figures.elapsed());
        self.faults(&figures.faults);
    }

    /// What others achieved meanwhile.
    pub(super) fn neighbours(&mut self, figures: &Figures) {
        let done = [&figures.acks, &figures.deliveries];
        if let Some(done) = done.into_iter().max_by_key(|done| done.entries) {
            self.tally("neighbours", done, figures.elapsed());
        }
        self.faults(&figures.faults);
    }

    fn tally(&mut self, what: &str, tally: &Tally, elapsed: Duration) {
        let [messages, entries] =
            [tally.messages, tally.entries].map(|count| count as f64 / elapsed.as_secs_f64());
        let latency = QUANTILES.map(|(name, of)| (name, quantile_of(&tally.latency, of)));
        let seconds = latency.map(|(name, time)| (name, time.as_secs_f64()));
        let value = json!({
            "messages_per_second": messages.round(),
            "entries_per_second": entries.round(),
            "latency": BTreeMap::from(seconds),
        });
        let text = format!("{} entries/s, {} messages/s", grouped(entries), grouped(messages));
        self.add(what, what, value, text);
        if tally.latency.is_empty() {
            return;
        }
        let texts = latency.map(|(name, time)| format!("{name} {}", human(time)));
        self.lines.push((format!("{what} after"), texts.join("  ")));
    }

    /// CPU time and memory of server and generator over some time, in which this many entries were handled.
    pub(super) fn usages(
        &mut self,
        before: Usages,
        after: Usages,
        elapsed: Duration,
        entries: u64,
    ) {
        let usages = before.into_iter().zip(after).map(|(before, after)| before.zip(after));
        for (who, usage) in ["server", "generator"].into_iter().zip(usages) {
            let Some((before, after)) = usage else { continue };
            let cpu = after.cpu_since(&before);
            let (cores, nanos) = (cpu / elapsed.as_secs_f64(), 1e9 * cpu / entries.max(1) as f64);
            let value = json!({
                "cores": cores,
                "cpu_nanos_per_entry": nanos,
                "resident_bytes": after.resident_bytes,
                "resident_bytes_max": after.resident_bytes_max,
            });
            let text = format!(
                "{cores:.2} cores, {} ns of CPU an entry, {} resident, {} at most",
                grouped(nanos),
                people_bytes(after.resident_bytes),
                people_bytes(after.resident_bytes_max),
            );
            self.add(who, who, value, text);
        }
    }

    /// Adds to the list of faults.
    pub(super) fn faults(&mut self, faults: &BTreeMap<String, u64>) {
        for (what, count) in faults {
            *self.faults.entry(what.clone()).or_default() += count;
        }
    }

    /// Adds one fault.
    pub(super) fn fault(&mut self, what: &str) {
        self.faults(&BTreeMap::from([(what.to_owned(), 1)]));
    }

    /// Prints it all; `true` if there are no faults.
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

/// A duration in a suitable unit.
pub(super) fn human(duration: Duration) -> String {
    format!("{duration:.2?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_readable() {
        assert_eq!(grouped(1_234_567.8), "1,234,568");
        assert_eq!(grouped(999.0), "999");
        assert_eq!(human(Duration::from_micros(1_234)), "1.23ms");
        assert_eq!(human(Duration::from_secs(123)), "123.00s");
        assert_eq!(human(Duration::from_nanos(45_600)), "45.60µs");
    }
}
