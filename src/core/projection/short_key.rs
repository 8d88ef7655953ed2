//! Primary keys as an index keeps them.
//!
//! Keeps: a few bytes whatever the key, which may be as long as a message; different keys stay different.

use sha2::{Digest, Sha256};

/// Keys up to this length are kept unchanged.
const PLAIN_BYTES_MAX: usize = 128;

/// No text begins with this byte.
const HASHED: u8 = 0xff;

/// A primary key, or its replacement.
pub(super) enum ShortKey<'a> {
    Plain(&'a str),
    Hashed([u8; 33]),
}

impl<'a> ShortKey<'a> {
    pub(super) fn new(primary_key: &'a str) -> Self {
        if primary_key.len() <= PLAIN_BYTES_MAX {
            return Self::Plain(primary_key);
        }
        let mut bytes = [HASHED; 33];
        bytes[1..].copy_from_slice(&Sha256::digest(primary_key));
        Self::Hashed(bytes)
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Plain(key) => key.as_bytes(),
            Self::Hashed(bytes) => bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_any_length_stay_different_and_take_little() {
        let long = |last: char| format!("{}{last}", "k".repeat(1 << 20));
        let keys = [String::new(), "k".into(), "k".repeat(128), long('a'), long('b')];
        for (at, key) in keys.iter().enumerate() {
            assert!(ShortKey::new(key).as_bytes().len() <= PLAIN_BYTES_MAX);
            for (other_at, other) in keys.iter().enumerate() {
                let same = ShortKey::new(key).as_bytes() == ShortKey::new(other).as_bytes();
                assert_eq!(same, at == other_at);
            }
        }
    }
}
