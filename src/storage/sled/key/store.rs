//! Where the record of a store is found by its name: `1 | name (1 to 256 bytes of UTF-8)`.

use std::ops::Range;

use super::Kind;
use crate::model::StoreId;

/// The key of a store's record. Sorts as the names do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::storage::sled) struct StoreKey(pub(in crate::storage::sled) StoreId);

impl StoreKey {
    pub(in crate::storage::sled) fn to_bytes(&self) -> Vec<u8> {
        let mut key = vec![Kind::Store as u8];
        key.extend_from_slice(self.0.as_str().as_bytes());
        key
    }

    pub(in crate::storage::sled) fn parse(key: &[u8]) -> Option<Self> {
        let (kind, name) = key.split_first()?;
        let name = std::str::from_utf8(name).ok()?;
        (*kind == Kind::Store as u8).then(|| StoreId::new(name).ok().map(Self))?
    }

    /// Where all of them are.
    pub(in crate::storage::sled) fn all() -> Range<[u8; 1]> {
        Kind::Store.all()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn keys_round_trip_and_sort_as_names(a in "\\PC{1,60}", b in "\\PC{1,60}") {
            let [a, b] = [a, b].map(|name| StoreKey(StoreId::new(name).expect("a name")));
            prop_assert_eq!(StoreKey::parse(&a.to_bytes()), Some(a.clone()));
            prop_assert_eq!(a.to_bytes().cmp(&b.to_bytes()), a.0.cmp(&b.0));
            let kind = [a.to_bytes()[0]];
            prop_assert!(StoreKey::all().contains(&kind));
        }

        #[test]
        fn malformed_keys_are_refused(key: Vec<u8>) {
            if let Some(parsed) = StoreKey::parse(&key) {
                prop_assert_eq!(parsed.to_bytes(), key);
            }
        }
    }

    #[test]
    fn bytes_do_not_change() {
        let key = StoreKey(StoreId::new("team").expect("a name"));
        assert_eq!(key.to_bytes(), b"\x01team");
        for malformed in [&b""[..], b"\x01", b"\x02team", b"\x01\xff"] {
            assert_eq!(StoreKey::parse(malformed), None);
        }
    }
}
