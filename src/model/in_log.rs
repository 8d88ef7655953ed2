//! Public keys in the log: in full, or hashed where the log must not say who was there.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use sha2::{Digest, Sha256};

use super::PublicKey;

/// A process has one log, and so one way to show keys in it.
static HASHED: AtomicBool = AtomicBool::new(false);

/// Sets whether the log shows the first 16 hexadecimal digits of a public key's SHA-256 instead of the key. Takes
/// effect at once, for the whole process.
pub fn hash_keys_in_log(hashed: bool) {
    HASHED.store(hashed, Ordering::Relaxed);
}

/// Whether it does.
pub(crate) fn hashes_keys_in_log() -> bool {
    HASHED.load(Ordering::Relaxed)
}

/// The public key that a client claims, as the value of a field: hashed, or as it is.
pub(crate) fn key_as_field(text: &str) -> String {
    if hashes_keys_in_log() { InLog(text).to_string() } else { text.to_owned() }
}

/// A public key as the log shows it.
pub(crate) struct InLog<'a>(&'a str);

impl PublicKey {
    /// This key as the log shows it: quoted, or hashed.
    pub(crate) fn in_log(&self) -> InLog<'_> {
        key_in_log(self.as_str())
    }
}

/// The public key that a client claims, as the log shows it.
pub(crate) const fn key_in_log(text: &str) -> InLog<'_> {
    InLog(text)
}

impl fmt::Display for InLog<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if HASHED.load(Ordering::Relaxed) { hashed(self.0, f) } else { write!(f, "{:?}", self.0) }
    }
}

fn hashed(key: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("sha256:")?;
    let digest = Sha256::digest(key);
    digest.iter().take(8).try_for_each(|byte| write!(f, "{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Hashed(&'static str);

    impl fmt::Display for Hashed {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            hashed(self.0, f)
        }
    }

    #[test]
    fn a_key_is_whole_or_hashed() {
        let key = PublicKey::new("alice").expect("a key");
        assert_eq!(key.in_log().to_string(), "\"alice\"");
        // printf alice | sha256sum
        assert_eq!(Hashed("alice").to_string(), "sha256:2bd806c97f0e00af");
    }
}
