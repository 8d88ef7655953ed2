//! JSON Web Key Sets (RFC 7517): the issuer's public keys, as login servers publish them.
//!
//! Keeps: keys for other purposes, or of an unknown kind, are skipped; a secret in a set is never accepted, because
//! sets are public.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde::Deserialize;

use super::key::{InvalidKey, Key, KeySet};

/// No issuer signs with more keys. Each of them may have to be tried on a token that names none.
const KEYS_MAX: usize = 32;

/// Why a text is not a usable key set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidJwks {
    /// It is not a key set at all.
    #[error("it is not a JSON Web Key Set: {0}")]
    Malformed(String),
    /// No key in it can check tokens here.
    #[error("it has no usable key: RSA from 2048 bits on, EC on P-256, or Ed25519")]
    NoKey,
    /// It has too many keys.
    #[error("it has more than {KEYS_MAX} keys")]
    TooMany,
}

#[derive(Deserialize)]
struct Jwks {
    keys: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    kid: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl KeySet {
    /// Adds the keys of a JSON Web Key Set.
    pub fn add_jwks(&mut self, text: &[u8]) -> Result<(), InvalidJwks> {
        let malformed = |error: serde_json::Error| InvalidJwks::Malformed(error.to_string());
        let Jwks { keys } = serde_json::from_slice(text).map_err(malformed)?;
        let before = self.len();
        // A key that cannot be read counts as unknown.
        let keys = keys.into_iter().filter_map(|key| serde_json::from_value::<Jwk>(key).ok());
        for jwk in keys {
            if let Some(key) = jwk.key() {
                self.add_from_set(jwk.kid.as_deref(), key);
            }
        }
        match self.len() - before {
            0 => Err(InvalidJwks::NoKey),
            count if count > KEYS_MAX => Err(InvalidJwks::TooMany),
            _ => Ok(()),
        }
    }
}

impl Jwk {
    /// The key, if it checks signatures with a known algorithm.
    fn key(&self) -> Option<Key> {
        let signs = self.usage.as_deref().is_none_or(|usage| usage == "sig");
        let verifies = self.key_ops.as_ref().is_none_or(|ops| ops.iter().any(|op| op == "verify"));
        let key = (signs && verifies).then(|| self.read())??;
        let named = self.alg.as_deref().is_none_or(|name| name == key.algorithm().name());
        named.then_some(key)
    }

    fn read(&self) -> Option<Key> {
        let read: Result<Key, InvalidKey> = match (&*self.kty, self.crv.as_deref()) {
            ("RSA", _) => Key::rsa(&bytes(self.n.as_ref())?, &bytes(self.e.as_ref())?),
            ("EC", Some("P-256")) => {
                Key::p256(&[&[4], &*bytes(self.x.as_ref())?, &*bytes(self.y.as_ref())?].concat())
            }
            ("OKP", Some("Ed25519")) => Key::ed25519(&bytes(self.x.as_ref())?),
            _ => return None,
        };
        read.ok()
    }
}

fn bytes(text: Option<&String>) -> Option<Vec<u8>> {
    BASE64.decode(text?).ok()
}
