//! Who a client is, and how it proves that.

use ed25519_dalek::{Signer, SigningKey};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::auth::signed_bytes;
use super::call::Authenticate;
use crate::model::{PublicKey, RemoteId};

/// What precedes the secret when an Effect client's signing key is derived.
const SEED_PURPOSE: &[u8] = b"effect/eventlog/identity/v1/signing\0";

/// A client's identity: a public key, which names it, and an Ed25519 key, with which it proves that the name is its
/// own.
///
/// The first signing key that a server sees for a public key is the one that it accepts from then on. Whoever loses the
/// signing key loses the public key with it; keep [`Identity::signing_key`] where it is safe, and let nobody read it.
#[derive(Clone, Debug)]
pub struct Identity {
    name: PublicKey,
    signing: SigningKey,
    verifying: [u8; 32],
}

impl Identity {
    /// An identity with a new signing key, which nobody can predict.
    pub fn generate(public_key: PublicKey) -> Self {
        // 366 of the 384 bits are random: more than the 256 that the hash keeps.
        let random = (0..3).fold(Sha256::new(), |hash, _| hash.chain_update(Uuid::new_v4()));
        Self::from_signing_key(public_key, &random.finalize().into())
    }

    /// The identity with this private Ed25519 key (RFC 8032): any 32 bytes are valid.
    pub fn from_signing_key(public_key: PublicKey, signing_key: &[u8; 32]) -> Self {
        let signing = SigningKey::from_bytes(signing_key);
        let verifying = signing.verifying_key().to_bytes();
        Self { name: public_key, signing, verifying }
    }

    /// The identity of an Effect client with this root secret, 32 bytes that only the client knows.
    pub fn from_root_secret(public_key: PublicKey, root_secret: &[u8; 32]) -> Self {
        let seed = Sha256::new().chain_update(SEED_PURPOSE).chain_update(root_secret).finalize();
        Self::from_signing_key(public_key, &seed.into())
    }

    /// Its name.
    pub const fn public_key(&self) -> &PublicKey {
        &self.name
    }

    /// Its private Ed25519 key, for [`Identity::from_signing_key`]: a secret.
    pub fn signing_key(&self) -> [u8; 32] {
        self.signing.to_bytes()
    }

    /// Its public Ed25519 key.
    pub const fn signing_public_key(&self) -> &[u8; 32] {
        &self.verifying
    }

    /// Signs the challenge of the server `remote_id`.
    pub fn sign(&self, remote_id: RemoteId, challenge: &[u8]) -> [u8; 64] {
        let key = &self.verifying;
        let bytes = signed_bytes(remote_id.as_bytes(), challenge, self.name.as_str(), key);
        self.signing.sign(&bytes).to_bytes()
    }

    /// The claim that carries `signature`.
    pub fn claim<'a>(&'a self, signature: &'a [u8; 64]) -> Authenticate<'a> {
        Authenticate {
            public_key: self.name.as_str(),
            signing_public_key: &self.verifying,
            signature,
        }
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::VerifyingKey;
    use serde_json::Value;

    use super::*;

    fn any() -> PublicKey {
        PublicKey::new("any").expect("a key")
    }

    #[test]
    fn seeds_keys_bytes_and_signatures_are_those_of_the_package() {
        let vectors = include_str!("../../../tests/vectors/effect-4.1/session_auth.json");
        let vectors: Vec<Value> = serde_json::from_str(vectors).expect("a vector file");
        assert_eq!(vectors.len(), 4);
        for vector in vectors {
            let bytes = |name: &str| {
                super::super::vectors::unhex(vector[name]["hex"].as_str().expect("bytes"))
            };
            let public_key = vector["publicKey"].as_str().expect("text");
            let secret = bytes("rootSecret").try_into().expect("32 bytes");
            let identity = Identity::from_root_secret(any(), &secret);
            assert_eq!(identity.signing_key().to_vec(), bytes("signingSeed"));
            assert_eq!(identity.signing_public_key().to_vec(), bytes("signingPublicKey"));
            let key = identity.signing_public_key();
            let message = signed_bytes(&bytes("remoteId"), &bytes("challenge"), public_key, key);
            assert_eq!(message, bytes("payload"));
            let signature = identity.signing.sign(&message);
            assert_eq!(signature.to_bytes().to_vec(), bytes("signature"));
            let key = VerifyingKey::from_bytes(key).expect("a key");
            assert!(key.verify_strict(&message, &signature).is_ok());
        }
    }

    #[test]
    fn generated_identities_differ_and_come_back_from_their_signing_key() {
        let (one, other) = (Identity::generate(any()), Identity::generate(any()));
        assert_ne!(one.signing_key(), other.signing_key());
        let again = Identity::from_signing_key(any(), &one.signing_key());
        assert_eq!(again.signing_public_key(), one.signing_public_key());
    }

    #[test]
    fn a_signing_key_is_not_printed() {
        let identity = Identity::from_signing_key(any(), &[0xab; 32]);
        let printed = format!("{identity:?}");
        assert!(!printed.contains("171, 171, 171") && !printed.contains("abab"), "{printed}");
    }
}
