//! The log, on standard error: as text for people, or as one JSON object a line for machines.
//!
//! Keeps: both have the same lines, and the fields of a line (store, connection, key, entry, error) are in its text as
//! well; it can be changed while the process runs. Leaves out: what is logged, and how often the same line may appear.

use std::io::{self, Write};

use env_logger::fmt::Formatter;
use log::kv::{Error, Key, Value, VisitSource};
use log::{Log, Metadata, Record};
use parking_lot::RwLock;
use serde_json::Map;

use crate::config::{Levels, LogFormat, LogPlan};

/// Input that cannot be read as a request comes from strangers; the server itself logs what it looks like.
const SERVING: &str = "info,actix_server=warn,actix_http=off";
/// The other commands print results, and log only warnings.
const ANSWERING: &str = "warn";

/// The process's log.
static LOG: Replaceable = Replaceable(RwLock::new(None));

struct Replaceable(RwLock<Option<env_logger::Logger>>);

impl Log for Replaceable {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.0.read().as_ref().is_some_and(|log| log.enabled(metadata))
    }

    fn log(&self, record: &Record<'_>) {
        if let Some(log) = &*self.0.read() {
            log.log(record);
        }
    }

    fn flush(&self) {
        if let Some(log) = &*self.0.read() {
            log.flush();
        }
    }
}

/// The log of a command that prints results.
pub(super) fn start() {
    put(ANSWERING, LogFormat::Text);
}

/// The log of a server, from the beginning or from now on.
pub(super) fn serve(plan: &LogPlan) {
    let mut filter = plan.level.clone().unwrap_or_else(|| SERVING.to_owned());
    if plan.access {
        filter.push_str(",access=debug");
    }
    put(&filter, plan.format);
    eventlog_server::model::hash_keys_in_log(plan.hashes_keys);
}

/// `EVENTLOG_LOG`, or otherwise `RUST_LOG`, takes precedence over `filter`, unless it is wrong.
fn put(filter: &str, format: LogFormat) {
    let said = ["EVENTLOG_LOG", "RUST_LOG"].into_iter().find_map(|name| {
        let levels = std::env::var(name).ok().filter(|levels| !levels.is_empty())?;
        Some(levels.parse::<Levels>().map_err(|why| format!("{name} is ignored: {why}")))
    });
    let (filter, wrong) = match said {
        None => (filter.to_owned(), None),
        Some(Ok(Levels(levels))) => (levels, None),
        Some(Err(wrong)) => (filter.to_owned(), Some(wrong)),
    };
    let mut builder = env_logger::Builder::new();
    builder.parse_filters(&filter).format_timestamp_millis();
    // At lower levels they write whole addresses, whose queries may be secret.
    for client in ["ureq", "ureq_proto"] {
        builder.filter_module(client, log::LevelFilter::Warn);
    }
    if format == LogFormat::Json {
        builder.format(json);
    }
    let logger = builder.build();
    let most = logger.filter();
    *LOG.0.write() = Some(logger);
    // Fails if a logger is set, which is then this one.
    let _ = log::set_logger(&LOG);
    log::set_max_level(most);
    if let Some(wrong) = wrong {
        log::warn!("{wrong}");
    }
}

fn json(line: &mut Formatter, record: &Record<'_>) -> io::Result<()> {
    let time = line.timestamp_millis().to_string();
    let mut fields = Fields(Map::new());
    let mut put = |name: &str, value: &str| fields.0.insert(name.to_owned(), value.into());
    put("time", &time);
    put("level", record.level().as_str().to_ascii_lowercase().as_str());
    put("target", record.target());
    put("message", &record.args().to_string());
    // The values are ours, and showing them never fails.
    let _ = record.key_values().visit(&mut fields);
    serde_json::to_writer(&mut *line, &fields.0)?;
    line.write_all(b"\n")
}

struct Fields(Map<String, serde_json::Value>);

impl<'kvs> VisitSource<'kvs> for Fields {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        let value = match (value.to_u64(), value.to_bool()) {
            (Some(number), _) => number.into(),
            (None, Some(flag)) => flag.into(),
            (None, None) => value.to_string().into(),
        };
        self.0.insert(key.as_str().to_owned(), value);
        Ok(())
    }
}
