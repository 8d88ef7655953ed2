//! `[quota]`: what each key, and each store, may use.

use eventlog_server::model::{Quota, Quotas};

use super::check::impossible;
use super::fault::ConfigError;
use super::layer::entry;
use super::settings::QuotaSettings;
use super::units::{Count, Size, Span};

entry! {
    /// One `[[quota.key]]`: keys with a quota of their own.
    KeyQuotaEntry {
        /// A pattern in which `*` stands for any text.
        public_key: String,
        writes_per_second: Option<Count>,
        bytes_per_second: Option<Size>,
        burst: Option<Span>,
        subscriptions: Option<Count>,
        connections: Option<Count>,
        bytes_stored: Option<Size>,
    }
}

entry! {
    /// One `[[quota.store]]`.
    StoreQuotaEntry {
        /// A pattern in which `*` stands for any text.
        store_id: String,
        writes_per_second: Option<Count>,
        bytes_per_second: Option<Size>,
        burst: Option<Span>,
        subscriptions: Option<Count>,
        connections: Option<Count>,
        bytes_stored: Option<Size>,
    }
}

/// Builds a quota from one of the tables, which all use the same names.
macro_rules! quota {
    ($from:expr) => {
        Quota {
            writes_per_second: $from.writes_per_second.map(|count| count.0 as u64),
            bytes_per_second: $from.bytes_per_second.map(|size| size.0 as u64),
            burst: $from.burst.map_or(Quota::default().burst, |span| span.0),
            subscriptions: $from.subscriptions.map(|count| count.0),
            connections: $from.connections.map(|count| count.0),
            bytes_stored: $from.bytes_stored.map(|size| size.0 as u64),
        }
    };
}

/// The quotas that are set.
pub(super) fn quotas(settings: QuotaSettings) -> Result<Quotas, ConfigError> {
    let QuotaSettings { per_key, per_store, key, store } = settings;
    let quotas = Quotas {
        per_key: quota!(per_key),
        keys: key.into_iter().map(|entry| (entry.public_key.clone(), quota!(entry))).collect(),
        per_store: quota!(per_store),
        stores: store.into_iter().map(|entry| (entry.store_id.clone(), quota!(entry))).collect(),
    };
    let keys = quotas.keys.iter().map(|(_, quota)| quota).chain([&quotas.per_key]);
    let stores = quotas.stores.iter().map(|(_, quota)| quota);
    keys.chain(stores).chain([&quotas.per_store]).try_for_each(check)?;
    Ok(quotas)
}

fn check(quota: &Quota) -> Result<(), ConfigError> {
    const NOTHING: &str =
        "with nothing allowed, nobody could do anything; leave it out for no bound";
    let Quota {
        writes_per_second,
        bytes_per_second,
        burst: _,
        subscriptions,
        connections,
        bytes_stored: _,
    } = *quota;
    let counts = [
        ("[quota] writes_per_second", writes_per_second),
        ("[quota] bytes_per_second", bytes_per_second),
        ("[quota] subscriptions", subscriptions.map(|count| count as u64)),
        ("[quota] connections", connections.map(|count| count as u64)),
    ];
    match counts.into_iter().find(|(_, count)| *count == Some(0)) {
        Some((key, _)) => Err(impossible(key, 0, NOTHING)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::parse_file;

    fn read(file: &str) -> Result<Quotas, String> {
        let (settings, faults) = parse_file(file);
        if let Some(fault) = faults.found.first() {
            return Err(format!("{}: {}", fault.key, fault.message));
        }
        quotas(settings.quota).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_not_set_is_not_bounded_and_a_pattern_takes_the_place_of_the_rest() {
        assert_eq!(read(""), Ok(Quotas::default()));
        let file = "[quota.per_key]\nwrites_per_second = 5\nburst = \"3s\"\n\
                    [quota.per_store]\nbytes_stored = \"1GiB\"\nconnections = 7\n\
                    [[quota.key]]\npublic_key = \"bot-*\"\nbytes_per_second = \"1MiB\"\n\
                    [[quota.store]]\nstore_id = \"*\"\nsubscriptions = 2";
        let read = read(file).expect("it works");
        let burst = Duration::from_secs(3);
        let writes = Quota { writes_per_second: Some(5), burst, ..Quota::default() };
        assert_eq!(read.of_key("alice"), writes);
        let bytes = Quota { bytes_per_second: Some(1 << 20), ..Quota::default() };
        assert_eq!(read.of_key("bot-1"), bytes);
        let stored = Some(1 << 30);
        let store = Quota { connections: Some(7), bytes_stored: stored, ..Quota::default() };
        assert_eq!(read.per_store, store);
        let team = Quota { subscriptions: Some(2), ..Quota::default() };
        assert_eq!(read.of_store("team"), team);
    }

    #[test]
    fn what_cannot_work_is_refused_with_its_key() {
        for (file, says) in [
            ("quota.per_key.writes_per_second = 0", "writes_per_second"),
            ("quota.per_store.connections = 0", "connections"),
            ("[[quota.key]]\npublic_key = \"a\"\nbytes_per_second = 0", "bytes_per_second"),
            ("[[quota.store]]\nstore_id = \"a\"\nsubscriptions = 0", "subscriptions"),
            ("quota.per_key.bytes_held = 1", "bytes_held"),
            ("[[quota.key]]\npublic_key = \"a\"\nwrite_per_second = 1", "write_per_second"),
            ("[[quota.store]]\nconnections = 1", "store_id"),
        ] {
            let message = read(file).expect_err("refused");
            assert!(message.contains(says), "{file}: {message}");
        }
    }
}
