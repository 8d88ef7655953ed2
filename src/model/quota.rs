//! What one key, and one store, may use: rates and counts. Without a value there is no bound.

use std::time::Duration;

use super::glob::glob_matches;

/// What one public key may use, or one store, all its keys together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Batches in a second, over a longer time.
    pub writes_per_second: Option<u64>,
    /// Bytes of entries in a second, over a longer time.
    pub bytes_per_second: Option<u64>,
    /// The writes and bytes of so long a time may come at once. A single batch may be larger: what comes after it waits longer.
    pub burst: Duration,
    /// Subscriptions at once.
    pub subscriptions: Option<usize>,
    /// Connections at once on which it is used.
    pub connections: Option<usize>,
    /// Bytes of entries. Of a store: those that it has; what is there already stays, and is known as a duplicate, also above it. Of a
    /// key: all that it has written while this was set for it, wherever that is now.
    pub bytes_stored: Option<u64>,
}

impl Default for Quota {
    fn default() -> Self {
        Self {
            writes_per_second: None,
            bytes_per_second: None,
            burst: Duration::from_secs(10),
            subscriptions: None,
            connections: None,
            bytes_stored: None,
        }
    }
}

impl Quota {
    /// Whether nothing is bounded but what is stored.
    pub const fn is_off(&self) -> bool {
        let rates = self.writes_per_second.is_none() && self.bytes_per_second.is_none();
        rates && self.subscriptions.is_none() && self.connections.is_none()
    }
}

/// The quotas of a server. By default nothing is bounded.
///
/// What the server itself writes is not counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quotas {
    /// Of each key.
    pub per_key: Quota,
    /// Keys that have another one: patterns in which `*` stands for any text. The first that fits counts.
    pub keys: Vec<(String, Quota)>,
    /// Of each store.
    pub per_store: Quota,
    /// Stores that have another one, as with keys.
    pub stores: Vec<(String, Quota)>,
}

impl Quotas {
    /// That of this key.
    pub fn of_key(&self, key: &str) -> Quota {
        first_match(&self.keys, key).unwrap_or(self.per_key)
    }

    /// That of this store.
    pub fn of_store(&self, store: &str) -> Quota {
        first_match(&self.stores, store).unwrap_or(self.per_store)
    }

    /// Whether nothing is bounded but what stores hold.
    pub(crate) fn is_off(&self) -> bool {
        let all = [self.per_key, self.per_store].into_iter();
        let named = self.keys.iter().chain(&self.stores).map(|(_, quota)| *quota);
        all.chain(named).all(|quota| quota.is_off()) && !self.counts_keys()
    }

    /// Whether it has to be known what keys have written.
    pub(crate) fn counts_keys(&self) -> bool {
        let mut all = self.keys.iter().map(|(_, quota)| quota).chain([&self.per_key]);
        all.any(|quota| quota.bytes_stored.is_some())
    }
}

fn first_match<T: Copy>(patterns: &[(String, T)], name: &str) -> Option<T> {
    patterns.iter().find(|(pattern, _)| glob_matches(pattern, name)).map(|(_, quota)| *quota)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_pattern_that_fits_counts_alone() {
        let writes = |count| Quota { writes_per_second: Some(count), ..Quota::default() };
        let quotas = Quotas {
            per_key: Quota { connections: Some(1), ..writes(1) },
            keys: vec![("bot-*".to_owned(), writes(2)), ("*-1".to_owned(), writes(3))],
            ..Quotas::default()
        };
        assert_eq!(quotas.of_key("bot-1"), writes(2));
        assert_eq!(quotas.of_key("ann-1"), writes(3));
        assert_eq!(quotas.of_key("ann").connections, Some(1));
        assert!(!quotas.is_off() && Quotas::default().is_off());
        let full = Quota { bytes_stored: Some(1), ..Quota::default() };
        assert!(Quotas { per_store: full, ..Quotas::default() }.is_off());
        assert!(!Quotas { per_key: full, ..Quotas::default() }.is_off());
    }
}
