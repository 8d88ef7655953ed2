//! Signatures of the Standard Webhooks specification: HMAC-SHA256 over id, time and body.

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, Mac};
use parking_lot::RwLock;
use sha2::Sha256;

use crate::model;

/// The prefix of a secret.
const PREFIX: &str = "whsec_";
/// The specification says that fewer bytes are too easy to guess,
const SECRET_BYTES_MIN: usize = 24;
/// and that more are of no use.
const SECRET_BYTES_MAX: usize = 64;

/// What a request is signed with. `Debug` does not show it.
#[derive(Clone)]
pub struct Secret(model::Secret<[u8]>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The text is not a signing secret. Does not show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a secret is `whsec_` and 24 to 64 random bytes in base64, as `echo whsec_$(openssl rand -base64 32)` makes one"
)]
pub struct InvalidSecret;

impl std::str::FromStr for Secret {
    type Err = InvalidSecret;

    fn from_str(text: &str) -> Result<Self, InvalidSecret> {
        let bytes = text.strip_prefix(PREFIX).and_then(|text| BASE64.decode(text).ok());
        let fits = |bytes: &Vec<u8>| (SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&bytes.len());
        bytes.filter(fits).map(|bytes| Self(model::Secret::new(bytes))).ok_or(InvalidSecret)
    }
}

/// What requests to one receiver are signed with. Clones share the secrets, so whoever keeps one can replace them.
#[derive(Clone, Debug)]
pub struct Signing(Arc<RwLock<Vec<Secret>>>);

impl Signing {
    pub(crate) fn with(secrets: Vec<Secret>) -> Self {
        Self(Arc::new(RwLock::new(secrets)))
    }

    /// Signs every request from now on with `secrets` only. If the list is empty, nothing changes.
    pub fn replace(&self, secrets: Vec<Secret>) {
        if !secrets.is_empty() {
            *self.0.write() = secrets;
        }
    }

    /// The value of `webhook-signature`: a signature for each secret, so that a receiver that knows one of them accepts
    /// the request while they are changed.
    pub(super) fn signatures(&self, id: &str, timestamp: &str, body: &[u8]) -> String {
        let mut all = String::new();
        for secret in &*self.0.read() {
            let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.0.expose()) else {
                // It accepts keys of any length.
                continue;
            };
            for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
                mac.update(part);
            }
            if !all.is_empty() {
                all.push(' ');
            }
            all.push_str("v1,");
            BASE64.encode_string(mac.finalize().into_bytes(), &mut all);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The specification's own example of a secret and a message, as used in the tests of its libraries.
    #[test]
    fn the_signature_is_that_of_the_specification() {
        let secret: Secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().expect("a secret");
        let body = br#"{"test": 2432232314}"#;
        let signing = Signing::with(Vec::new());
        let signed = |secrets: &[Secret]| {
            signing.replace(secrets.to_vec());
            signing.signatures("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", body)
        };
        let expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert_eq!(signed(std::slice::from_ref(&secret)), expected);
        assert_eq!(signed(&[secret.clone(), secret]), format!("{expected} {expected}"));
        assert_eq!(signed(&[]), format!("{expected} {expected}"), "never unsigned");
    }

    #[test]
    fn what_is_no_secret_is_refused_and_not_shown() {
        let of = |bytes: usize| format!("whsec_{}", BASE64.encode(vec![7; bytes]));
        for text in ["", "whsec_", "whsec_?", &of(23), &of(65), &of(32)[6..], "whsk_abc"] {
            assert_eq!(text.parse::<Secret>().map(drop), Err(InvalidSecret), "{text}");
        }
        for bytes in [24, 32, 64] {
            let secret: Secret = of(bytes).parse().expect("a secret");
            assert_eq!(format!("{secret:?}"), "***");
        }
    }
}
