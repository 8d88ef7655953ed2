//! One hash over the registry and the other tables, kept up to date key by key: the sum of XXH3-128(number of the table (1),
//! length of the key (8), key, value) over the keys, modulo 2^128.

use twox_hash::XxHash3_128;

/// The hash over all tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TablesHash(u128);

impl TablesHash {
    /// With these bytes.
    pub(crate) const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }

    /// Its 16 bytes.
    pub(crate) const fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// Records that `key` of this table went from one value, or none, to another.
    pub(crate) fn change(&mut self, table: u8, key: &[u8], from: Option<&[u8]>, to: Option<&[u8]>) {
        let term = |value: Option<&[u8]>| value.map_or(0, |value| term(table, key, value));
        self.0 = self.0.wrapping_sub(term(from)).wrapping_add(term(to));
    }
}

fn term(table: u8, key: &[u8], value: &[u8]) -> u128 {
    let mut bytes = Vec::with_capacity(9 + key.len() + value.len());
    bytes.push(table);
    bytes.extend_from_slice(&(key.len() as u64).to_be_bytes());
    bytes.extend_from_slice(key);
    bytes.extend_from_slice(value);
    XxHash3_128::oneshot(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_that_of_what_is_there_now() {
        let (mut one, mut other) = (TablesHash::default(), TablesHash::default());
        one.change(2, b"k", None, Some(b"old"));
        one.change(3, b"k", None, Some(b"v"));
        one.change(2, b"k", Some(b"old"), Some(b"new"));
        other.change(2, b"k", None, Some(b"new"));
        assert_ne!(one, other);
        one.change(3, b"k", Some(b"v"), None);
        assert_eq!(one, other);
        assert_eq!(TablesHash::from_bytes(one.to_bytes()), one);
    }
}
