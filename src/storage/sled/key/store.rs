//! The key of a store's record, by name: `1 | name (1 to 256 bytes of UTF-8)`.

use std::ops::Bound;

use super::Kind;
use crate::model::StoreId;

/// The key of a store's record. Sorts as the names do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoreKey(pub(crate) StoreId);

impl StoreKey {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut key = vec![Kind::Store as u8];
        key.extend_from_slice(self.0.as_str().as_bytes());
        key
    }

    pub(crate) fn parse(key: &[u8]) -> Option<Self> {
        let (kind, name) = key.split_first()?;
        let name = std::str::from_utf8(name).ok()?;
        (*kind == Kind::Store as u8).then(|| StoreId::new(name).ok().map(Self))?
    }

    /// The range of those whose names come after `after`; without it, all of them.
    pub(crate) fn all_after(after: Option<&StoreId>) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
        let all = Kind::Store.all();
        let from = match after {
            Some(after) => Bound::Excluded(Self(after.clone()).to_bytes()),
            None => Bound::Included(all.start.to_vec()),
        };
        (from, Bound::Excluded(all.end.to_vec()))
    }
}

#[cfg(test)]
mod tests {
    use std::ops::RangeBounds;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn keys_round_trip_and_sort_as_names(a in "\\PC{1,60}", b in "\\PC{1,60}") {
            let [a, b] = [a, b].map(|name| StoreKey(StoreId::new(name).expect("a name")));
            prop_assert_eq!(StoreKey::parse(&a.to_bytes()), Some(a.clone()));
            prop_assert_eq!(a.to_bytes().cmp(&b.to_bytes()), a.0.cmp(&b.0));
            prop_assert!(StoreKey::all_after(None).contains(&a.to_bytes()));
            prop_assert_eq!(StoreKey::all_after(Some(&b.0)).contains(&a.to_bytes()), a.0 > b.0);
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
