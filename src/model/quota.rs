//! What one key or one store may use: rates and counts. Without a value there is no limit.

use std::time::Duration;

use super::glob::glob_matches;

/// What one public key may use, or one store with all its keys together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Batches a second, on average.
    pub writes_per_second: Option<u64>,
    /// Bytes of entries a second, on average.
    pub bytes_per_second: Option<u64>,
    /// The writes and bytes of this period may come at once. A single batch may be larger: what comes after it waits
    /// longer.
    pub burst: Duration,
    /// Subscriptions at one time.
    pub subscriptions: Option<usize>,
    /// Connections at one time that use it.
    pub connections: Option<usize>,
    /// Bytes of entries. For a store: what it has; existing entries stay, and duplicates of them are still recognized
    /// above the limit. For a key: all that it has written while this was set for it, wherever that is now.
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
    /// Whether nothing is limited except stored bytes.
    pub const fn is_off(&self) -> bool {
        let rates = self.writes_per_second.is_none() && self.bytes_per_second.is_none();
        rates && self.subscriptions.is_none() && self.connections.is_none()
    }
}

/// The quotas of a server. By default nothing is limited.
///
/// Writes of the server itself are not counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quotas {
    /// The quota of each key.
    pub per_key: Quota,
    /// Keys with a quota of their own: patterns in which `*` stands for any text. The first match counts.
    pub keys: Vec<(String, Quota)>,
    /// The quota of each store.
    pub per_store: Quota,
    /// Stores with a quota of their own, as with keys.
    pub stores: Vec<(String, Quota)>,
}

impl Quotas {
    /// The quota of this key.
    pub fn of_key(&self, key: &str) -> Quota {
        first_match(&self.keys, key).unwrap_or(self.per_key)
    }

    /// The quota of this store.
    pub fn of_store(&self, store: &str) -> Quota {
        first_match(&self.stores, store).unwrap_or(self.per_store)
    }

    /// Whether nothing is limited except what stores hold.
    pub(crate) fn is_off(&self) -> bool {
        let all = [self.per_key, self.per_store].into_iter();
        let named = self.keys.iter().chain(&self.stores).map(|(_, quota)| *quota);
        all.chain(named).all(|quota| quota.is_off()) && !self.counts_keys()
    }

    /// Whether the server has to know what keys have written.
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
