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
}

impl Default for Quota {
    fn default() -> Self {
        Self {
            writes_per_second: None,
            bytes_per_second: None,
            burst: Duration::from_secs(10),
            subscriptions: None,
            connections: None,
        }
    }
}

impl Quota {
    /// Whether nothing is bounded.
    pub const fn is_off(&self) -> bool {
        let rates = self.writes_per_second.is_none() && self.bytes_per_second.is_none();
        rates && self.subscriptions.is_none() && self.connections.is_none()
    }
}

/// What one store may use, and hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreQuota {
    /// What all its keys together may use.
    pub shared: Quota,
    /// Bytes of all its entries. What is there already stays, and is known as a duplicate, also above it.
    pub bytes_stored: Option<u64>,
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
    pub per_store: StoreQuota,
    /// Stores that have another one, as with keys.
    pub stores: Vec<(String, StoreQuota)>,
}

impl Quotas {
    /// That of this key.
    pub fn of_key(&self, key: &str) -> Quota {
        first_match(&self.keys, key).unwrap_or(self.per_key)
    }

    /// That of this store.
    pub fn of_store(&self, store: &str) -> StoreQuota {
        first_match(&self.stores, store).unwrap_or(self.per_store)
    }

    /// Whether nothing is bounded but what stores hold.
    pub(crate) fn is_off(&self) -> bool {
        let keys = self.keys.iter().map(|(_, quota)| *quota);
        let stores = self.stores.iter().map(|(_, quota)| quota.shared);
        [self.per_key, self.per_store.shared]
            .into_iter()
            .chain(keys)
            .chain(stores)
            .all(|quota| quota.is_off())
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
        let full = StoreQuota { bytes_stored: Some(1), ..StoreQuota::default() };
        assert!(Quotas { per_store: full, ..Quotas::default() }.is_off());
    }
}
